// Every kind of channel: pusher-js subscribes, the Node server SDK publishes.

import test from 'node:test';
import assert from 'node:assert/strict';
import { app, clientOptions, connectClient, sdk, startSubscription, subscribe, unique } from './support.mjs';

const member = { user_id: 'u1', user_info: { name: 'Ada' } };

const kinds = [
  'public', 'private', 'presence', 'private-encrypted',
  'cache', 'private-cache', 'presence-cache', 'private-encrypted-cache',
];

for (const kind of kinds) {
  test(`a ${kind} channel delivers what the server publishes`, async (t) => {
    const { pusher } = await connectClient(t, { member });
    const name = unique(kind);
    const { inbox } = await subscribe(pusher, name);
    const data = { text: 'Grüße, 世界 🌍', nested: [1, null, { a: '"\\\n' }] };
    await sdk().trigger(name, 'news', data);
    assert.deepEqual((await inbox.event('news')).data, data);
  });
}

for (const kind of kinds.filter((kind) => kind.includes('cache'))) {
  test(`a ${kind} channel says that it is empty, then gives its last event to who comes late`, async (t) => {
    const { pusher } = await connectClient(t, { member });
    const name = unique(kind);
    const early = await subscribe(pusher, name);
    await early.inbox.event('pusher:cache_miss');
    await sdk().trigger(name, 'price', { value: 1 });
    await sdk().trigger(name, 'price', { value: 2 });
    assert.deepEqual((await early.inbox.event('price')).data, { value: 1 });
    assert.deepEqual((await early.inbox.event('price')).data, { value: 2 });

    const { pusher: second } = await connectClient(t, { member: { user_id: 'u2' } });
    const late = await subscribe(second, name);
    assert.deepEqual((await late.inbox.event('price')).data, { value: 2 });
    assert.equal(late.inbox.untaken.filter((item) => item.event === 'pusher:cache_miss').length, 0);
  });
}

test('one trigger reaches several channels, and nobody else', async (t) => {
  const { pusher } = await connectClient(t);
  const names = [unique('a'), unique('b'), unique('c')];
  const [a, b, c] = await Promise.all(names.map((name) => subscribe(pusher, name)));
  await sdk().trigger(names.slice(0, 2), 'both', 'x');
  await sdk().trigger(names[2], 'third', 'y');
  assert.equal((await a.inbox.event('both')).data, 'x');
  assert.equal((await b.inbox.event('both')).data, 'x');
  assert.equal((await c.inbox.event('third')).data, 'y');
  assert.ok(!c.inbox.untaken.some((item) => item.event === 'both'));
});

test('events of one publisher arrive in order', async (t) => {
  const { pusher } = await connectClient(t);
  const name = unique('order');
  const { inbox } = await subscribe(pusher, name);
  const server = sdk();
  for (let i = 0; i < 50; i += 1) await server.trigger(name, 'n', i);
  for (let i = 0; i < 50; i += 1) assert.equal((await inbox.event('n')).data, i);
});

test('socket_id leaves the sender out', async (t) => {
  const sender = await connectClient(t);
  const other = await connectClient(t);
  const name = unique('exclude');
  const mine = await subscribe(sender.pusher, name);
  const theirs = await subscribe(other.pusher, name);
  await sdk().trigger(name, 'first', 1, { socket_id: sender.pusher.connection.socket_id });
  await sdk().trigger(name, 'second', 2);
  assert.equal((await theirs.inbox.event('first')).data, 1);
  assert.equal((await mine.inbox.event('second')).data, 2);
  assert.ok(!mine.inbox.untaken.some((item) => item.event === 'first'));
});

test('after unsubscribing nothing arrives', async (t) => {
  const client = await connectClient(t);
  const left = unique('left');
  const kept = unique('kept');
  await subscribe(client.pusher, left);
  const { inbox } = await subscribe(client.pusher, kept);
  client.pusher.unsubscribe(left);
  // The answer to a later subscription proves that the hub has seen the unsubscription.
  await subscribe(client.pusher, unique('fence'));
  await sdk().trigger([left, kept], 'late', 1);
  await inbox.event('late');
  assert.ok(!client.inbox.untaken.some((frame) => frame.channel === left && frame.event === 'late'));
});

