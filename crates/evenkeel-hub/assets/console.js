// The console: asks for the state of the hub once a second and shows it. README.md in this folder defines the JSON.

import { createChart, short } from './chart.js';
import { startPublishing } from './publish.js';
import { startTail } from './tail.js';
import { Refused, request, setToken } from './request.js';

const PERIOD_MS = 1000;

const byId = (id) => document.getElementById(id);
const integer = new Intl.NumberFormat('en');

function setText(id, text) {
  const node = byId(id);
  if (node.textContent !== text) node.textContent = text;
}

function duration(seconds) {
  const units = [['d', 86400], ['h', 3600], ['min', 60], ['s', 1]];
  const first = Math.max(0, units.findIndex(([, size]) => seconds >= size));
  const [[name, size], next] = [units[seconds < 1 ? 3 : first], units[first + 1]];
  const major = `${Math.floor(seconds / size)} ${name}`;
  if (!next || seconds < 1) return major;
  return `${major} ${Math.floor((seconds % size) / next[1])} ${next[0]}`;
}

function micros(value) {
  if (value < 1000) return `${Math.round(value)} µs`;
  if (value < 1e6) return `${(value / 1000).toFixed(value < 1e4 ? 1 : 0)} ms`;
  return `${(value / 1e6).toFixed(1)} s`;
}

function bytes(value) {
  const units = ['B', 'KiB', 'MiB', 'GiB'];
  let power = 0;
  for (; value >= 1024 && power < units.length - 1; power += 1) value /= 1024;
  return `${value.toFixed(power > 0 && value < 100 ? 1 : 0)} ${units[power]}`;
}

/** The kind of a channel, which its name's prefix says. */
function kindOf(name) {
  if (name.startsWith('#')) return 'user';
  const guard = ['private-encrypted-', 'private-', 'presence-'].find((prefix) => name.startsWith(prefix)) ?? '';
  const cache = name.slice(guard.length).startsWith('cache-');
  return [guard.slice(0, -1).replace('private-encrypted', 'encrypted') || (cache ? '' : 'public'), cache ? 'cache' : '']
    .filter(Boolean).join(' ');
}

const sum = (items, pick) => items.reduce((total, item) => total + pick(item), 0);

/** Growth per second between two states, by key; nothing when the hub restarted in between. */
function growth(now, before, seconds, counters) {
  if (!before) return null;
  const [new_, old] = [counters(now), counters(before)];
  const rate = Object.fromEntries(Object.keys(new_).map((key) => [key, (new_[key] - (old[key] ?? 0)) / seconds]));
  return Object.values(rate).some((value) => value < 0) ? null : rate;
}

/** Replaces the rows of a table, keeping those whose text did not change so that focus and selection stay. */
function fillRows(body, rows, build) {
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((row, index) => {
    const signature = JSON.stringify(row);
    const old = body.rows[index];
    if (old?.dataset.signature === signature) return;
    const focused = old?.contains(document.activeElement);
    const fresh = build(row);
    fresh.dataset.signature = signature;
    if (old) old.replaceWith(fresh);
    else body.append(fresh);
    if (focused) fresh.querySelector('button')?.focus();
  });
}

function tableRow(cells) {
  const row = document.createElement('tr');
  for (const cell of cells) {
    const node = document.createElement('td');
    node.append(...(Array.isArray(cell) ? cell : [cell]));
    row.append(node);
  }
  return row;
}

function tagged(tag, text, properties = {}) {
  return Object.assign(document.createElement(tag), { textContent: text, ...properties });
}

function showTiles(state, rate) {
  const { apps, loops, process } = state;
  const [ws, sse] = [sum(apps, (app) => app.connections.websocket), sum(apps, (app) => app.connections.sse)];
  setText('connections', integer.format(ws + sse));
  setText('connections-note', `${integer.format(ws)} WebSocket, ${integer.format(sse)} SSE`);
  setText('channels', integer.format(state.channels_total));
  setText('channels-note', `in ${apps.length} application${apps.length === 1 ? '' : 's'}`);
  setText('rate-in', rate ? short(rate.in) : '–');
  setText('rate-out', rate ? short(rate.out) : '–');
  setText('total-in', `${short(sum(apps, (app) => app.messages_in))} in all`);
  setText('total-out', `${short(sum(apps, (app) => app.messages_out))} in all`);
  setText('turn', micros(Math.max(0, ...loops.map((loop) => loop.p99_us))));
  setText('turn-note', `longest ${micros(Math.max(0, ...loops.map((loop) => loop.max_us)))}`);
  setText('memory', bytes(process.rss_bytes));
  setText('descriptors', `${integer.format(process.fds)} descriptors`);
  setText('backend', state.backend);
  setText('version', state.version);
  setText('uptime', duration(state.uptime_seconds));
}

