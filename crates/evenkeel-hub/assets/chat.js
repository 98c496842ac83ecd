// The chat: a demonstration that needs no backend of its own. Who is here comes from the presence channel, and messages
// are client events on it. What others wrote is only ever put on the page as text.

import { Client } from './client.js';

const CHANNEL = 'presence-chat';
const KEY = new URLSearchParams(location.search).get('app') ?? 'demo-key';
const KEPT_MESSAGES = 500;
const TYPING_MS = 3000;

const byId = (id) => document.getElementById(id);
const members = new Map();
const typing = new Map();
let client = null;
let me = null;
let lastAuthor = null;
let lastTypingSent = -Infinity;

function tagged(tag, className, text = '') {
  return Object.assign(document.createElement(tag), { className, textContent: text });
}

function clock() {
  return new Date().toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
}

/** A name that is safe to show however odd the peer that sent it. */
function nameOf(id) {
  const name = members.get(id)?.name;
  return typeof name === 'string' && name.trim() ? name.slice(0, 40) : 'Somebody';
}

function append(item) {
  const list = byId('messages');
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 60;
  list.append(item);
  while (list.children.length > KEPT_MESSAGES) list.firstElementChild.remove();
  if (atEnd || item.classList.contains('mine')) list.scrollTop = list.scrollHeight;
}

function notice(text) {
  lastAuthor = null;
  append(tagged('li', 'notice', text));
}

function showMessage(id, text) {
  const item = tagged('li', id === me.id ? 'message mine' : 'message');
  if (id === lastAuthor) item.classList.add('follows');
  lastAuthor = id;
  const who = tagged('span', 'who');
  who.append(tagged('b', '', id === me.id ? 'You' : nameOf(id)), ` ${clock()}`);
  item.append(who, tagged('span', 'body', text));
  append(item);
}

function showPeople() {
  const sorted = [...members.keys()].sort((a, b) => nameOf(a).localeCompare(nameOf(b)));
  byId('people').replaceChildren(...sorted.map((id) => {
    const item = tagged('li', id === me.id ? 'me' : '');
    const avatar = tagged('span', 'avatar', [...nameOf(id)][0].toUpperCase());
    avatar.setAttribute('aria-hidden', 'true');
    item.append(avatar, tagged('span', '', id === me.id ? `${nameOf(id)} (you)` : nameOf(id)));
    return item;
  }));
  byId('count').textContent = String(members.size);
}

function showTyping() {
  const names = [...typing.keys()].map(nameOf);
  const text = names.length > 2 ? `${names.length} people are typing` : names.join(' and ');
  byId('typing').textContent = names.length === 0 ? '\u00a0' : names.length > 2 ? `${text}…` : `${text} ${names.length === 1 ? 'is' : 'are'} typing…`;
}

function stopTyping(id) {
  clearTimeout(typing.get(id));
  if (typing.delete(id)) showTyping();
}

const handlers = {
  'pusher_internal:subscription_succeeded': (data) => {
    members.clear();
    for (const [id, info] of Object.entries(data.presence.hash)) members.set(id, info ?? {});
    showPeople();
    byId('text').disabled = false;
    byId('text').focus();
  },
  'pusher_internal:member_added': (data) => {
    members.set(String(data.user_id), data.user_info ?? {});
    showPeople();
    notice(`${nameOf(String(data.user_id))} joined`);
  },
  'pusher_internal:member_removed': (data) => {
    const id = String(data.user_id);
    notice(`${nameOf(id)} left`);
    members.delete(id);
    stopTyping(id);
    showPeople();
  },
  'client-message': (data, id) => {
    if (typeof data?.text !== 'string' || id === undefined) return;
    stopTyping(id);
    showMessage(id, data.text.slice(0, 2000));
  },
  'client-typing': (_, id) => {
    if (id === undefined || !members.has(id)) return;
    clearTimeout(typing.get(id));
    typing.set(id, setTimeout(() => stopTyping(id), TYPING_MS));
    showTyping();
  },
  'pusher:subscription_error': (data) => notice(`The hub refused this page: ${data?.error ?? 'no reason given'}`),
  'pusher:error': (data) => notice(data?.message ?? 'The hub reported an error.'),
};

const states = {
  connecting: ['wait', 'Connecting'],
  connected: ['up', 'Connected'],
  waiting: ['down', 'Connection lost, trying again'],
  refused: ['down', 'The demonstration application is not available'],
};

async function authorize(socketId) {
  const form = { socket_id: socketId, channel_name: CHANNEL, user_id: me.id, user_name: me.name };
  const response = await fetch('chat/auth', { method: 'POST', body: new URLSearchParams(form) });
  if (!response.ok) throw new Error(`status ${response.status}`);
  const { auth, channel_data } = await response.json();
  return { auth, channel_data };
}

function join(name) {
  // One id for each tab: a second tab is a second person, which is what somebody who tries this wants to see.
  const id = sessionStorage.getItem('evenkeel-chat-id') ?? Array.from(crypto.getRandomValues(new Uint32Array(2)), (n) => n.toString(36)).join('');
  sessionStorage.setItem('evenkeel-chat-id', id);
  localStorage.setItem('evenkeel-chat-name', name);
  me = { id, name };
  byId('welcome').hidden = true;
  byId('room').hidden = false;
  client = new Client(KEY, {
    state: (state) => {
      [byId('status').dataset.state, byId('status').textContent] = states[state];
      if (state !== 'connected') byId('text').disabled = true;
    },
    event: ({ event, data, user_id: userId }) => handlers[event]?.(data, userId === undefined ? undefined : String(userId)),
  });
  client.subscribe(CHANNEL, authorize);
  client.connect();
}

byId('welcome').addEventListener('submit', (submit) => {
  submit.preventDefault();
  const name = byId('name').value.trim();
  if (name) join(name);
});

byId('composer').addEventListener('submit', (submit) => {
  submit.preventDefault();
  const text = byId('text').value.trim();
  if (!text) return;
  if (client.trigger(CHANNEL, 'client-message', { text })) {
    showMessage(me.id, text);
    byId('text').value = '';
    lastTypingSent = -Infinity;
  } else {
    notice('Not sent: there is no connection.');
  }
});

byId('text').addEventListener('input', () => {
  const now = performance.now();
  if (now - lastTypingSent < TYPING_MS / 2 || byId('text').value === '') return;
  lastTypingSent = now;
  client.trigger(CHANNEL, 'client-typing', {});
});

byId('name').value = localStorage.getItem('evenkeel-chat-name') ?? '';
byId('name').focus();
