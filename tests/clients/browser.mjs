// A real browser for the tests of the hub's pages.

import { after, before } from 'node:test';
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import { PATIENCE_MS } from './support.mjs';

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

/**
 * A page of the hub at `base`, in a context of its own. A script's error, a violated policy or a request to another host
 * fails the test, unless it matches `expected`.
 */
export async function openPage(t, base, path, { expected, ...options } = {}) {
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
    assert.deepEqual(faults.filter((fault) => !expected?.test(fault)), []);
  });
  await page.goto(base + path);
  return page;
}

/** Keeps a picture of the whole page. */
export function picture(page, name) {
  return page.screenshot({ path: join(screenshots, `${name}.png`), fullPage: true });
}
