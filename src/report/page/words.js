// SPDX-License-Identifier: MIT
// Numbers, times and nodes: what the other parts of the page's script are written with.

const $ = (id) => document.getElementById(id);

/* make('p', {class: 'muted'}, 'text', node …) */
function make(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/* Only what changed is written: a screen reader says nothing twice, a selection stays. */
function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function mark(node, name, value) {
  if (value === undefined || value === null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

const number = (value) => Number(value).toLocaleString('en-US');
const count = (n, one, many) => number(n) + ' ' + (n === 1 ? one : many || one + 's');
const sum = (list, pick) => list.reduce((total, each) => total + pick(each), 0);

function bytes(n) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  for (; n >= 1024 && unit < units.length - 1; unit++) n /= 1024;
  return (n < 10 && unit > 0 ? n.toFixed(1) : Math.round(n)) + ' ' + units[unit];
}

function span(seconds) {
  const s = Math.max(0, Math.round(seconds)),
    m = Math.floor(s / 60),
    h = Math.floor(m / 60);
  if (s < 60) return s + ' s';
  if (m < 60) return m + ' min';
  return h < 48 ? h + ' h ' + (m % 60) + ' min' : Math.floor(h / 24) + ' d ' + (h % 24) + ' h';
}

/* How long ago, in one unit. */
function ago(seconds) {
  const s = Math.max(0, Math.round(seconds)),
    m = Math.floor(s / 60),
    h = Math.floor(m / 60);
  return (s < 60 ? s + ' s' : m < 60 ? m + ' min' : h < 48 ? h + ' h' : Math.floor(h / 24) + ' d') + ' ago';
}

function milliseconds(ms) {
  if (ms < 10) return ms.toFixed(1) + ' ms';
  return ms < 1000 ? Math.round(ms) + ' ms' : (ms / 1000).toFixed(ms < 10000 ? 1 : 0) + ' s';
}

/* As in the log: UTC. Another day is named. */
function clock(time, now) {
  const text = new Date(time).toISOString();
  const day = now && new Date(now).toISOString().slice(0, 10) !== text.slice(0, 10) ? text.slice(0, 10) + ' ' : '';
  return day + text.slice(11, 19);
}

const secondsBetween = (from, to) => (Date.parse(to) - Date.parse(from)) / 1000;

/* A list of [label, value, share of a limit]; its nodes stay while its labels do. */
function facts(list, rows) {
  const labels = rows.map((row) => row[0] + (row[2] === undefined ? '' : '|')).join('\n');
  if (list.dataset.labels !== labels) {
    list.dataset.labels = labels;
    list.replaceChildren(
      ...rows.flatMap(([label, , share]) => [
        make('dt', null, label),
        make('dd'),
        ...(share === undefined ? [] : [make('div', {class: 'meter', 'aria-hidden': 'true'}, make('i'))])
      ])
    );
  }
  const values = list.querySelectorAll('dd'),
    meters = list.querySelectorAll('.meter i');
  let meter = 0;
  rows.forEach(([, value, share], i) => {
    say(values[i], value);
    if (share !== undefined) {
      meters[meter].style.width = Math.min(100, 100 * share) + '%';
      mark(meters[meter++].parentNode, 'data-level', share >= NEARLY_FULL ? 'warn' : 'ok');
    }
  });
}

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // not by https and not from this machine
    const area = make('textarea', {class: 'unseen', readonly: ''});
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand('copy');
    area.remove();
    button.focus();
    if (!done) return say($('said'), 'The browser does not allow copying');
  }
  button.textContent = 'Copied';
  say($('said'), 'Copied');
  setTimeout(() => {
    button.textContent = 'Copy';
    say($('said'), '');
  }, 2000);
}

/* A command with a button that copies it. */
function fillCommand(box, text, what) {
  const button = make('button', {type: 'button', 'aria-label': 'Copy ' + what}, 'Copy');
  button.addEventListener('click', () => copy(text, button));
  box.replaceChildren(make('pre', null, text), button);
  return box;
}
