// What every test file shares: the two applications of the hub under test, clients that close with their test,
// and waiting that is always bounded and never a pause.

import { createHash, createHmac, randomBytes } from 'node:crypto';
import { spawn } from 'node:child_process';
import { createServer, connect as connectTcp } from 'node:net';
import { createInterface } from 'node:readline';
import PusherClient from 'pusher-js';
import PusherServer from 'pusher';
import WebSocket from 'ws';
import { EventSource } from 'eventsource';

/** How long an awaited event may take before the test fails, in milliseconds. */
export const PATIENCE_MS = 10_000;

export const host = process.env.HUB_HOST ?? '127.0.0.1';
export const port = Number(process.env.HUB_PORT ?? 6001);

export const app = {
  id: process.env.APP_ID ?? '1001',
  key: process.env.APP_KEY ?? 'demo-key',
  secret: process.env.APP_SECRET ?? 'demo-secret',
};

export const otherApp = {
  id: process.env.OTHER_APP_ID ?? '1002',
  key: process.env.OTHER_APP_KEY ?? 'other-key',
  secret: process.env.OTHER_APP_SECRET ?? 'other-secret',
};

/** A name that no other test uses, so that tests can share one hub. */
export function unique(prefix) {
  return `${prefix}-${randomBytes(6).toString('hex')}`;
}

