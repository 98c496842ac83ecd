// Two applications on one hub know nothing of each other.

import test from 'node:test';
import assert from 'node:assert/strict';
import { app, connectClient, otherApp, sdk, signedRequest, startSubscription, subscribe, unique } from './support.mjs';

test('the same channel name in two applications is two channels', async (t) => {
  const name = unique('shared-name');
  const ours = await subscribe((await connectClient(t)).pusher, name);
  const theirs = await subscribe((await connectClient(t, { application: otherApp })).pusher, name);
  await sdk(app).trigger(name, 'mine', 1);
  await sdk(otherApp).trigger(name, 'yours', 2);
  assert.equal((await ours.inbox.event('mine')).data, 1);
  assert.equal((await theirs.inbox.event('yours')).data, 2);
  assert.ok(!theirs.inbox.untaken.some((item) => item.event === 'mine'));
  assert.ok(!ours.inbox.untaken.some((item) => item.event === 'yours'));
});

test('one application sees only its own channels and members', async (t) => {
  const name = unique('presence-apart');
  const ours = await subscribe((await connectClient(t, { member: { user_id: 'a' } })).pusher, name);
  const theirs = await subscribe((await connectClient(t, { application: otherApp, member: { user_id: 'b' } })).pusher, name);
  assert.equal(ours.channel.members.count, 1);
  assert.equal(theirs.channel.members.count, 1);
  const { channels } = await (await sdk(otherApp).get({ path: '/channels', params: { filter_by_prefix: name } })).json();
  assert.deepEqual(Object.keys(channels), [name]);
  const { users } = await (await sdk(otherApp).get({ path: `/channels/${name}/users` })).json();
  assert.deepEqual(users, [{ id: 'b' }]);
});

test('a signature of the other application opens nothing', async (t) => {
  const { pusher } = await connectClient(t, {
    authorize: (socketId, channel) => sdk(otherApp).authorizeChannel(socketId, channel),
  });
  const refused = startSubscription(pusher, unique('private-foreign'));
  assert.equal((await refused.inbox.event('pusher:subscription_error')).data.status, 401);
  const answer = await signedRequest('GET', `/apps/${app.id}/channels`, { application: otherApp });
  assert.equal(answer.status, 401);
});

test('a user of one application does not get what is sent to the same id in the other', async (t) => {
  const id = unique('user');
  const clients = [];
  for (const application of [app, otherApp]) {
    const client = await connectClient(t, { application, user: { id } });
    client.pusher.signin();
    await client.inbox.take((frame) => frame.event === 'pusher_internal:subscription_succeeded', 'the channel of the user');
    clients.push(client);
  }
  await sdk(app).sendToUser(id, 'for-ours', 1);
  await sdk(otherApp).sendToUser(id, 'for-theirs', 2);
  await clients[0].inbox.event('for-ours');
  await clients[1].inbox.event('for-theirs');
  assert.ok(!clients[1].inbox.untaken.some((frame) => frame.event === 'for-ours'));
  assert.ok(!clients[0].inbox.untaken.some((frame) => frame.event === 'for-theirs'));
});
