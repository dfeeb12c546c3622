// Checks of the pages in a real browser; `.ci/pages` starts the platform and passes the addresses.
// Each check is a function; its name is what the report says. A check fails by throwing.
import { createRequire } from 'node:module';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import assert from 'node:assert/strict';

const { API, TRACES, GATEWAY, MODE, MODULES, CHROMIUM, SCREENS } = process.env;
const require = createRequire(join(MODULES, 'package.json'));
const { chromium } = require('playwright-core');
const axe = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');
mkdirSync(SCREENS, { recursive: true });

const WIDE = { width: 1280, height: 900 };
const NARROW = { width: 360, height: 740 };
// Longest wait for something on a page; live refresh comes every three seconds.
const PATIENCE_MS = 15_000;
// Longest check, and longest answer of the browser itself to anything: the slowest check takes ten
// seconds on two busy cores.
const CHECK_MS = 60_000;
// The checks could not be made, as against one that failed.
const NOT_CHECKED = 2;

function giveUp(why) {
  console.log(`${MODE}: the checks cannot go on: ${why}`);
  process.exit(NOT_CHECKED);
}

// The commands of a browser that dies may never be answered.
async function bounded(what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} took longer than ${CHECK_MS / 1000} s`)), CHECK_MS);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

const browser = await bounded('starting the browser', chromium.launch({
  executablePath: CHROMIUM,
  timeout: CHECK_MS,
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync'],
})).catch((error) => giveUp(error.message));
let closing = false;
browser.on('disconnected', () => { if (!closing) giveUp('the browser died'); });

// Runs `use` with a page that notes everything a page must not do.
async function withPage(options, use) {
  const context = await browser.newContext({ viewport: WIDE, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  page.on('crash', () => giveUp(`the browser's process of ${page.url()} died`));
  const faults = [];
  page.on('pageerror', (error) => faults.push(`error: ${error.message}`));
  page.on('console', (message) => {
    // The browser says this of every page whose status is 404, also where that is what is checked.
    const ofStatus = message.text().startsWith('Failed to load resource') && message.location().url === page.url();
    if (message.type() === 'error' && !ofStatus) faults.push(`console: ${message.text()}`);
  });
  page.on('dialog', (dialog) => { faults.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
  page.on('request', (request) => {
    const { origin, protocol } = new URL(request.url());
    if (![API, TRACES].includes(origin) && protocol !== 'data:') faults.push(`request to ${request.url()}`);
  });
  try {
    await use(page, context);
    assert.deepEqual(faults, []);
  } finally {
    await context.close();
  }
}

async function accessible(page) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run(document, {
    runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'],
  }));
  const words = violations.map((v) => `${v.id}: ${v.nodes.slice(0, 3).map((n) => n.target.join(' ')).join(' | ')}`);
  assert.deepEqual(words, []);
}

async function fits(page) {
  const { wanted, given } = await page.evaluate(() => ({
    wanted: document.documentElement.scrollWidth, given: document.documentElement.clientWidth,
  }));
  assert.ok(wanted <= given, `the page is ${wanted} px wide on a screen of ${given} px`);
}

const first = async (page, url, selector) => {
  await page.goto(url);
  return page.locator(selector).first().getAttribute('href');
};

// Every page there is, found the way a reader finds it.
async function places() {
  const found = {
    overview: `${API}/`, invocations: `${API}/ui/invocations`, workers: `${API}/ui/workers`, query: `${API}/ui/query`, traces: `${TRACES}/`,
    lost: `${API}/ui/nothing`,
  };
  if (MODE === 'empty') return found;
  await withPage({}, async (page) => {
    found.function = `${API}/ui/functions/chain-front`;
    found.filtered = `${API}/ui/invocations?outcome=failed&since=1h`;
    found.wrong = `${API}/ui/invocations?min=fast`;
    found.misread = `${API}/ui/query?q=outcme`;
    const call = (query) => first(page, `${API}/ui/invocations?${query}`, 'table .row-link');
    found.invocation = API + await call('function=chain-front');
    found.failed = API + await call('function=flaky&outcome=failed');
    found.hostile = API + await call('function=hostile');
    found.trace = TRACES + await first(page, `${TRACES}/?function=chain-front`, 'table .row-link');
    found.hostileTrace = TRACES + await first(page, `${TRACES}/?function=hostile`, 'table .row-link');
    found.lostTrace = `${TRACES}/trace/${'0'.repeat(31)}1`;
  });
  return found;
}

