// The HTTP API as the real Node server SDK uses it, and its refusals.

import test from 'node:test';
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { Agent } from 'node:http';
import { app, connectClient, host, port, sdk, signedRequest, subscribe, unique } from './support.mjs';

const path = `/apps/${app.id}`;

async function statusOf(promise) {
  return promise.then((response) => response.status, (error) => error.status);
}

test('channels are listed by prefix with the information asked for', async (t) => {
  const prefix = unique('presence-list');
  const { pusher } = await connectClient(t, { member: { user_id: 'ada' } });
  const { pusher: second } = await connectClient(t, { member: { user_id: 'bob' } });
  await subscribe(pusher, `${prefix}-1`);
  await subscribe(pusher, `${prefix}-2`);
  await subscribe(second, `${prefix}-2`);
  const response = await sdk().get({ path: '/channels', params: { filter_by_prefix: prefix, info: 'user_count' } });
  assert.deepEqual(await response.json(), {
    channels: { [`${prefix}-1`]: { user_count: 1 }, [`${prefix}-2`]: { user_count: 2 } },
  });
});

test('one channel: occupied, counts, cached event', async (t) => {
  const name = unique('cache-info');
  const { pusher } = await connectClient(t);
  assert.deepEqual(await (await sdk().get({ path: `/channels/${name}` })).json(), { occupied: false });
  await subscribe(pusher, name);
  await sdk().trigger(name, 'kept', { value: 3 });
  const info = await (await sdk().get({ path: `/channels/${name}`, params: { info: 'subscription_count,cache' } })).json();
  assert.equal(info.occupied, true);
  assert.equal(info.subscription_count, 1);
  assert.deepEqual(JSON.parse(info.cache.data), { value: 3 });
  assert.ok(Number.isInteger(info.cache.ttl));
});

test('users of a presence channel are listed once each', async (t) => {
  const name = unique('presence-users');
  for (const id of ['ada', 'ada', 'bob']) {
    await subscribe((await connectClient(t, { member: { user_id: id } })).pusher, name);
  }
  const { users } = await (await sdk().get({ path: `/channels/${name}/users` })).json();
  assert.deepEqual(users.map((user) => user.id).sort(), ['ada', 'bob']);
});

test('publishing can answer with the counts of its channels', async (t) => {
  const [plain, presence] = [unique('plain'), unique('presence-info')];
  const { pusher } = await connectClient(t, { member: { user_id: 'ada' } });
  await subscribe(pusher, plain);
  await subscribe(pusher, presence);
  const response = await sdk().trigger([plain], 'x', 1, { info: 'subscription_count' });
  assert.deepEqual(await response.json(), { channels: { [plain]: { subscription_count: 1 } } });
  const withUsers = await sdk().trigger([presence], 'x', 1, { info: 'user_count,subscription_count' });
  assert.deepEqual(await withUsers.json(), { channels: { [presence]: { user_count: 1, subscription_count: 1 } } });
});

test('publishing without info answers with an empty object', async () => {
  assert.deepEqual(await (await sdk().trigger(unique('nobody'), 'x', 1)).json(), {});
});

test('data over 10 kB is refused with 413, data just below is taken', async (t) => {
  const name = unique('size');
  const { pusher } = await connectClient(t);
  const { inbox } = await subscribe(pusher, name);
  const big = randomBytes(5200).toString('hex');
  assert.equal(await statusOf(sdk().trigger(name, 'big', big)), 413);
  const fits = randomBytes(4900).toString('hex');
  assert.equal(await statusOf(sdk().trigger(name, 'fits', fits)), 200);
  assert.equal((await inbox.event('fits')).data, fits);
});

test('a wrong signature, a stale time and an altered body are refused with 401', async () => {
  const body = { name: 'x', channel: unique('c'), data: '1' };
  const flip = (signature) => signature.replace(/^./, (digit) => (digit === '0' ? '1' : '0'));
  const now = Math.floor(Date.now() / 1000);
  const refusals = [
    { body, tamper: flip },
    { body, tamper: () => '' },
    { body, query: { auth_timestamp: String(now - 700) } },
    { body, query: { auth_timestamp: String(now + 700) } },
    { body, query: { auth_timestamp: 'soon' } },
    { body, query: { body_md5: '0'.repeat(32) } },
    { body, application: { ...app, key: 'no-such-key' } },
  ];
  for (const refusal of refusals) {
    const { status } = await signedRequest('POST', `${path}/events`, refusal);
    assert.equal(status, 401, JSON.stringify(refusal));
  }
  assert.equal((await signedRequest('POST', `${path}/events`, { body })).status, 200);
});

test('requests that make no sense are refused with 400', async () => {
  const channel = unique('c');
  const bodies = [
    { channel, data: '1' },
    { name: 'x', data: '1' },
    { name: 'x', channel: 'with space', data: '1' },
    { name: 'n'.repeat(201), channel, data: '1' },
    { name: 'x', channels: Array.from({ length: 101 }, (_, i) => `c${i}`), data: '1' },
    { name: 'x', channel, data: '1', socket_id: 'nonsense' },
  ];
  for (const body of bodies) {
    const { status } = await signedRequest('POST', `${path}/events`, { body });
    assert.equal(status, 400, JSON.stringify(body).slice(0, 100));
  }
  const eleven = { batch: Array.from({ length: 11 }, () => ({ name: 'x', channel, data: '1' })) };
  assert.equal((await signedRequest('POST', `${path}/batch_events`, { body: eleven })).status, 400);
  assert.equal((await signedRequest('GET', `${path}/channels/${channel}/users`)).status, 400);
  assert.equal((await signedRequest('GET', `${path}/channels/${channel}`, { query: { info: 'user_count' } })).status, 400);
});

test('a GET with the hash of an empty body, as the Python SDK sends it, is taken', async () => {
  const query = { body_md5: 'd41d8cd98f00b204e9800998ecf8427e' };
  assert.equal((await signedRequest('GET', `${path}/channels`, { query })).status, 200);
});

test('requests share one kept-alive connection', async (t) => {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  t.after(() => agent.destroy());
  const name = unique('kept-alive');
  const { pusher } = await connectClient(t);
  const { inbox } = await subscribe(pusher, name);
  const server = sdk(app, { agent });
  await server.trigger(name, 'n', 0);
  const [socket] = Object.values(agent.freeSockets).flat();
  assert.ok(socket, 'the hub keeps the connection open');
  for (let i = 1; i < 20; i += 1) await server.trigger(name, 'n', i);
  assert.equal(Object.values(agent.freeSockets).flat()[0], socket);
  for (let i = 0; i < 20; i += 1) assert.equal((await inbox.event('n')).data, i);
});

test('an unknown path is 404 and the health and metrics pages answer', async () => {
  const get = (where) => fetch(`http://${host}:${port}${where}`, { signal: AbortSignal.timeout(5000) });
  assert.equal((await get('/no/such/page')).status, 404);
  assert.equal((await get('/health')).status, 200);
  assert.equal((await get('/ready')).status, 200);
  const metrics = await get('/metrics');
  assert.equal(metrics.status, 200);
  assert.match(await metrics.text(), /^# TYPE /m);
});
