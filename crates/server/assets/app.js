// The pages' only script. Every page works without it; it adds a theme that the reader chooses,
// refreshing, keyboard shortcuts, copying and local time. It loads no code and keeps nothing but
// three choices in localStorage.
'use strict';
(() => {
  const root = document.documentElement;
  const stored = {
    get(key) { try { return localStorage.getItem('fp-' + key); } catch { return null; } },
    set(key, value) { try { localStorage.setItem('fp-' + key, value); } catch { /* private mode */ } },
  };

  // Before the first paint: the script is loaded in the head, so that a chosen theme never flashes.
  const THEMES = ['auto', 'light', 'dark'];
  let theme = THEMES.includes(stored.get('theme')) ? stored.get('theme') : 'auto';
  const applyTheme = () => {
    if (theme === 'auto') delete root.dataset.theme; else root.dataset.theme = theme;
    for (const word of document.querySelectorAll('[data-theme-word]')) word.textContent = theme[0].toUpperCase() + theme.slice(1);
    for (const button of document.querySelectorAll('[data-theme-toggle]')) button.setAttribute('aria-label', 'Theme: ' + theme);
  };
  applyTheme();

  const say = (text) => {
    const place = document.querySelector('[data-announce]');
    if (place) place.textContent = text;
  };
  const nextTheme = () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    stored.set('theme', theme);
    applyTheme();
    say('Theme: ' + theme);
  };

  // Times: the server writes UTC, the title becomes local time, relative words keep moving.
  const local = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'long' });
  const relative = (seconds) => {
    if (seconds < 1.5) return 'just now';
    if (seconds < 90) return Math.floor(seconds) + ' s ago';
    if (seconds < 5400) return Math.round(seconds / 60) + ' min ago';
    if (seconds < 172800) return Math.round(seconds / 3600) + ' h ago';
    return Math.round(seconds / 86400) + ' d ago';
  };
  const moveTimes = () => {
    for (const element of document.querySelectorAll('time[data-relative]')) {
      const at = new Date(element.dateTime);
      if (Number.isNaN(at.valueOf())) continue;
      const word = relative((Date.now() - at) / 1000);
      if (element.textContent !== word) element.textContent = word;
      if (!element.dataset.local) {
        element.dataset.local = 'yes';
        element.title = local.format(at) + ' (' + element.title + ')';
      }
    }
  };

  const prepare = (scope) => {
    for (const button of scope.querySelectorAll('[data-copy], [data-expand-all]')) button.hidden = false;
    moveTimes();
  };

  const copy = async (button) => {
    const text = button.dataset.copy;
    let done = false;
    try { await navigator.clipboard.writeText(text); done = true; } catch {
      // Plain HTTP on a name other than localhost has no clipboard: select and copy the old way.
      const area = document.createElement('textarea');
      area.value = text;
      area.className = 'visually-hidden';
      document.body.append(area);
      area.select();
      done = document.execCommand('copy');
      area.remove();
      button.focus();
    }
    button.textContent = done ? 'Copied' : 'Not allowed';
    say(done ? 'Copied' : 'The browser did not allow copying');
    setTimeout(() => { button.textContent = 'Copy'; }, 1500);
  };

  const expandAll = () => {
    const rows = [...document.querySelectorAll('.fall details')];
    const open = rows.some((row) => !row.open);
    for (const row of rows) row.open = open;
    for (const button of document.querySelectorAll('[data-expand-all]')) button.textContent = open ? 'Fold all' : 'Expand all';
  };

  // Refreshing: the same page again, of which the marked regions that differ are replaced.
  const PERIOD_MS = 3000;
  let live = stored.get('live') !== 'off';
  let busy = false;
  const reading = (region) => {
    const chosen = getSelection();
    const selects = chosen && !chosen.isCollapsed && region.contains(chosen.anchorNode);
    return selects || region.contains(document.activeElement) || region.matches(':hover:has(title)') && region.querySelector('svg.plot:hover');
  };
  const refresh = async () => {
    if (busy || !live || document.hidden || document.querySelector('dialog[open]')) return;
    busy = true;
    try {
      const answer = await fetch(location.href, { headers: { accept: 'text/html' }, signal: AbortSignal.timeout(10000) });
      if (!answer.ok) throw new Error(String(answer.status));
      const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
      for (const fresh of page.querySelectorAll('[data-live]')) {
        const old = document.querySelector('[data-live="' + fresh.dataset.live + '"]');
        if (!old || old.dataset.was === fresh.innerHTML || reading(old)) continue;
        const open = new Set([...old.querySelectorAll('details[data-keep][open]')].map((row) => row.id));
        const was = fresh.innerHTML;
        old.replaceWith(fresh);
        fresh.dataset.was = was;
        for (const row of fresh.querySelectorAll('details[data-keep]')) row.open = open.has(row.id);
        prepare(fresh);
      }
      const state = document.querySelector('[data-live-toggle]');
      const more = page.querySelector('[data-live-toggle]');
      if (state && !more) setLive(false, false);
      root.classList.remove('offline');
      showLive();
    } catch {
      root.classList.add('offline');
      showLive();
    } finally {
      busy = false;
    }
  };
  const showLive = () => {
    for (const button of document.querySelectorAll('[data-live-toggle]')) {
      button.setAttribute('aria-pressed', String(live));
      button.querySelector('.tool-word').textContent = root.classList.contains('offline') && live ? 'Offline' : live ? 'Live' : 'Paused';
    }
  };
  const setLive = (on, keep = true) => {
    live = on;
    if (keep) stored.set('live', on ? 'on' : 'off');
    showLive();
    if (on) refresh();
  };

  // Rows: j and k move between the links of a table, or the spans of a waterfall.
  const rows = () => [...document.querySelectorAll('[data-rows] .row-link, .fall summary')].filter((row) => row.offsetParent);
  const step = (by) => {
    const all = rows();
    if (!all.length) return;
    const at = all.indexOf(document.activeElement);
    const next = all[at < 0 ? (by > 0 ? 0 : all.length - 1) : Math.min(all.length - 1, Math.max(0, at + by))];
    next.focus();
    next.scrollIntoView({ block: 'nearest' });
  };

  const go = { o: 'Overview', i: 'Invocations', t: 'Traces', w: 'Workers' };
  let keys = stored.get('keys') !== 'off';
  let after = '';
  const onKey = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (event.target.closest('input, select, textarea, dialog[open]') || !keys) return;
    if (after === 'g') {
      after = '';
      const link = [...document.querySelectorAll('.top nav a')].find((item) => item.textContent.trim() === go[event.key]);
      if (link) { event.preventDefault(); link.click(); }
      return;
    }
    const act = {
      '/': () => { const field = document.querySelector('[data-search]'); if (field) { field.focus(); field.select(); } },
      j: () => step(1),
      k: () => step(-1),
      e: expandAll,
      l: () => { if (document.querySelector('[data-live-toggle]')) { setLive(!live); say(live ? 'Live' : 'Paused'); } },
      t: nextTheme,
      g: () => { after = 'g'; setTimeout(() => { after = ''; }, 1200); },
      '?': () => document.getElementById('help').showModal(),
    }[event.key];
    if (act) { event.preventDefault(); act(); }
  };

  document.addEventListener('DOMContentLoaded', () => {
    for (const tools of document.querySelectorAll('[data-script]')) tools.hidden = false;
    applyTheme();
    prepare(document);
    document.addEventListener('click', (event) => {
      const on = (selector) => event.target.closest(selector);
      if (on('[data-copy]')) copy(on('[data-copy]'));
      else if (on('[data-theme-toggle]')) nextTheme();
      else if (on('[data-live-toggle]')) setLive(!live);
      else if (on('[data-help]')) document.getElementById('help').showModal();
      else if (on('[data-close]')) on('dialog').close();
      else if (on('[data-expand-all]')) expandAll();
      else if (event.target.matches('dialog')) event.target.close();
    });
    const toggle = document.querySelector('[data-keys-toggle]');
    toggle.checked = keys;
    toggle.addEventListener('change', () => { keys = toggle.checked; stored.set('keys', keys ? 'on' : 'off'); });
    document.addEventListener('keydown', onKey);
    setInterval(moveTimes, 1000);
    if (document.querySelector('[data-live-toggle]')) {
      showLive();
      setInterval(refresh, PERIOD_MS);
      document.addEventListener('visibilitychange', refresh);
    }
    // A filter's empty fields make no address anybody wants to share.
    for (const form of document.querySelectorAll('form[method="get"]')) {
      form.addEventListener('submit', () => {
        for (const field of form.elements) if (field.name && !field.value) field.disabled = true;
        setTimeout(() => { for (const field of form.elements) field.disabled = false; }, 0);
      });
    }
  });
})();
