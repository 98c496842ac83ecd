// Client events: from one client through the hub to the others on the channel.

import test from 'node:test';
import assert from 'node:assert/strict';
import { Inbox, connectClient, connectRaw, sdk, subscribe, unique } from './support.mjs';

test('a client event on a private channel reaches the others and not the sender', async (t) => {
  const name = unique('private-talk');
  const sender = await connectClient(t);
  const receiver = await connectClient(t);
  const mine = await subscribe(sender.pusher, name);
  const theirs = await subscribe(receiver.pusher, name);
  assert.ok(mine.channel.trigger('client-typing', { who: 'me' }));
  assert.deepEqual((await theirs.inbox.event('client-typing')).data, { who: 'me' });
  await sdk().trigger(name, 'fence', 1);
  await mine.inbox.event('fence');
  assert.ok(!mine.inbox.untaken.some((item) => item.event === 'client-typing'));
});

test('a client event on a presence channel carries the user_id of the sender', async (t) => {
  const name = unique('presence-talk');
  const sender = await connectClient(t, { member: { user_id: 'ada' } });
  const receiver = await connectClient(t, { member: { user_id: 'bob' } });
  const mine = await subscribe(sender.pusher, name);
  const theirs = await subscribe(receiver.pusher, name);
  const received = new Inbox();
  theirs.channel.bind('client-hello', (data, metadata) => received.push({ event: 'client-hello', data, metadata }));
  mine.channel.trigger('client-hello', { text: 'hi' });
  const { data, metadata } = await received.event('client-hello');
  assert.deepEqual(data, { text: 'hi' });
  assert.deepEqual(metadata, { user_id: 'ada' });
});

/** A WebSocket without a library that is subscribed to a private channel. */
async function joinRaw(t, name) {
  const raw = await connectRaw(t);
  raw.send({ event: 'pusher:subscribe', data: { channel: name, ...sdk().authorizeChannel(raw.socketId, name) } });
  await raw.inbox.event('pusher_internal:subscription_succeeded');
  return raw;
}

test('data of a client event passes unchanged, whatever JSON it is', async (t) => {
  const name = unique('private-any');
  const sender = await joinRaw(t, name);
  const receiver = await joinRaw(t, name);
  for (const data of [{ a: [1, 2.5, null] }, 'plain text', '{"a": 1}', 7, [true], 'ünï 🚀 "\\\u0000', {}]) {
    sender.send({ event: 'client-any', channel: name, data });
    const { isBinary, ...frame } = await receiver.inbox.event('client-any');
    assert.equal(isBinary, false);
    assert.deepEqual(frame, { event: 'client-any', channel: name, data });
  }
});

for (const [where, name] of [['a public channel', unique('public')], ['a channel not subscribed to', unique('private-away')]]) {
  test(`a client event to ${where} is refused and goes nowhere`, async (t) => {
    const sender = await connectRaw(t);
    const receiver = await connectClient(t);
    const theirs = await subscribe(receiver.pusher, name);
    if (!name.startsWith('private-')) {
      sender.send({ event: 'pusher:subscribe', data: { channel: name } });
      await sender.inbox.event('pusher_internal:subscription_succeeded');
    }
    sender.send({ event: 'client-x', channel: name, data: {} });
    await sender.inbox.event('pusher:error');
    await sdk().trigger(name, 'fence', 1);
    await theirs.inbox.event('fence');
    assert.ok(!theirs.inbox.untaken.some((item) => item.event === 'client-x'));
  });
}

test('too many client events are refused with 4301 and the connection stays', async (t) => {
  const name = unique('private-flood');
  const raw = await joinRaw(t, name);
  for (let i = 0; i < 40; i += 1) raw.send({ event: 'client-flood', channel: name, data: i });
  const error = await raw.inbox.event('pusher:error');
  const { code } = typeof error.data === 'string' ? JSON.parse(error.data) : error.data;
  assert.equal(code, 4301);
  raw.send({ event: 'pusher:ping', data: {} });
  await raw.inbox.event('pusher:pong');
});
