// A plain EventSource: no library of the hub's protocol, and nothing lost over a break.

import test from 'node:test';
import assert from 'node:assert/strict';
import { host, openStream, port, sdk, startRelay, streamUrl, unique } from './support.mjs';

test('an event stream delivers the events of several channels', async (t) => {
  const [a, b] = [unique('a'), unique('b')];
  const { inbox } = await openStream(t, streamUrl([a, b]), ['news', 'sport']);
  await sdk().trigger(a, 'news', { text: 'Grüße\nzwei Zeilen' });
  await sdk().trigger(b, 'sport', { goals: 3 });
  const news = await inbox.event('news');
  assert.equal(news.data.channel, a);
  assert.equal(news.data.event, 'news');
  assert.deepEqual(JSON.parse(news.data.data), { text: 'Grüße\nzwei Zeilen' });
  assert.ok(news.id);
  assert.equal((await inbox.event('sport')).data.channel, b);
});

test('Last-Event-ID brings what was missed, in order and once', async (t) => {
  const name = unique('recovered');
  const first = await openStream(t, streamUrl([name]), ['n']);
  await sdk().trigger(name, 'n', 1);
  const { id } = await first.inbox.event('n');
  first.source.close();
  for (const n of [2, 3, 4]) await sdk().trigger(name, 'n', n);
  const second = await openStream(t, streamUrl([name]), ['n'], { lastEventId: id });
  await sdk().trigger(name, 'n', 5);
  for (const n of [2, 3, 4, 5]) assert.equal((await second.inbox.event('n')).data.data, String(n));
  assert.deepEqual(second.inbox.untaken, []);
});

test('a stream that the network cut recovers by itself', async (t) => {
  const relay = await startRelay(t);
  const name = unique('cut');
  const stream = await openStream(t, streamUrl([name], { at: relay.port }), ['n']);
  await sdk().trigger(name, 'n', 1);
  await stream.inbox.event('n');
  relay.cut();
  await sdk().trigger(name, 'n', 2);
  await stream.open();
  await sdk().trigger(name, 'n', 3);
  for (const n of [2, 3]) assert.equal((await stream.inbox.event('n', 20_000)).data.data, String(n));
});

test('a private channel needs a signature that has not expired', async (t) => {
  const name = unique('private-stream');
  const statusOf = async (url) => {
    const response = await fetch(url, { signal: AbortSignal.timeout(5000) });
    await response.body?.cancel();
    return response.status;
  };
  assert.equal(await statusOf(streamUrl([name])), 401);
  assert.equal(await statusOf(streamUrl([name], { signed: true, expires: 1 })), 401);
  assert.equal(await statusOf(streamUrl([name], { signed: true, application: { key: 'demo-key', secret: 'wrong' } })), 401);
  const { inbox } = await openStream(t, streamUrl([name], { signed: true }), ['n']);
  await sdk().trigger(name, 'n', { ok: true });
  assert.equal((await inbox.event('n')).data.channel, name);
});

test('a stream of no channel or of an unknown application is refused', async () => {
  const get = (path) => fetch(`http://${host}:${port}${path}`, { signal: AbortSignal.timeout(5000) });
  assert.equal((await get('/sse/demo-key')).status, 400);
  const unknown = (await get('/sse/no-such-key?channel=a')).status;
  assert.ok(unknown === 401 || unknown === 404, `status ${unknown}`);
});

test('the answer is an event stream that nobody caches', async () => {
  const response = await fetch(streamUrl([unique('headers')]), { signal: AbortSignal.timeout(5000) });
  assert.match(response.headers.get('content-type'), /^text\/event-stream/);
  assert.match(response.headers.get('cache-control'), /no-cache|no-store/);
  await response.body.cancel();
});
