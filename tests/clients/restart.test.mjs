// A hub that stops and starts again, as in an upgrade. Starts hubs of its own, so it needs the program.

import test from 'node:test';
import assert from 'node:assert/strict';
import {
  app, cannotStartHubs, configured, connectClient, connectRaw, openStream, reached, sdk, startHub, streamUrl, subscribe, unique,
} from './support.mjs';

const skip = cannotStartHubs;

test('clients come back to a hub that was restarted', { skip }, async (t) => {
  const first = await startHub(t, configured);
  const client = await connectClient(t, { wsPort: first.port });
  const name = unique('private-restart');
  const { inbox } = await subscribe(client.pusher, name);
  const stream = await openStream(t, streamUrl(['public-restart'], { at: first.port }), ['n']);

  assert.deepEqual(await first.stop(), { code: 0, signal: null });
  await reached(client, 'connecting');
  await startHub(t, configured, first.port);
  await reached(client, 'connected', 30_000);
  await inbox.event('pusher:subscription_succeeded');
  await stream.open();

  const server = sdk(app, { port: String(first.port) });
  await server.trigger(name, 'back', { ok: true });
  assert.deepEqual((await inbox.event('back')).data, { ok: true });
  await server.trigger('public-restart', 'n', 1);
  assert.equal((await stream.inbox.event('n')).data.data, '1');
});

test('a hub that stops tells every connection with a code that lets it come back', { skip }, async (t) => {
  const hub = await startHub(t, configured);
  const raws = [];
  for (let i = 0; i < 20; i += 1) raws.push(await connectRaw(t, { at: hub.port }));
  const closes = raws.map((raw) => raw.closed());
  assert.deepEqual(await hub.stop(), { code: 0, signal: null });
  for (const { code } of await Promise.all(closes)) {
    // pusher-js comes back at once after 42xx, in a second after 41xx and 1001, never after 40xx.
    assert.ok(code === 1001 || (code >= 4100 && code < 4300), `close code ${code}`);
  }
});