/** Fails when `promise` is not settled in time; `what` says what was awaited. */
export function within(promise, what, patience = PATIENCE_MS) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${patience} ms for ${what}`)), patience);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Everything that arrived and was not asked for yet, in order. */
export class Inbox {
  #items = [];
  #waiting = [];

  push(item) {
    const index = this.#waiting.findIndex((waiter) => waiter.accepts(item));
    if (index < 0) this.#items.push(item);
    else this.#waiting.splice(index, 1)[0].resolve(item);
  }

  /** Takes the first item that `accepts`, waiting for it when it is not there yet. */
  take(accepts, what, patience = PATIENCE_MS) {
    const index = this.#items.findIndex(accepts);
    if (index >= 0) return Promise.resolve(this.#items.splice(index, 1)[0]);
    const waiter = { accepts };
    const arrived = new Promise((resolve) => { waiter.resolve = resolve; });
    this.#waiting.push(waiter);
    return within(arrived, what, patience).catch((error) => {
      this.#waiting = this.#waiting.filter((other) => other !== waiter);
      const seen = JSON.stringify(this.#items).slice(0, 1000);
      throw new Error(`${error.message}; arrived instead: ${seen}`);
    });
  }

  /** Takes the next item whose `event` is `name`. */
  event(name, patience = PATIENCE_MS) {
    return this.take((item) => item.event === name, `the event ${name}`, patience);
  }

  /** Forgets what has arrived so far. */
  clear() {
    this.#items = [];
  }

  /** The items that have arrived and were not taken. */
  get untaken() {
    return [...this.#items];
  }
}

/** The real Node server SDK for one application. Its master key is for encrypted channels. */
export function sdk(application = app, options = {}) {
  return new PusherServer({
    appId: application.id,
    key: application.key,
    secret: application.secret,
    host,
    port: String(port),
    useTLS: false,
    timeout: PATIENCE_MS,
    encryptionMasterKeyBase64: Buffer.alloc(32, 7).toString('base64'),
    ...options,
  });
}

/**
 * Options for pusher-js that reach the hub and let the server SDK play the authentication endpoints.
 * `member` is the presence data, `user` the data for signing in, `authorize` replaces the answer for a channel.
 */
export function clientOptions({ application = app, member, user, authorize, ...rest } = {}) {
  const server = sdk(application);
  const answer = authorize ?? ((socketId, channel) =>
    server.authorizeChannel(socketId, channel, channel.startsWith('presence-') ? member : undefined));
  return {
    cluster: 'unused',
    wsHost: host,
    wsPort: port,
    forceTLS: false,
    enabledTransports: ['ws'],
    channelAuthorization: {
      customHandler: ({ socketId, channelName }, done) => done(null, answer(socketId, channelName)),
    },
    userAuthentication: {
      customHandler: ({ socketId }, done) => done(null, server.authenticateUser(socketId, user)),
    },
    ...rest,
  };
}

/** An unmodified pusher-js client that disconnects when the test ends. Not connected yet. */
export function startClient(t, options = {}) {
  const { key = (options.application ?? app).key, ...rest } = options;
  const pusher = new PusherClient(key, clientOptions(rest));
  const inbox = new Inbox();
  const states = new Inbox();
  const errors = new Inbox();
  pusher.connection.bind('message', (message) => inbox.push(message));
  pusher.connection.bind('state_change', ({ current }) => states.push(current));
  pusher.connection.bind('error', (error) => errors.push(error));
  t.after(() => pusher.disconnect());
  return { pusher, inbox, states, errors };
}

/** An unmodified pusher-js client that is connected. */
export async function connectClient(t, options) {
  const client = startClient(t, options);
  await reached(client, 'connected');
  return client;
}

/** Waits for a state of the connection. */
export function reached(client, state, patience) {
  return client.states.take((current) => current === state, `the state ${state}`, patience);
}

/** Subscribes; the answer's inbox has every event of the channel as `{event, data}`. */
export function startSubscription(pusher, name) {
  const channel = pusher.subscribe(name);
  const inbox = new Inbox();
  channel.bind_global((event, data) => inbox.push({ event, data }));
  return { channel, inbox, name };
}

/** Subscribes and waits for the hub's yes. */
export async function subscribe(pusher, name) {
  const subscription = startSubscription(pusher, name);
  subscription.succeeded = await subscription.inbox.event('pusher:subscription_succeeded');
  return subscription;
}

/** A WebSocket without any client library: what arrives is in `inbox`, parsed. `closed` has the code. */
export async function openRaw(t, { application = app, query = 'protocol=7&client=raw&version=1.0', at = port } = {}) {
  const socket = new WebSocket(`ws://${host}:${at}/app/${application.key}?${query}`);
  const inbox = new Inbox();
  const pongs = new Inbox();
  const closed = new Promise((resolve) => {
    socket.on('close', (code, reason) => resolve({ code, reason: reason.toString() }));
  });
  socket.on('message', (bytes, isBinary) => inbox.push({ ...JSON.parse(bytes.toString()), isBinary }));
  socket.on('pong', (payload) => pongs.push(payload.toString()));
  socket.on('error', () => {});
  t.after(() => socket.terminate());
  const raw = { socket, inbox, pongs, closed: () => within(closed, 'the close of the WebSocket') };
  raw.send = (frame) => socket.send(typeof frame === 'string' ? frame : JSON.stringify(frame));
  return raw;
}

/** A raw WebSocket that has its socket id. */
export async function connectRaw(t, options) {
  const raw = await openRaw(t, options);
  raw.established = await raw.inbox.event('pusher:connection_established');
  raw.socketId = JSON.parse(raw.established.data).socket_id;
  return raw;
}

/** Hexadecimal HMAC-SHA256, computed here so that the hub is not only checked with the SDKs' own code. */
export function hmac(secret, text) {
  return createHmac('sha256', secret).update(text).digest('hex');
}

/** One signed request to the HTTP API, with any part of the signature replaceable. */
export async function signedRequest(method, path, { application = app, body, query = {}, tamper } = {}) {
  const text = body === undefined ? '' : JSON.stringify(body);
  const params = {
    auth_key: application.key,
    auth_timestamp: String(Math.floor(Date.now() / 1000)),
    auth_version: '1.0',
    ...(text ? { body_md5: createHash('md5').update(text).digest('hex') } : {}),
    ...query,
  };
  const sorted = Object.keys(params).sort().map((name) => `${name}=${params[name]}`).join('&');
  const signature = hmac(application.secret, `${method}\n${path}\n${sorted}`);
  const url = `http://${host}:${port}${path}?${sorted}&auth_signature=${tamper?.(signature) ?? signature}`;
  const response = await fetch(url, {
    method,
    body: text || undefined,
    headers: text ? { 'content-type': 'application/json' } : {},
    signal: AbortSignal.timeout(PATIENCE_MS),
  });
  return { status: response.status, body: await response.text() };
}