const checks = [];
const check = (name, use, modes = ['full']) => { if (modes.includes(MODE)) checks.push({ name, use }); };
const all = await bounded('looking for the pages', places()).catch((error) => giveUp(error.message));

for (const [name, url] of Object.entries(all)) {
  for (const [scheme, viewport] of [['light', WIDE], ['light', NARROW], ['dark', WIDE]]) {
      check(`${name}, ${scheme}, ${viewport.width} px: loads cleanly, is accessible, fits`, () =>
        withPage({ colorScheme: scheme, viewport }, async (page) => {
          const answer = await page.goto(url);
          assert.equal(answer.status(), name.startsWith('lost') ? 404 : 200);
          assert.match(answer.headers()['content-security-policy'], /default-src 'none'/);
          await page.screenshot({ path: join(SCREENS, `${MODE}-${name}-${scheme}-${viewport.width}.png`), fullPage: true });
          await fits(page);
          for (const details of await page.locator('main details').all()) {
            await details.evaluate((element) => { element.open = true; });
          }
          await fits(page);
          await accessible(page);
          assert.equal(await page.evaluate(() => window.hit), undefined, 'what a function wrote was run');
        }), ['full', 'empty']);
  }
}

check('an empty platform says what to do next, in lines that can be copied', () => withPage({}, async (page) => {
  await page.goto(all.overview);
  assert.match(await page.locator('main').innerText(), /functionsplatform deploy/);
  assert.match(await page.locator('main').innerText(), /curl -X POST/);
}), ['empty']);

check('without JavaScript: filter, open a call, open its trace, expand a span', () =>
  withPage({ javaScriptEnabled: false }, async (page) => {
    await page.goto(all.overview);
    assert.equal(await page.locator('.tools').isVisible(), false, 'buttons that need the script are hidden');
    assert.equal(await page.locator('[data-copy]:visible').count(), 0);
    await page.getByRole('link', { name: 'Invocations', exact: true }).click();
    await page.getByRole('combobox', { name: 'Function' }).fill('chain-front');
    await page.getByRole('combobox', { name: 'Outcome' }).selectOption('ok');
    await page.getByRole('button', { name: 'Filter' }).click();
    const functions = await page.locator('td.name').allInnerTexts();
    assert.ok(functions.length > 0 && functions.every((name) => name === 'chain-front'), functions.join());
    await page.locator('.row-link').first().click();
    await page.getByRole('heading', { name: 'Where the time went' }).waitFor();
    await page.getByRole('link', { name: 'Whole trace' }).click();
    await page.getByText('chain-back').first().waitFor();
    const root = page.locator('.span-row').first();
    await root.locator('summary').click();
    await root.getByText('faas.invocation_id').waitFor();
  }));

check('a trace nests the called function under the span that called it', () => withPage({}, async (page) => {
  await page.goto(all.trace);
  const rows = await page.locator('.span-row').evaluateAll((rows) => rows.map((row) => ({
    depth: Number([...row.classList].find((name) => /^d\d+$/.test(name)).slice(1)),
    name: row.querySelector('.span-word').textContent,
  })));
  const depth = (name) => rows.find((row) => row.name.includes(name)).depth;
  assert.ok(depth('/chain-back') > depth('/chain/'), JSON.stringify(rows));
  assert.ok(rows.some((row) => row.name === 'run') && rows.some((row) => row.name === 'route'));
}));