function showTables(state, before, seconds) {
  const turns = growth(state, before, seconds, ({ loops }) => Object.fromEntries(loops.map((loop) => [loop.id, loop.turns])));
  const rows = state.loops.map((loop) => [
    String(loop.id), micros(loop.p50_us), micros(loop.p99_us), micros(loop.max_us),
    turns ? short(turns[loop.id]) : '–', ...[loop.connections, loop.tasks, loop.timers].map((n) => integer.format(n)),
  ]);
  fillRows(byId('loops'), rows, tableRow);

  const rateOf = (name) => growth(state, before, seconds, ({ apps }) =>
    Object.fromEntries(apps.map((app) => [app.id, app[name]])));
  const [rateIn, rateOut] = [rateOf('messages_in'), rateOf('messages_out')];
  const apps = state.apps.map((app) => [
    app.name, app.id, integer.format(app.connections.websocket), integer.format(app.connections.sse),
    integer.format(app.channels), rateIn ? short(rateIn[app.id]) : '–', rateOut ? short(rateOut[app.id]) : '–',
    integer.format(app.refused),
  ]);
  fillRows(byId('apps'), apps, ([name, id, ...rest]) => tableRow([[name, tagged('small', `id ${id}`)], ...rest]));
}

function showRefusals(refusals) {
  const list = byId('refusals');
  const counted = Object.entries(refusals).filter(([, count]) => count > 0).sort(([, a], [, b]) => b - a);
  const most = counted[0]?.[1] ?? 1;
  list.replaceChildren(...counted.map(([reason, count]) => {
    const item = document.createElement('li');
    const name = tagged('span', reason, { className: 'name', title: reason });
    const meter = tagged('meter', '', { max: most, value: count });
    meter.setAttribute('aria-hidden', 'true');
    item.append(name, meter, tagged('span', integer.format(count), { className: 'number' }));
    return item;
  }));
  byId('no-refusals').hidden = counted.length > 0;
}

function showChannels(state, choose) {
  const wanted = byId('filter').value.trim().toLowerCase();
  const names = new Map(state.apps.map((app) => [app.id, app.name]));
  const rows = state.channels.filter((channel) => channel.name.toLowerCase().includes(wanted)).map((channel) => [
    channel.name, channel.app, names.get(channel.app) ?? channel.app,
    integer.format(channel.subscriptions), channel.users === null ? '–' : integer.format(channel.users),
  ]);
  fillRows(byId('channel-rows'), rows, ([name, app, appName, ...counts]) => {
    const press = tagged('button', name, { type: 'button', className: 'link', title: `Follow ${name}` });
    press.addEventListener('click', () => choose(app, name));
    const kind = tagged('span', kindOf(name), { className: 'kind' });
    kind.dataset.guarded = String(/^(private|presence)-/.test(name));
    return tableRow([press, kind, appName, ...counts]);
  });
  byId('no-channels').hidden = rows.length > 0;
  byId('no-channels').textContent = wanted && state.channels.length > 0 ? 'No channel has such a name.' : 'No channel is occupied.';
  const known = [...new Set(state.channels.map((channel) => channel.name))];
  const list = byId('known-channels');
  if (list.dataset.names !== known.join(' ')) {
    list.dataset.names = known.join(' ');
    list.replaceChildren(...known.map((name) => tagged('option', '', { value: name })));
  }
}

/** Offers the applications in every form, keeping the choice. */
function offerApps(apps) {
  for (const select of [byId('publish-app'), byId('tail-app')]) {
    const signature = JSON.stringify(apps.map((app) => [app.id, app.name]));
    if (select.dataset.signature === signature) continue;
    const chosen = select.value;
    select.dataset.signature = signature;
    select.replaceChildren(...apps.map((app) => tagged('option', `${app.name} (${app.id})`, { value: app.id })));
    if (apps.some((app) => app.id === chosen)) select.value = chosen;
  }
}

function setStatus(state, text) {
  byId('status').dataset.state = state;
  setText('status', text);
}

/** Asks for the token and comes back when there is one to try. */
function askToken(again) {
  const dialog = byId('token-dialog');
  setText('token-error', again ? 'That token was refused.' : '');
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => {
      setToken(byId('token').value);
      byId('token').value = '';
      resolve();
    }, { once: true });
  });
}

function startConsole() {
  let latest = null;
  let receivedAt = 0;
  let asked = false;
  const tail = startTail(byId, () => latest?.apps ?? []);
  const publishing = startPublishing(byId);
  const choose = (app, channel) => {
    publishing.address(app, channel);
    tail.follow(app, channel);
  };
  const chart = createChart(byId('plot'), (sample, ago) => {
    setText('legend-out', sample ? short(sample.out) : '–');
    setText('legend-in', sample ? short(sample.in) : '–');
    setText('legend-when', ago === null ? 'last 2 minutes' : `${ago} s ago`);
  });
  byId('filter').addEventListener('input', () => { if (latest) showChannels(latest, choose); });

  function show(state) {
    const now = performance.now();
    const seconds = (now - receivedAt) / 1000;
    const totals = ({ apps }) => ({ in: sum(apps, (app) => app.messages_in), out: sum(apps, (app) => app.messages_out) });
    const rate = growth(state, latest, seconds, totals);
    offerApps(state.apps);
    showTiles(state, rate);
    showTables(state, latest, seconds);
    showRefusals(state.refusals);
    showChannels(state, choose);
    if (rate) chart.push(rate);
    latest = state;
    receivedAt = now;
  }

  async function poll() {
    try {
      show(await request('GET', 'console/state'));
      asked = false;
      setStatus('up', 'Live');
    } catch (error) {
      setStatus('down', error instanceof Refused ? `Refused (${error.status})` : 'No answer');
      if (error instanceof Refused && error.status === 401) {
        await askToken(asked);
        asked = true;
      }
    }
    setTimeout(poll, PERIOD_MS);
  }

  poll();
}

startConsole();