/** The address of the event stream of some channels. Private ones need `expires` and a signature over all of them. */
export function streamUrl(channels, { application = app, at = port, signed = false, expires } = {}) {
  const query = new URLSearchParams(channels.map((channel) => ['channel', channel]));
  if (signed) {
    const until = String(expires ?? Math.floor(Date.now() / 1000) + 60);
    query.set('expires', until);
    query.set('auth', `${application.key}:${hmac(application.secret, ['sse', until, ...[...channels].sort()].join(':'))}`);
  }
  return `http://${host}:${at}/sse/${application.key}?${query}`;
}

/** A plain EventSource that closes with the test; `names` are the events to listen for. */
export async function openStream(t, url, names, { lastEventId } = {}) {
  const source = new EventSource(url, {
    fetch: (input, init) => {
      const headers = { ...init.headers };
      if (lastEventId !== undefined && !('Last-Event-ID' in headers)) headers['Last-Event-ID'] = lastEventId;
      return fetch(input, { ...init, headers });
    },
  });
  const inbox = new Inbox();
  const opened = new Inbox();
  source.addEventListener('open', () => opened.push('open'));
  source.addEventListener('error', (error) => opened.push(error));
  source.onmessage = ({ data, lastEventId: id }) => {
    const frame = JSON.parse(data);
    if (names.includes(frame.event)) inbox.push({ event: frame.event, data: frame, id });
  };
  t.after(() => source.close());
  const stream = { source, inbox, opened };
  stream.open = () => opened.take((item) => item === 'open', 'the event stream to open', 2 * PATIENCE_MS);
  await stream.open();
  return stream;
}

/** A TCP relay in front of the hub that can cut every connection, like a network that fails. */
export async function startRelay(t, target = () => port) {
  const sockets = new Set();
  const server = createServer((near) => {
    const far = connectTcp(target(), host);
    for (const [from, to] of [[near, far], [far, near]]) {
      sockets.add(from);
      from.on('data', (bytes) => to.write(bytes));
      from.on('close', () => { sockets.delete(from); to.destroy(); });
      from.on('error', () => {});
    }
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const cut = () => { for (const socket of sockets) socket.resetAndDestroy(); };
  t.after(() => { cut(); server.close(); });
  return { port: server.address().port, cut };
}

/** A reason to skip tests that start hubs of their own, or false. */
export const cannotStartHubs = process.env.HUB_PROGRAM && process.env.HUB_CONFIGURATION
  ? false : 'HUB_PROGRAM and HUB_CONFIGURATION are not set';

/** The arguments for a hub with the two applications. Without them it has its demonstration application. */
export const configured = ['--config', process.env.HUB_CONFIGURATION];

/** Starts another hub and waits until it listens, on a port of its choice or `at` one. It is killed with the test. */
export async function startHub(t, options, at = 0) {
  const child = spawn(process.env.HUB_PROGRAM, [...options, '--listen', `127.0.0.1:${at}`], { stdio: ['ignore', 'pipe', 'pipe'] });
  t.after(() => child.kill('SIGKILL'));
  const exited = new Promise((resolve) => { child.on('exit', (code, signal) => resolve({ code, signal })); });
  const lines = new Inbox();
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream }).on('line', (line) => lines.push(line));
  }
  const line = await lines.take((text) => text.includes('listening on http://'), 'the hub to listen');
  const chosen = Number(/listening on http:\/\/[^:]+:(\d+)/.exec(line)[1]);
  const stop = () => {
    child.kill('SIGTERM');
    return within(exited, 'the hub to end', 20_000);
  };
  return { port: chosen, base: `http://127.0.0.1:${chosen}`, stop };
}
