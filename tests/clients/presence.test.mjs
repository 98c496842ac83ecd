// Presence: who is there, who comes and who goes, as pusher-js shows it.

import test from 'node:test';
import assert from 'node:assert/strict';
import { connectClient, sdk, subscribe, unique } from './support.mjs';

const ada = { user_id: 'ada', user_info: { name: 'Ada' } };
const bob = { user_id: 'bob', user_info: { name: 'Bob' } };

test('members come and go, and the count is right on both sides', async (t) => {
  const name = unique('presence-room');
  const first = await connectClient(t, { member: ada });
  const room = await subscribe(first.pusher, name);
  assert.equal(room.channel.members.count, 1);
  assert.deepEqual(room.channel.members.me, { id: 'ada', info: { name: 'Ada' } });

  const second = await connectClient(t, { member: bob });
  const theirs = await subscribe(second.pusher, name);
  assert.equal(theirs.channel.members.count, 2);
  assert.deepEqual(theirs.channel.members.get('ada'), { id: 'ada', info: { name: 'Ada' } });
  assert.deepEqual((await room.inbox.event('pusher:member_added')).data, { id: 'bob', info: { name: 'Bob' } });
  assert.equal(room.channel.members.count, 2);

  second.pusher.disconnect();
  assert.deepEqual((await room.inbox.event('pusher:member_removed')).data, { id: 'bob', info: { name: 'Bob' } });
  assert.equal(room.channel.members.count, 1);
});

test('a user with two tabs is one member, added once and removed with the last tab', async (t) => {
  const name = unique('presence-tabs');
  const watcher = await connectClient(t, { member: ada });
  const room = await subscribe(watcher.pusher, name);
  const tabs = [await connectClient(t, { member: bob }), await connectClient(t, { member: bob })];
  for (const tab of tabs) {
    const { channel } = await subscribe(tab.pusher, name);
    assert.equal(channel.members.count, 2);
  }
  tabs[0].pusher.unsubscribe(name);
  // A third user's coming is announced after what the first tab's leaving could have caused.
  const third = await connectClient(t, { member: { user_id: 'cid' } });
  await subscribe(third.pusher, name);
  await room.inbox.take((item) => item.event === 'pusher:member_added' && item.data.id === 'cid', 'cid to come');
  assert.ok(!room.inbox.untaken.some((item) => item.event === 'pusher:member_removed'));
  assert.equal(room.inbox.untaken.filter((item) => item.event === 'pusher:member_added').length, 1);
  tabs[1].pusher.unsubscribe(name);
  await room.inbox.take((item) => item.event === 'pusher:member_removed' && item.data.id === 'bob', 'bob to leave');
});

test('a numeric user_id is accepted', async (t) => {
  const name = unique('presence-number');
  const { pusher } = await connectClient(t, { member: { user_id: 10, user_info: { name: 'Mr. Channels' } } });
  const { channel } = await subscribe(pusher, name);
  assert.equal(channel.members.count, 1);
  assert.deepEqual(channel.members.get('10'), { id: '10', info: { name: 'Mr. Channels' } });
});

test('a signed-in user joins a presence channel without channel data', async (t) => {
  const name = unique('presence-signed-in');
  const user = { id: unique('user'), user_info: { name: 'Signed In' } };
  const client = await connectClient(t, { user });
  client.pusher.signin();
  await client.inbox.event('pusher:signin_success');
  const { channel } = await subscribe(client.pusher, name);
  assert.equal(channel.members.count, 1);
  assert.equal(channel.members.myID, user.id);
  const users = await (await sdk().get({ path: `/channels/${name}/users` })).json();
  assert.deepEqual(users, { users: [{ id: user.id }] });
});
