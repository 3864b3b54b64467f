// SPDX-License-Identifier: MIT
// Asking for the state every two seconds, drawing it, and saying so when nobody answers.

const POLL_MS = 2000,
  POLL_MAX_MS = 30000,
  PATIENCE_MS = 5000;

let status = null,
  silentSince = null,
  failures = 0,
  timer = null,
  asking = null,
  nextAt = 0;

function render() {
  renderVerdict(status);
  renderOrphans(status);
  renderRedis(status);
  renderQueue(status);
  renderDatabase(status);
  renderPipes(status);
  renderCharts(status);
  renderTroubles(status);
  renderAccount(status);
  document.body.classList.remove('gone');
  say($('version'), status.version + ', pid ' + status.pid);
  say($('updated'), 'live, as of ' + clock(status.timestamp));
}

/* Once for a silence; the countdown goes on by itself. */
function renderSilence(why) {
  const since = clock(silentSince);
  showVerdict(
    'gone',
    why + ' since ' + since,
    status ? 'What stands below is what it said at ' + since + '.' : 'It has not answered this page yet.'
  );
  seen.title = '-';
  document.body.classList.add('gone');
  $('problems').replaceChildren();
  $('circuit').hidden = true;
  $('retry').hidden = $('more').hidden = false;
  say($('updated'), status ? 'last heard of at ' + since : '');
}

function countDown() {
  if (failures && asking === null) say($('next'), 'asking again in ' + span((nextAt - Date.now()) / 1000));
  else if (failures) say($('next'), 'asking …');
}

function plan(delay) {
  clearTimeout(timer);
  nextAt = Date.now() + delay;
  if (!document.hidden) timer = setTimeout(ask, delay);
  countDown();
}

async function hear(controller) {
  const answer = await fetch('status', {cache: 'no-store', signal: controller.signal});
  if (!answer.ok) throw new Error('promptd answers only HTTP ' + answer.status);
  const news = await answer.json();
  status = news;
  try {
    render();
  } catch (error) {
    console.error(error);
    throw new Error('This page does not understand promptd’s answer');
  }
}

async function ask() {
  asking?.abort();
  const controller = (asking = new AbortController());
  const limit = setTimeout(() => controller.abort(), PATIENCE_MS);
  countDown();
  let trouble = null;
  try {
    await hear(controller);
  } catch (error) {
    trouble = error;
  }
  clearTimeout(limit);
  if (asking !== controller) return; // a newer question is under way
  asking = null;
  if (trouble) {
    failures++;
    silentSince = silentSince || (status ? status.timestamp : new Date().toISOString());
    renderSilence(/^(promptd|This page) /.test(trouble.message) ? trouble.message + ',' : 'promptd does not answer');
  } else {
    failures = 0;
    silentSince = null;
  }
  plan(failures ? Math.min(POLL_MAX_MS, POLL_MS * 2 ** (failures - 1)) : POLL_MS);
}

fillCommand($('clean-all'), 'promptctl orphans --delete', 'the command that deletes them all');
$('title').tabIndex = -1;
$('close-circuit').addEventListener('click', closeCircuit);
$('ask-now').addEventListener('click', ask);
$('all-troubles').addEventListener('click', () => {
  showAll = !showAll;
  renderTroubles(status);
});
document.addEventListener('visibilitychange', () => {
  if (document.hidden) clearTimeout(timer);
  else ask();
});
new ResizeObserver(() => {
  if (status) renderCharts(status);
}).observe($('rate-chart').parentNode);
setInterval(countDown, 1000);
ask();
