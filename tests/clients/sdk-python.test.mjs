// The real Python server SDK (sdk.py) publishes, authorizes and asks; pusher-js receives.

import test from 'node:test';
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { Inbox, app, connectClient, host, port, reached, subscribe, unique } from './support.mjs';

/** Starts the SDK's process; the answer calls one of its methods. */
function startPython(t) {
  const script = fileURLToPath(new URL('./sdk.py', import.meta.url));
  const child = spawn(process.env.PYTHON ?? 'python3', [script], {
    stdio: ['pipe', 'pipe', 'inherit'],
    env: {
      ...process.env,
      HUB_HOST: host, HUB_PORT: String(port), APP_ID: app.id, APP_KEY: app.key, APP_SECRET: app.secret,
    },
  });
  t.after(() => child.kill('SIGKILL'));
  const answers = new Inbox();
  createInterface({ input: child.stdout }).on('line', (line) => answers.push(JSON.parse(line)));
  child.on('exit', (code) => answers.push({ error: 'Exit', message: `the Python process ended with ${code}` }));
  return async (call, args = {}) => {
    child.stdin.write(`${JSON.stringify({ call, args })}\n`);
    const answer = await answers.take(() => true, `the answer to ${call}`, 20_000);
    if (answer.error) throw Object.assign(new Error(answer.message), { name: answer.error });
    return answer.result;
  };
}

test('Python: trigger, trigger_batch and socket_id', async (t) => {
  const python = startPython(t);
  const [name, other] = [unique('python'), unique('python')];
  const client = await connectClient(t);
  const first = await subscribe(client.pusher, name);
  const second = await subscribe(client.pusher, other);
  await python('trigger', { channels: [name, other], event_name: 'hello', data: { text: 'Grüße 🐍' } });
  assert.deepEqual((await first.inbox.event('hello')).data, { text: 'Grüße 🐍' });
  assert.deepEqual((await second.inbox.event('hello')).data, { text: 'Grüße 🐍' });

  const socketId = client.pusher.connection.socket_id;
  await python('trigger', { channels: name, event_name: 'not-for-me', data: 1, socket_id: socketId });
  await python('trigger_batch', { batch: [
    { channel: name, name: 'b1', data: { n: 1 } },
    { channel: other, name: 'b2', data: { n: 2 } },
  ] });
  assert.deepEqual((await first.inbox.event('b1')).data, { n: 1 });
  assert.deepEqual((await second.inbox.event('b2')).data, { n: 2 });
  assert.ok(!first.inbox.untaken.some((item) => item.event === 'not-for-me'));
});

test('Python: channels_info, channel_info and users_info', async (t) => {
  const python = startPython(t);
  const name = unique('presence-python');
  const { pusher } = await connectClient(t, { member: { user_id: 'ada' } });
  await subscribe(pusher, name);
  assert.deepEqual(await python('channels_info', { prefix_filter: name, attributes: ['user_count'] }),
    { channels: { [name]: { user_count: 1 } } });
  assert.deepEqual(await python('channel_info', { channel: name, attributes: ['user_count'] }),
    { occupied: true, user_count: 1 });
  assert.deepEqual(await python('users_info', { channel: name }), { users: [{ id: 'ada' }] });
});

test('Python: its signatures open private, presence and encrypted channels', async (t) => {
  const python = startPython(t);
  const socket = await connectClient(t);
  const socketId = socket.pusher.connection.socket_id;
  const granted = new Map();
  for (const kind of ['private', 'presence', 'private-encrypted']) {
    const channel = unique(kind);
    const data = kind === 'presence' ? { custom_data: { user_id: 'ünï', user_info: { name: 'Ada' } } } : {};
    granted.set(channel, await python('authenticate', { channel, socket_id: socketId, ...data }));
  }
  socket.pusher.config.channelAuthorizer = ({ channelName }, done) => done(null, granted.get(channelName));
  for (const channel of granted.keys()) {
    const { inbox } = await subscribe(socket.pusher, channel);
    await python('trigger', { channels: channel, event_name: 'x', data: { kind: channel } });
    assert.deepEqual((await inbox.event('x')).data, { kind: channel });
  }
});

test('Python: authenticate_user, send_to_user and terminate_user_connections', async (t) => {
  const python = startPython(t);
  const id = unique('user');
  const client = await connectClient(t);
  const signed = await python('authenticate_user', { socket_id: client.pusher.connection.socket_id, user_data: { id } });
  client.pusher.config.userAuthenticator = (_, done) => done(null, signed);
  const events = new Inbox();
  client.pusher.user.bind_global((event, data) => events.push({ event, data }));
  client.pusher.signin();
  await client.inbox.take(
    (frame) => frame.event === 'pusher_internal:subscription_succeeded', 'the channel of the user');
  await python('send_to_user', { user_id: id, event_name: 'direct', data: { n: 1 } });
  assert.deepEqual((await events.event('direct')).data, { n: 1 });
  // This SDK leaves "/apps/ID" out of the path; the hub finds the application by the key.
  await python('terminate_user_connections', { user_id: id });
  await reached(client, 'disconnected');
});
