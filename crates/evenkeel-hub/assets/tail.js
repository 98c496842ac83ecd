// The console's live view of one channel. It reads the hub's own event stream, the one that every client may use, so it
// costs the hub no more than one more subscriber. Presence channels have no such stream: who reads one is a member of it.

import { request } from './request.js';
import { follow } from './stream.js';

const KEPT_EVENTS = 200;

/** What the protocol says about itself; the view is for what applications publish. */
const isInternal = (event) => /^(pusher|pusher_internal|evenkeel):/.test(event);

function shown(data) {
  if (typeof data !== 'string') return JSON.stringify(data);
  try {
    return JSON.stringify(JSON.parse(data), null, 1).replace(/\n\s*/g, ' ');
  } catch {
    return data;
  }
}

export function startTail(byId, apps) {
  const list = byId('tail-events');
  const note = byId('tail-note');
  let stop = null;

  function say(text) {
    note.textContent = text;
    note.hidden = text === '';
  }

  function add({ data }) {
    const frame = JSON.parse(data);
    if (frame.event === 'evenkeel:gap') say('Some events are missing here: they were no longer kept when the stream came back.');
    if (isInternal(frame.event)) return;
    const item = document.createElement('li');
    for (const [tag, name, text] of [
      ['time', 'time', new Date().toLocaleTimeString([], { hour12: false })],
      ['span', 'event', frame.event],
      ['span', 'data', shown(frame.data)],
    ]) {
      item.append(Object.assign(document.createElement(tag), { className: name, textContent: text }));
    }
    list.prepend(item);
    while (list.children.length > KEPT_EVENTS) list.lastElementChild.remove();
    say('');
  }

  async function locate(app, channel) {
    const query = new URLSearchParams([['channel', channel]]);
    if (channel.startsWith('private-')) {
      const granted = await request('POST', 'console/auth', { app: app.id, channel }).catch((error) => {
        error.final = error.status < 500;
        throw error;
      });
      query.set('expires', granted.expires);
      query.set('auth', granted.auth);
    }
    return `sse/${encodeURIComponent(app.key)}?${query}`;
  }

  function unfollow() {
    stop?.();
    stop = null;
    byId('tail-button').textContent = 'Follow';
  }

  function start(appId, channel) {
    unfollow();
    const app = apps().find((candidate) => candidate.id === appId);
    if (!app) return;
    list.replaceChildren();
    byId('tail-app').value = appId;
    byId('tail-channel').value = channel;
    if (channel.startsWith('presence-')) {
      say('A presence channel cannot be followed from here: whoever reads it is a member of it.');
      return;
    }
    byId('tail-button').textContent = 'Stop';
    say(`Opening ${channel}…`);
    stop = follow(() => locate(app, channel), {
      event: add,
      state: (state) => {
        if (state instanceof Error) {
          unfollow();
          say(state.message);
        } else if (list.children.length === 0) {
          say(state === 'open' ? `Waiting for events on ${channel}.` : 'The stream broke; trying again.');
        }
      },
    });
  }

  byId('tail').addEventListener('submit', (submit) => {
    submit.preventDefault();
    if (stop) {
      unfollow();
      say('Stopped.');
    } else {
      start(byId('tail-app').value, byId('tail-channel').value.trim());
    }
  });
  for (const id of ['tail-app', 'tail-channel']) byId(id).addEventListener('input', unfollow);
  byId('tail-clear').addEventListener('click', () => {
    list.replaceChildren();
    say(stop ? 'Waiting for events.' : 'Choose a channel here, or press its name in the table.');
  });

  return {
    /** Follows a channel and brings it into view. */
    follow(app, channel) {
      start(app, channel);
      byId('tail').closest('section').scrollIntoView({ block: 'nearest' });
    },
  };
}
