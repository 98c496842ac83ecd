// The life of a connection: greeting, heartbeat, refusals, coming back.

import test from 'node:test';
import assert from 'node:assert/strict';
import { app, connectClient, connectRaw, openRaw, reached, sdk, startClient, startRelay, subscribe, unique } from './support.mjs';

test('the greeting has its data as a JSON string with a socket id that SDKs accept', async (t) => {
  const raw = await connectRaw(t);
  assert.equal(typeof raw.established.data, 'string');
  assert.equal(raw.established.isBinary, false);
  const { socket_id: socketId, activity_timeout: timeout } = JSON.parse(raw.established.data);
  assert.match(socketId, /^\d+\.\d+$/);
  assert.ok(Number.isInteger(timeout) && timeout > 0);
});

test('socket ids differ', async (t) => {
  const ids = new Set();
  for (let i = 0; i < 20; i += 1) ids.add((await connectRaw(t)).socketId);
  assert.equal(ids.size, 20);
});

test('a client that names no protocol version is taken', async (t) => {
  await connectRaw(t, { query: 'client=old&version=1' });
});

test('an unsupported protocol version is refused for good', async (t) => {
  const raw = await openRaw(t, { query: 'protocol=3&client=old&version=1' });
  const { code } = await raw.closed();
  assert.ok(code >= 4006 && code <= 4008, `close code ${code}`);
});

test('pusher:ping is answered with pusher:pong, a WebSocket ping with its own payload', async (t) => {
  const raw = await connectRaw(t);
  raw.send({ event: 'pusher:ping', data: {} });
  await raw.inbox.event('pusher:pong');
  raw.socket.ping('are you there?');
  assert.equal(await raw.pongs.take(() => true, 'the pong frame'), 'are you there?');
});

test('pusher-js notices silence, pings and stays connected', async (t) => {
  const client = await connectClient(t, { activityTimeout: 300, pongTimeout: 5000 });
  const socketId = client.pusher.connection.socket_id;
  await client.inbox.event('pusher:pong');
  await client.inbox.event('pusher:pong');
  assert.equal(client.pusher.connection.socket_id, socketId);
});

test('an unknown application is refused with 4001 and pusher-js gives up', async (t) => {
  const client = startClient(t, { key: 'no-such-key' });
  const error = await client.errors.take((item) => item.error?.data?.code === 4001, 'the error 4001');
  assert.equal(error.type, 'WebSocketError');
  await reached(client, 'disconnected');
  assert.ok(!client.states.untaken.includes('connected'));
});

test('text that is not JSON is answered with an error and does not harm the others', async (t) => {
  const raw = await connectRaw(t);
  const neighbour = await connectClient(t);
  raw.send('this is not JSON');
  await Promise.race([raw.inbox.event('pusher:error'), raw.closed()]);
  await subscribe(neighbour.pusher, unique('neighbour'));
});

test('after a lost network pusher-js reconnects, subscribes again and signs in again', async (t) => {
  const relay = await startRelay(t);
  const id = unique('user');
  const client = await connectClient(t, { wsPort: relay.port, user: { id } });
  client.pusher.signin();
  await client.inbox.event('pusher:signin_success');
  const firstId = client.pusher.connection.socket_id;
  const name = unique('private-resubscribed');
  const { inbox } = await subscribe(client.pusher, name);

  relay.cut();
  await reached(client, 'connecting');
  await reached(client, 'connected');
  await inbox.event('pusher:subscription_succeeded');
  await client.inbox.event('pusher:signin_success');
  assert.notEqual(client.pusher.connection.socket_id, firstId);
  await sdk().trigger(name, 'back', { ok: true });
  assert.deepEqual((await inbox.event('back')).data, { ok: true });
});

test('a WebSocket without a key in its path is refused', async (t) => {
  const raw = await openRaw(t, { application: { key: '' } });
  await raw.closed();
});

test('a connection whose client vanished is not counted on its channel', async (t) => {
  const name = unique('vanished');
  const watcher = await connectClient(t);
  const { inbox } = await subscribe(watcher.pusher, name);
  const raw = await connectRaw(t);
  raw.send({ event: 'pusher:subscribe', data: { channel: name } });
  const counts = (count) => (item) => item.event === 'pusher:subscription_count' && item.data.subscription_count === count;
  await inbox.take(counts(2), 'a count of 2');
  inbox.clear();
  raw.socket.terminate();
  await inbox.take(counts(1), 'a count of 1', 20_000);
  const info = await (await sdk(app).get({ path: `/channels/${name}`, params: { info: 'subscription_count' } })).json();
  assert.deepEqual(info, { occupied: true, subscription_count: 1 });
});
