// The chat in a real browser, on a hub that was started without any configuration.

import test from 'node:test';
import assert from 'node:assert/strict';
import { openPage, picture } from './browser.mjs';
import { cannotStartHubs, startHub, unique } from './support.mjs';

const skip = cannotStartHubs;

async function joinChat(t, hub, name, options) {
  const page = await openPage(t, hub.base, '/chat', options);
  await page.getByLabel('Your name').fill(name);
  await page.getByRole('button', { name: 'Join' }).click();
  await page.locator('#people li.me').waitFor();
  return page;
}

async function say(page, text) {
  await page.getByLabel('Message', { exact: true }).fill(text);
  await page.keyboard.press('Enter');
}

test('two people chat, and see each other come and go', { skip }, async (t) => {
  const hub = await startHub(t, []);
  const [adaName, graceName] = [unique('Ada'), `${unique('Grace')} <b>`];
  const ada = await joinChat(t, hub, adaName);
  const grace = await joinChat(t, hub, graceName, { colorScheme: 'dark' });
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

test('what is typed is announced to the others', { skip }, async (t) => {
  const hub = await startHub(t, []);
  const name = unique('Typist');
  const reader = await joinChat(t, hub, unique('Reader'));
  const typist = await joinChat(t, hub, name);
  await reader.locator('#people li', { hasText: name }).waitFor();
  await typist.getByLabel('Message', { exact: true }).fill('hm');
  await reader.getByText(`${name} is typing…`).waitFor();
});
