// laravel-echo, unchanged, on top of pusher-js: its three kinds of channel, whispers, and its own names for events.

import test from 'node:test';
import assert from 'node:assert/strict';
import PusherClient from 'pusher-js';
import Echo from 'laravel-echo';
import { Inbox, app, clientOptions, sdk, unique } from './support.mjs';

function startEcho(t, options) {
  const echo = new Echo({ broadcaster: 'reverb', key: app.key, Pusher: PusherClient, ...clientOptions(options) });
  t.after(() => echo.disconnect());
  return echo;
}

/** Runs `register` with a callback and gives what the callback gets. */
function inboxOf(register) {
  const inbox = new Inbox();
  register((data) => inbox.push(data));
  return inbox;
}

const any = () => true;

for (const [method, name] of [
  ['channel', 'orders'],
  ['private', 'private-orders'],
  ['encryptedPrivate', 'private-encrypted-orders'],
]) {
  test(`Echo listens with ${method}() on ${name}`, async (t) => {
    const channel = startEcho(t)[method]('orders');
    const subscribed = inboxOf((done) => channel.subscribed(done));
    const shipped = inboxOf((done) => channel.listen('OrderShipped', done));
    await subscribed.take(any, `${name} to be subscribed`);
    await sdk().trigger(name, 'App\\Events\\OrderShipped', { id: 7 });
    assert.deepEqual(await shipped.take(any, 'OrderShipped'), { id: 7 });
  });
}

test('Echo whispers to the others', async (t) => {
  const name = unique('whispers');
  const [one, two] = [startEcho(t).private(name), startEcho(t).private(name)];
  await Promise.all([one, two].map((channel) => inboxOf((done) => channel.subscribed(done)).take(any, 'subscribed')));
  const heard = inboxOf((done) => two.listenForWhisper('typing', done));
  one.whisper('typing', { name: 'Ada' });
  assert.deepEqual(await heard.take(any, 'the whisper'), { name: 'Ada' });
});

test('Echo joins a presence channel: here, joining, leaving', async (t) => {
  const name = unique('room');
  const first = startEcho(t, { member: { user_id: 1, user_info: { id: 1, name: 'Ada' } } });
  const room = first.join(name);
  const here = inboxOf((done) => room.here(done));
  const joining = inboxOf((done) => room.joining(done));
  const leaving = inboxOf((done) => room.leaving(done));
  assert.deepEqual(await here.take(any, 'who is here'), [{ id: 1, name: 'Ada' }]);

  const second = startEcho(t, { member: { user_id: 2, user_info: { id: 2, name: 'Bob' } } });
  const theirs = inboxOf((done) => second.join(name).here(done));
  const users = await theirs.take(any, 'who is here');
  assert.deepEqual(users.map((user) => user.id).sort(), [1, 2]);
  assert.deepEqual(await joining.take(any, 'Bob to join'), { id: 2, name: 'Bob' });
  second.leave(name);
  assert.deepEqual(await leaving.take(any, 'Bob to leave'), { id: 2, name: 'Bob' });
});

test('Echo is told about a refused channel', async (t) => {
  const echo = startEcho(t, { authorize: () => ({ auth: `${app.key}:${'0'.repeat(64)}` }) });
  const refused = inboxOf((done) => echo.private(unique('refused')).error(done));
  assert.equal((await refused.take(any, 'the refusal')).status, 401);
});

test('the socket id that Echo gives to the backend leaves the sender out', async (t) => {
  const name = unique('to-others');
  const [sender, other] = [startEcho(t), startEcho(t)];
  const inboxes = [];
  for (const echo of [sender, other]) {
    const channel = echo.channel(name);
    inboxes.push(inboxOf((done) => channel.listen('.said', done)));
    await inboxOf((done) => channel.subscribed(done)).take(any, 'subscribed');
  }
  await sdk().trigger(name, 'said', { n: 1 }, { socket_id: sender.socketId() });
  await sdk().trigger(name, 'said', { n: 2 });
  assert.deepEqual(await inboxes[1].take(any, 'the first'), { n: 1 });
  assert.deepEqual(await inboxes[0].take(any, 'the second'), { n: 2 });
});
