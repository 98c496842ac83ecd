// A small client of the Pusher Channels protocol on the browser's own WebSocket. It keeps its subscriptions over a broken
// connection, spreads its reconnects, and notices a silent server. A page that needs more takes pusher-js.

const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 30_000;
const ANSWER_MS = 10_000;

const parsed = (data) => {
  if (typeof data !== 'string') return data;
  try {
    return JSON.parse(data);
  } catch {
    return data;
  }
};

/**
 * A connection to the application `key` of the hub that served this page.
 *
 * `on.state(name, detail)` hears "connecting", "connected" (the socket id), "waiting" (a broken connection) and "refused"
 * (the hub said not to come back; the reason). `on.event({event, channel, data, user_id})` hears everything else.
 */
export class Client {
  #url;
  #on;
  #socket = null;
  #socketId = null;
  #channels = new Map();
  #retries = 0;
  #silenceMs = 120_000;
  #timer = null;

  constructor(key, on) {
    const url = new URL(`app/${encodeURIComponent(key)}?protocol=7&client=evenkeel&version=1.0`, document.baseURI);
    url.protocol = url.protocol.replace('http', 'ws');
    this.#url = url;
    this.#on = on;
  }

  connect() {
    this.#on.state('connecting');
    const socket = new WebSocket(this.#url);
    this.#socket = socket;
    this.#watch(ANSWER_MS, () => socket.close());
    socket.addEventListener('message', (message) => { if (socket === this.#socket) this.#receive(parsed(message.data)); });
    socket.addEventListener('close', (close) => { if (socket === this.#socket) this.#lost(close); });
  }

  /** Subscribes now and after every reconnect. `authorize(socketId)` gives `{auth, channel_data}`, or a promise of it. */
  subscribe(channel, authorize = () => ({})) {
    this.#channels.set(channel, authorize);
    if (this.#socketId) this.#join(channel, authorize);
  }

  /** Sends a client event to the others on `channel`. False when there is no connection. */
  trigger(channel, event, data) {
    return this.#send({ event, channel, data });
  }

  #send(frame) {
    if (this.#socketId === null || this.#socket.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify(frame));
    return true;
  }

  async #join(channel, authorize) {
    const socketId = this.#socketId;
    try {
      const granted = await authorize(socketId);
      if (socketId === this.#socketId) this.#send({ event: 'pusher:subscribe', data: { channel, ...granted } });
    } catch (error) {
      this.#on.event({ event: 'pusher:subscription_error', channel, data: { error: error.message } });
    }
  }

  #receive(frame) {
    this.#listen();
    const data = parsed(frame.data);
    if (frame.event === 'pusher:connection_established') {
      this.#socketId = data.socket_id;
      this.#silenceMs = data.activity_timeout * 1000;
      this.#retries = 0;
      this.#listen();
      this.#on.state('connected', this.#socketId);
      for (const [channel, authorize] of this.#channels) this.#join(channel, authorize);
    } else if (frame.event === 'pusher:ping') {
      this.#send({ event: 'pusher:pong', data: {} });
    } else if (frame.event !== 'pusher:pong') {
      this.#on.event({ ...frame, data });
    }
  }

  /** After a silence asks whether anybody is there, and gives up on the connection without an answer. */
  #listen() {
    const socket = this.#socket;
    this.#watch(this.#silenceMs, () => {
      this.#send({ event: 'pusher:ping', data: {} });
      this.#watch(ANSWER_MS, () => { this.#lost({ code: 4201 }); socket.close(); });
    });
  }

  #watch(ms, act) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(act, ms);
  }

  #lost({ code, reason }) {
    this.#socket = null;
    this.#socketId = null;
    if (code >= 4000 && code < 4100) {
      clearTimeout(this.#timer);
      this.#on.state('refused', reason || `code ${code}`);
      return;
    }
    this.#on.state('waiting');
    const longest = Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** this.#retries);
    this.#retries += 1;
    this.#watch(longest * (0.5 + Math.random() / 2), () => this.connect());
  }
}