test('the number of subscriptions is announced', async (t) => {
  const { pusher } = await connectClient(t);
  const { pusher: second } = await connectClient(t);
  const name = unique('counted');
  const counted = ({ count }) => (item) =>
    item.event === 'pusher:subscription_count' && item.data.subscription_count === count;
  const first = await subscribe(pusher, name);
  await first.inbox.take(counted({ count: 1 }), 'a count of 1');
  await subscribe(second, name);
  await first.inbox.take(counted({ count: 2 }), 'a count of 2');
  assert.equal(first.channel.subscriptionCount, 2);
  second.unsubscribe(name);
  await first.inbox.take(counted({ count: 1 }), 'a count of 1 again');
});

test('a batch publishes every event of it', async (t) => {
  const { pusher } = await connectClient(t);
  const names = [unique('batch'), unique('private-batch')];
  const [first, second] = await Promise.all(names.map((name) => subscribe(pusher, name)));
  await sdk().triggerBatch([
    { channel: names[0], name: 'one', data: { n: 1 } },
    { channel: names[1], name: 'two', data: { n: 2 } },
    { channel: names[0], name: 'three', data: { n: 3 } },
  ]);
  assert.deepEqual((await first.inbox.event('one')).data, { n: 1 });
  assert.deepEqual((await first.inbox.event('three')).data, { n: 3 });
  assert.deepEqual((await second.inbox.event('two')).data, { n: 2 });
});

test('an encrypted channel hides its data from the hub and from a client without the key', async (t) => {
  const name = unique('private-encrypted');
  const { pusher, inbox: frames } = await connectClient(t);
  const { inbox } = await subscribe(pusher, name);
  await sdk().trigger(name, 'secret', { pin: 4711 });
  const frame = await frames.take((item) => item.event === 'secret', 'the raw frame');
  assert.deepEqual(Object.keys(frame.data).sort(), ['ciphertext', 'nonce']);
  assert.deepEqual((await inbox.event('secret')).data, { pin: 4711 });

  const wrongKey = sdk(app, { encryptionMasterKeyBase64: Buffer.alloc(32, 9).toString('base64') });
  const stranger = await connectClient(t, { authorize: (id, channel) => wrongKey.authorizeChannel(id, channel) });
  const theirs = await subscribe(stranger.pusher, name);
  await sdk().trigger(name, 'secret', { pin: 4712 });
  await inbox.event('secret');
  await stranger.inbox.take((item) => item.event === 'secret', 'the raw frame');
  assert.ok(!theirs.inbox.untaken.some((item) => item.event === 'secret'));
});

test('a wrong signature is a subscription error with status 401, and the connection goes on', async (t) => {
  const authorize = (socketId, channel) => ({ auth: `${app.key}:${'0'.repeat(64)}`, channel_data: '{"user_id":"x"}' });
  const { pusher } = await connectClient(t, { authorize });
  for (const name of [unique('private'), unique('presence')]) {
    const refused = startSubscription(pusher, name);
    const error = await refused.inbox.event('pusher:subscription_error');
    assert.equal(error.data.type, 'AuthError');
    assert.equal(error.data.status, 401);
  }
  await subscribe(pusher, unique('still-alive'));
});

test('a signature is only good for its own channel and its own socket', async (t) => {
  const { pusher: first } = await connectClient(t);
  const ours = unique('private-ours');
  const theirs = unique('private-theirs');
  const granted = sdk().authorizeChannel(first.connection.socket_id, ours);
  for (const [name, useFirst] of [[theirs, true], [ours, false]]) {
    const options = { authorize: () => granted };
    const pusher = useFirst ? first : (await connectClient(t, options)).pusher;
    if (useFirst) pusher.config.channelAuthorizer = clientOptions(options).channelAuthorization.customHandler;
    const refused = startSubscription(pusher, name);
    assert.equal((await refused.inbox.event('pusher:subscription_error')).data.status, 401);
  }
});
