// The hub's console in a real browser: it shows what happens, publishes, and follows a channel.

import test from 'node:test';
import assert from 'node:assert/strict';
import { openPage, picture } from './browser.mjs';
import { app, cannotStartHubs, configured, connectClient, host, port, sdk, startHub, subscribe, unique } from './support.mjs';

const base = `http://${host}:${port}`;

async function openConsole(t, options) {
  const page = await openPage(t, base, '/console', options);
  await page.locator('#status[data-state="up"]').waitFor();
  return page;
}

test('the console shows connections, channels and messages as they come', async (t) => {
  const page = await openConsole(t);
  const name = unique('presence-console');
  const row = page.locator('#channel-rows tr', { hasText: name });
  assert.equal(await row.count(), 0);
  for (const id of ['ada', 'bob', 'bob']) {
    await subscribe((await connectClient(t, { member: { user_id: id } })).pusher, name);
  }
  await page.locator('#channel-rows tr', { hasText: name }).getByText('3', { exact: true }).waitFor();
  assert.deepEqual(await row.locator('td').allTextContents(), [name, 'presence', await appName(page), '3', '2']);
  assert.ok(Number(await page.locator('#connections').textContent()) >= 3);

  const server = sdk();
  const publishing = setInterval(() => server.trigger(name, 'tick', 1).catch(() => {}), 20);
  t.after(() => clearInterval(publishing));
  await page.waitForFunction(() => Number(document.querySelector('#rate-out').textContent) > 5);
  await page.waitForFunction(() => document.querySelectorAll('#plot polyline').length === 2);
  const backend = await page.locator('#backend').textContent();
  // Where io_uring is refused, as in many containers, epoll runs and the hub says why.
  const metrics = await (await fetch(`${base}/metrics`)).text();
  const [, running, fallback] = metrics.match(/^evenkeel_hub_backend_info\{backend="(.*)",fallback="(.*)"\} 1$/m);
  assert.equal(backend, running);
  const wanted = process.env.EVENKEEL_BACKEND ?? backend;
  assert.equal(backend, wanted === 'io_uring' && fallback !== '' ? 'epoll' : wanted, 'the backend under test runs');
  await picture(page, 'console');
});

/** The name that the console shows for the application under test. */
async function appName(page) {
  const text = await page.locator(`#publish-app option[value="${app.id}"]`).textContent();
  return text.replace(` (${app.id})`, '');
}

for (const kind of ['public', 'private']) {
  test(`the console publishes on a ${kind} channel, and its live view shows it as text`, async (t) => {
    const name = unique(`${kind}-form`);
    const { inbox } = await subscribe((await connectClient(t)).pusher, name);
    const page = await openConsole(t);
    await page.getByRole('button', { name, exact: true }).click();
    await page.getByText(`Waiting for events on ${name}.`).waitFor();

    const data = { text: '<img src=x onerror="document.title=1"> & Grüße' };
    await page.locator('#publish-app').selectOption(app.id);
    await page.locator('#publish-channel').fill(name);
    await page.locator('#publish-event').fill('from-console');
    await page.locator('#publish-data').fill(JSON.stringify(data));
    await page.getByRole('button', { name: 'Publish' }).click();
    assert.deepEqual((await inbox.event('from-console')).data, data);
    await page.locator('#publish-result.good').waitFor();

    const shown = page.locator('#tail-events li', { hasText: 'from-console' });
    await shown.waitFor();
    assert.match(await shown.locator('.data').textContent(), /<img src=x/);
    assert.equal(await page.locator('#tail-events img').count(), 0);
    if (kind === 'private') await picture(page, 'console-live');
  });
}

test('pressing a channel fills in the form, and says that presence cannot be followed', async (t) => {
  const name = unique('presence-press');
  await subscribe((await connectClient(t, { member: { user_id: 'ada' } })).pusher, name);
  const page = await openConsole(t);
  await page.getByRole('button', { name, exact: true }).click();
  await page.getByText('A presence channel cannot be followed').waitFor();
  assert.equal(await page.locator('#publish-channel').inputValue(), name);
});

test('the console says why the hub refused to publish', async (t) => {
  const page = await openConsole(t, { expected: /status of 4\d\d/ });
  await page.locator('#publish-channel').fill('not a channel!');
  await page.locator('#publish-event').fill('x');
  await page.getByRole('button', { name: 'Publish' }).click();
  await page.locator('#publish-result.bad').waitFor();
  assert.notEqual(await page.locator('#publish-result').textContent(), '');
});

test('a page of another site cannot publish by the console', async () => {
  const body = JSON.stringify({ app: app.id, channel: 'news', event: 'x', data: '1' });
  const headers = { 'Content-Type': 'application/json', Origin: 'http://attacker.example' };
  const foreign = await fetch(`${base}/console/publish`, { method: 'POST', headers, body });
  assert.equal(foreign.status, 403);
  const simple = await fetch(`${base}/console/publish`, { method: 'POST', headers: { 'Content-Type': 'text/plain' }, body });
  assert.equal(simple.status, 415);
});

test('the console asks for its token until it is right, and keeps it for the tab', { skip: cannotStartHubs }, async (t) => {
  const token = 'a token that nobody guesses';
  const hub = await startHub(t, [...configured, '--set', `console_token=${token}`]);
  const page = await openPage(t, hub.base, '/console', { expected: /status of 401/ });
  await page.getByLabel('Token', { exact: true }).fill('a token that is a guess');
  await page.getByRole('button', { name: 'Open the console' }).click();
  await page.getByText('That token was refused.').waitFor();
  await picture(page, 'console-token');
  await page.getByLabel('Token', { exact: true }).fill(token);
  await page.getByRole('button', { name: 'Open the console' }).click();
  await page.locator('#status[data-state="up"]').waitFor();
  await page.reload();
  await page.locator('#status[data-state="up"]').waitFor();

  const second = await openPage(t, hub.base, `/console?token=${encodeURIComponent(token)}`);
  await second.locator('#status[data-state="up"]').waitFor();
  assert.equal(second.url(), `${hub.base}/console`);
});

for (const [path, dark] of [['/', true], ['/console', false]]) {
  test(`the console at ${path} fits a narrow screen${dark ? ' in the dark' : ''}`, async (t) => {
    const page = await openPage(t, base, path, { viewport: { width: 360, height: 740 }, colorScheme: dark ? 'dark' : 'light' });
    await page.locator('#status[data-state="up"]').waitFor();
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360);
    await picture(page, dark ? 'console-narrow-dark' : 'console-narrow');
  });
}