check('the search for traces filters by function, outcome and duration', () => withPage({}, async (page) => {
  await page.goto(`${TRACES}/?function=flaky&outcome=failed`);
  assert.ok(await page.locator('table .row-link').count() > 0);
  assert.equal(await page.locator('table .badge.good').count(), 0);
  await page.goto(`${TRACES}/?function=hello&min=1h`);
  await page.getByText('Nothing matches').waitFor();
  await page.goto(`${TRACES}/?min=fast`);
  await page.getByRole('alert').waitFor();
}));

check('the keyboard alone: skip link, shortcuts, rows, theme that is remembered', () => withPage({}, async (page) => {
  await page.goto(all.overview);
  await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Skip to the content');
  await page.keyboard.press('Enter');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'main');
  await page.keyboard.press('?');
  await page.getByRole('dialog').waitFor();
  await accessible(page);
  await page.keyboard.press('Escape');
  assert.equal(await page.getByRole('dialog').isVisible(), false);
  await page.keyboard.press('/');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'q');
  await page.keyboard.press('Escape');
  await page.evaluate(() => document.activeElement.blur());
  await page.keyboard.press('t');
  assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), 'light');
  await page.keyboard.press('t');
  await page.reload();
  assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), 'dark');
  await page.keyboard.press('g');
  await page.keyboard.press('i');
  await page.waitForURL('**/ui/invocations');
  await page.keyboard.press('l');
  await page.keyboard.press('j');
  await page.keyboard.press('j');
  const href = await page.evaluate(() => document.activeElement.getAttribute('href'));
  await page.keyboard.press('Enter');
  await page.waitForURL(`**${href}`);
  await page.goto(all.trace);
  await page.keyboard.press('e');
  assert.equal(await page.locator('.span-row:not([open])').count(), 0);
}));

check('single-key shortcuts can be turned off', () => withPage({}, async (page) => {
  await page.goto(all.overview);
  await page.keyboard.press('?');
  await page.getByLabel('Single-key shortcuts are on').uncheck();
  await page.keyboard.press('Escape');
  await page.reload();
  await page.keyboard.press('t');
  assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), undefined);
}));

check('pages show a new call by themselves, and keep what the reader has opened', () => withPage({}, async (page) => {
  await page.goto(`${API}/`);
  const newest = () => document.querySelector('[data-live="recent"] .row-link').getAttribute('href');
  const before = await page.evaluate(newest);
  await fetch(`${GATEWAY}/hello`);
  await page.waitForFunction((old) => document.querySelector('[data-live="recent"] .row-link').getAttribute('href') !== old, before);
  await page.goto(`${API}/ui/functions/hello`);
  const foot = await page.locator('.foot').innerText();
  await page.locator('#chart-data summary').click();
  await fetch(`${GATEWAY}/hello`);
  await page.waitForFunction((old) => document.querySelector('.foot').innerText !== old, foot);
  assert.equal(await page.locator('#chart-data').getAttribute('open'), '');
}));

check('copying gives the line as it is', () => withPage({ permissions: ['clipboard-read', 'clipboard-write'] }, async (page) => {
  await page.goto(`${API}/ui/functions/hello`);
  await page.getByRole('button', { name: 'Copy: call this function' }).click();
  await page.getByText('Copied').first().waitFor();
  const line = await page.evaluate(() => navigator.clipboard.readText());
  assert.equal(line, `curl -i '${GATEWAY}/hello'`);
}));

check('what a function and its caller wrote is shown as text', () => withPage({}, async (page) => {
  await page.goto(all.hostile);
  const text = await page.locator('main').innerText();
  assert.ok(text.includes('<script>window.hit=1</script>'), 'the log line is there');
  assert.equal(await page.evaluate(() => window.hit), undefined);
}));

let failed = 0;
for (const { name, use } of checks) {
  try {
    await bounded('the check', use());
    console.log(`ok    ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAIL  ${name}\n      ${String(error.message).split('\n').slice(0, 12).join('\n      ')}`);
  }
}
closing = true;
await bounded('closing the browser', browser.close()).catch((error) => console.log(error.message));
console.log(`${MODE}: ${checks.length - failed} of ${checks.length} checks passed; screenshots in ${SCREENS}`);
process.exit(failed === 0 ? 0 : 1);
