// Signed-in users: events for one user, ending a user's connections, watchlists.

import test from 'node:test';
import assert from 'node:assert/strict';
import { Inbox, app, connectClient, connectRaw, reached, sdk, subscribe, unique } from './support.mjs';

async function signIn(t, user) {
  const client = await connectClient(t, { user });
  client.events = new Inbox();
  client.watched = new Inbox();
  client.pusher.user.bind_global((event, data) => client.events.push({ event, data }));
  client.pusher.user.watchlist.bind_global((event, data) => client.watched.push({ event, data }));
  client.pusher.signin();
  await client.inbox.event('pusher:signin_success');
  await client.inbox.take(
    (frame) => frame.event === 'pusher_internal:subscription_succeeded' && frame.channel === `#server-to-user-${user.id}`,
    'the channel of the user',
  );
  return client;
}

test('sendToUser reaches every connection of that user, and no other user', async (t) => {
  const [id, otherId] = [unique('user'), unique('user')];
  const tabs = [await signIn(t, { id }), await signIn(t, { id })];
  const other = await signIn(t, { id: otherId });
  await sdk().sendToUser(id, 'private-news', { n: 1 });
  await sdk().sendToUser(otherId, 'their-news', { n: 2 });
  for (const tab of tabs) assert.deepEqual((await tab.events.event('private-news')).data, { n: 1 });
  assert.deepEqual((await other.events.event('their-news')).data, { n: 2 });
  // The frames themselves, because pusher-js would hide one that came to the wrong user.
  assert.ok(!other.inbox.untaken.some((frame) => frame.event === 'private-news'));
});

test('terminateUserConnections closes with 4009 and pusher-js does not come back', async (t) => {
  const id = unique('user');
  const client = await signIn(t, { id });
  const bystander = await signIn(t, { id: unique('user') });
  await sdk().terminateUserConnections(id);
  const error = await client.errors.take((item) => item.error?.data?.code === 4009, 'the error 4009');
  assert.equal(error.type, 'WebSocketError');
  await reached(client, 'disconnected');
  await subscribe(bystander.pusher, unique('still-alive'));
});

test('a wrong signature for signing in is answered with an error', async (t) => {
  const raw = await connectRaw(t);
  raw.send({ event: 'pusher:signin', data: { auth: `${app.key}:${'0'.repeat(64)}`, user_data: '{"id":"x"}' } });
  const error = await raw.inbox.event('pusher:error');
  const { code } = typeof error.data === 'string' ? JSON.parse(error.data) : error.data;
  assert.equal(code, 4009);
});

test('a client cannot subscribe to the channel of another user', async (t) => {
  const raw = await connectRaw(t);
  raw.send({ event: 'pusher:subscribe', data: { channel: `#server-to-user-${unique('user')}`, auth: '' } });
  const refusal = await raw.inbox.take(
    (frame) => frame.event === 'pusher:subscription_error' || frame.event === 'pusher:error', 'a refusal');
  assert.ok(refusal);
});

test('a watchlist tells who is online now, who comes and who goes', async (t) => {
  const [watcherId, friendId, earlyId] = [unique('user'), unique('user'), unique('user')];
  await signIn(t, { id: earlyId });
  const watcher = await signIn(t, { id: watcherId, watchlist: [friendId, earlyId] });
  const about = (id) => ({ data }) => data.user_ids.includes(id);
  const present = await watcher.watched.take((item) => item.event === 'online' && about(earlyId)(item), 'who is online');
  assert.ok(!present.data.user_ids.includes(friendId));

  const friend = await signIn(t, { id: friendId });
  await watcher.watched.take((item) => item.event === 'online' && about(friendId)(item), 'the friend to come');
  // Whatever told the state at sign-in came before "online"; only what comes from here on is the friend's going.
  watcher.watched.clear();
  friend.pusher.disconnect();
  await watcher.watched.take((item) => item.event === 'offline' && about(friendId)(item), 'the friend to go');
});
