// The hub's own pages in a real browser: the console shows what happens and publishes, the chat talks between two tabs.

import test, { after, before } from 'node:test';
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import { PATIENCE_MS, app, connectClient, host, port, sdk, subscribe, unique } from './support.mjs';

const base = `http://${host}:${port}`;
const screenshots = process.env.SCREENSHOTS ?? new URL('../../build/screenshots', import.meta.url).pathname;

let browser;
let home;

before(async () => {
  await mkdir(screenshots, { recursive: true });
  home = await mkdtemp(join(tmpdir(), 'evenkeel-chromium-'));
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    // A home of its own keeps whatever Chromium writes away from the user's.
    env: { ...process.env, HOME: home },
    args: [
      '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync',
    ],
  });
}, { timeout: 60_000 });

after(async () => {
  await browser?.close();
  await rm(home, { recursive: true, force: true });
});

/** A page in a context of its own; a script's error, a violated policy or a request to another host fails the test. */
async function openPage(t, path, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  context.setDefaultTimeout(PATIENCE_MS);
  const page = await context.newPage();
  const faults = [];
  page.on('pageerror', (error) => faults.push(`error: ${error.message}`));
  page.on('console', (line) => { if (line.type() === 'error') faults.push(`console: ${line.text()}`); });
  page.on('request', (request) => {
    if (!request.url().startsWith(base)) faults.push(`request to ${request.url()}`);
  });
  t.after(async () => {
    await context.close();
    assert.deepEqual(faults.filter((fault) => !options.expected?.test(fault)), []);
  });
  await page.goto(base + path);
  return page;
}

async function openConsole(t, options) {
  const page = await openPage(t, '/console', options);
  await page.locator('#status[data-state="up"]').waitFor();
  return page;
}

const picture = (page, name) => page.screenshot({ path: join(screenshots, `${name}.png`), fullPage: true });

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
  assert.notEqual(await page.locator('#backend').textContent(), '–');
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

/** Lets the console's requests through only with this token, as a hub does that is configured with one. */
async function demandToken(page, token) {
  await page.route('**/console/**', async (route) => {
    if (route.request().headers().authorization === `Bearer ${token}`) await route.continue();
    else await route.fulfill({ status: 401, json: { error: 'The console needs its token.' } });
  });
}

test('the console asks for its token until it is right, and keeps it for the tab', async (t) => {
  const page = await openPage(t, '/chat', { expected: /status of 401/ });
  await demandToken(page, 'right');
  await page.goto(`${base}/console`);
  await page.getByLabel('Token', { exact: true }).fill('wrong');
  await page.getByRole('button', { name: 'Open the console' }).click();
  await page.getByText('That token was refused.').waitFor();
  await picture(page, 'console-token');
  await page.getByLabel('Token', { exact: true }).fill('right');
  await page.getByRole('button', { name: 'Open the console' }).click();
  await page.locator('#status[data-state="up"]').waitFor();
  await page.reload();
  await page.locator('#status[data-state="up"]').waitFor();
});

test('a token in the address of the console is used and does not stay there', async (t) => {
  const page = await openPage(t, '/chat');
  await demandToken(page, 'from address');
  await page.goto(`${base}/console?token=from%20address`);
  await page.locator('#status[data-state="up"]').waitFor();
  assert.equal(page.url(), `${base}/console`);
});

for (const [path, dark] of [['/', true], ['/console', false]]) {
  test(`the console at ${path} fits a narrow screen${dark ? ' in the dark' : ''}`, async (t) => {
    const page = await openPage(t, path, { viewport: { width: 360, height: 740 }, colorScheme: dark ? 'dark' : 'light' });
    await page.locator('#status[data-state="up"]').waitFor();
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360);
    await picture(page, dark ? 'console-narrow-dark' : 'console-narrow');
  });
}

async function joinChat(t, name, options) {
  const page = await openPage(t, '/chat', options);
  await page.getByLabel('Your name').fill(name);
  await page.getByRole('button', { name: 'Join' }).click();
  await page.locator('#people li.me').waitFor();
  return page;
}

async function say(page, text) {
  await page.getByLabel('Message', { exact: true }).fill(text);
  await page.keyboard.press('Enter');
}

test('two people chat, and see each other come and go', async (t) => {
  const [adaName, graceName] = [unique('Ada'), `${unique('Grace')} <b>`];
  const ada = await joinChat(t, adaName);
  const grace = await joinChat(t, graceName, { colorScheme: 'dark' });
  await ada.locator('#people li', { hasText: graceName }).waitFor();
  await grace.locator('#people li', { hasText: adaName }).waitFor();
  await ada.getByText(`${graceName} joined`).waitFor();

  await say(ada, 'Hello <script>alert(1)</script>');
  const received = grace.locator('.message', { hasText: 'Hello <script>alert(1)</script>' });
  await received.waitFor();
  assert.match(await received.locator('.who').textContent(), new RegExp(`^${adaName} `));
  await say(grace, 'Grüße zurück 👋');
  await ada.getByText('Grüße zurück 👋').waitFor();
  assert.equal(await ada.locator('.message').count(), 2, 'nobody gets an own message back');
  await picture(ada, 'chat');
  await picture(grace, 'chat-dark');

  await grace.close();
  await ada.getByText(`${graceName} left`).waitFor();
  await ada.locator('#people li', { hasText: graceName }).waitFor({ state: 'detached' });
});

test('what is typed is announced to the others', async (t) => {
  const name = unique('Typist');
  const reader = await joinChat(t, unique('Reader'));
  const typist = await joinChat(t, name);
  await reader.locator('#people li', { hasText: name }).waitFor();
  await typist.getByLabel('Message', { exact: true }).fill('hm');
  await reader.getByText(`${name} is typing…`).waitFor();
});
