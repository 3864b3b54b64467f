// SPDX-License-Identifier: MIT
// Orphans, troubles, the three stations and the account.

const FEW_TROUBLES = 10;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/* --- orphans, troubles ------------------------------------------------------------------------------------------ */

/* As promptd itself does it: without its row in promptd_unsettled the prompt is settled, and nothing is deleted. */
const cleanUp = (interview, prompt) =>
  `with unsettled as materialized (
  select prompt_id from promptd_unsettled
   where prompt_id = '${prompt}'
   for update skip locked
), prompt as (
  delete from interview_enhanced_prompts
   where id = (select prompt_id from unsettled)
  returning id
)
delete from promptd_unsettled
 where prompt_id = (select id from prompt);
update interviews set status = 'failed'
 where id = '${interview}'
   and status in ('pending', 'not_started', 'enhancing',
        'vector_search', 'web_scraping', 'processing');`;

function makeOrphan({interview_id: interview, prompt_id: prompt}) {
  const ids = make(
    'dl',
    {class: 'ids'},
    make('dt', null, 'Since'),
    make('dd', {class: 'age'}),
    make('dt', null, 'Interview'),
    make('dd', {class: 'id'}, interview),
    make('dt', null, 'Prompt'),
    make('dd', {class: 'id'}, prompt)
  );
  const item = make('li', null, ids);
  if (UUID.test(interview) && UUID.test(prompt))
    item.append(
      make(
        'div',
        null,
        make('p', {class: 'muted'}, 'Just this one, as the owner of the tables:'),
        fillCommand(make('div', {class: 'command'}), cleanUp(interview, prompt), 'the SQL for prompt ' + prompt)
      )
    );
  return item;
}

/* Rebuilt only when other ones are in it, so that neither a selection nor the keyboard's place is lost. */
function keep(list, entries, key, build) {
  const wanted = entries.map(key),
    old = new Map([...list.children].map((node) => [node.dataset.key, node]));
  if (wanted.join('\n') === [...old.keys()].join('\n')) return;
  const nodes = entries.map((entry, i) => {
    const node = old.get(wanted[i]) || build(entry);
    node.dataset.key = wanted[i];
    return node;
  });
  for (const [itsKey, node] of old) if (!wanted.includes(itsKey)) node.remove();
  nodes.forEach((node, i) => {
    if (list.children[i] !== node) list.insertBefore(node, list.children[i] || null);
  });
}

function showAges(list, entries, time, now) {
  entries.forEach((entry, i) =>
    say(list.children[i].querySelector('.age'), clock(time(entry), now) + '\n' + ago(secondsBetween(time(entry), now)))
  );
}

function renderOrphans(status) {
  const {orphans, timestamp} = status;
  $('orphans').hidden = !orphans.length;
  say($('orphan-count'), orphans.length >= 100 ? 'the first 100' : '');
  keep($('orphan-list'), orphans, (each) => each.prompt_id, makeOrphan);
  showAges($('orphan-list'), orphans, (each) => each.since, timestamp);
}

const TONES = {orphaned: 'bad', 'not stored': 'bad', dropped: 'bad', 'rolled back': 'warn', rejected: 'warn'};
let showAll = false;

function makeTrouble(each) {
  const what = make(
    'div',
    {class: 'what'},
    make('p', null, each.reason + (each.sqlstate ? ' (SQLSTATE ' + each.sqlstate + ')' : ''))
  );
  for (const [label, id] of [
    ['interview', each.interview_id],
    ['prompt', each.prompt_id]
  ])
    if (id) what.append(make('p', {class: 'id'}, label + ' ', make('span', {class: 'whole'}, id)));
  return make(
    'li',
    null,
    make('time', {class: 'muted age', datetime: each.time}),
    make('span', {class: 'badge tone', 'data-level': TONES[each.outcome] || 'warn'}, each.outcome),
    what
  );
}

function renderTroubles(status) {
  const {troubles, timestamp} = status,
    shown = showAll ? troubles : troubles.slice(0, FEW_TROUBLES);
  const seenTwice = new Map(); // two may have all in common
  const key = (each) => {
    const base = [each.time, each.outcome, each.interview_id, each.prompt_id, each.reason].join(' ');
    seenTwice.set(base, (seenTwice.get(base) || 0) + 1);
    return base + ' ' + seenTwice.get(base);
  };
  keep($('trouble-list'), shown, key, makeTrouble);
  showAges($('trouble-list'), shown, (each) => each.time, timestamp);
  $('no-troubles').hidden = troubles.length > 0;
  say($('no-troubles'), 'Nothing, since promptd was started ' + span(status.uptime_seconds) + ' ago.');
  say($('trouble-count'), troubles.length >= 100 ? 'the last 100' : '');
  $('all-troubles').hidden = troubles.length <= FEW_TROUBLES;
  say($('all-troubles'), showAll ? 'Show fewer' : 'Show all ' + troubles.length);
  mark($('all-troubles'), 'aria-expanded', showAll);
}

/* --- the stations ----------------------------------------------------------------------------------------------- */

function state(id, level, text) {
  const node = $(id + '-state');
  mark(node, 'data-level', level);
  if (!node.children.length) node.append(make('span', {class: 'dot', 'aria-hidden': 'true'}), make('span'));
  say(node.lastChild, text);
}

const agoOrNever = (time, now) => (time ? ago(secondsBetween(time, now)) : 'not yet');

function renderRedis({redis, counters, timestamp}) {
  const queued = 'backlog' in redis;
  if (redis.connected) state('redis', 'ok', queued ? 'takes messages' : 'subscribed');
  else state('redis', 'bad', redis.circuit_open ? 'circuit open' : queued ? 'takes none' : 'not subscribed');
  facts($('redis-facts'), [
    ['Server', redis.server],
    [queued ? 'Key' : 'Channel', redis.channel],
    ...(queued
      ? [
          ['Mode', redis.mode],
          ['Backlog', number(redis.backlog)],
          ['Pending, of all', number(redis.pending)],
          ['Consumers', number(redis.consumers)],
          ['Dead letters', number(redis.dead_letters)]
        ]
      : []),
    ['Last message', agoOrNever(redis.last_message_received, timestamp)],
    ['Last sign of life', agoOrNever(redis.last_health_check, timestamp)],
    ...(queued ? [] : [['Gaps', redis.gaps ? number(redis.gaps) + ', ' + span(redis.gap_seconds) + ' in all' : 'none']]),
    ['Reconnections', number(counters.redis_reconnections)]
  ]);
}

function renderQueue({redis, queue, spool, counters}) {
  const level = queueTaken(queue) >= NEARLY_FULL || (spool && spoolTaken(spool) >= NEARLY_FULL) ? 'warn' : 'ok';
  state('queue', level, counters.waiting ? count(counters.waiting, 'message') : 'nothing');
  const rows = [['In memory', number(queue.messages) + ', ' + bytes(queue.bytes), queueTaken(queue)]];
  if (spool)
    rows.push(
      ['In the spool', number(spool.messages) + ', ' + bytes(spool.bytes), spoolTaken(spool)],
      ['Dead letters', number(spool.dead_letters)],
      ['Spool', spool.directory]
    );
  else if (!('backlog' in redis)) rows.push(['Spool', 'none; a crash loses what waits']);
  facts($('queue-facts'), rows);
}

function renderDatabase({database, atomicity, counters}) {
  if (database.up) state('database', 'ok', 'answers');
  else state('database', 'bad', database.circuit_open ? 'circuit open' : 'does not answer');
  facts($('database-facts'), [
    ['Connections', database.connections + ' of ' + database.connections_wanted],
    ['Atomicity', atomicity],
    ['Prompts stored', number(counters.success)],
    ['Reconnections', number(counters.database_reconnections)],
    ['Attempts made again', number(counters.retries)]
  ]);
}

function renderPipes({redis, database, history}) {
  const last = history.points.slice(-2);
  mark($('pipe-in'), 'data-flow', !redis.connected ? 'cut' : sum(last, (each) => each.received) ? 'on' : 'idle');
  mark($('pipe-out'), 'data-flow', !database.up ? 'cut' : sum(last, (each) => each.stored) ? 'on' : 'idle');
}

/* --- the account ------------------------------------------------------------------------------------------------ */

const FATES = [
  ['success', 'stored'],
  ['duplicate', 'duplicate'],
  ['failure', 'failure'],
  ['rejected', 'rejected'],
  ['dropped', 'dropped'],
  ['waiting', 'waiting']
];
const FATE_NAMES = {failure: 'failed'};

function renderAccount(status) {
  const {counters} = status;
  if (!$('sums').children.length) {
    const entry = (kind, label) => make('div', {class: kind}, make('dt', null, label), make('dd'));
    $('sums').append(
      entry('all', 'received'),
      ...FATES.map(([, kind]) => entry('k-' + kind, FATE_NAMES[kind] || kind))
    );
    $('bar').append(...FATES.map(([, kind]) => make('i', {class: 'k-' + kind})));
  }
  const values = $('sums').querySelectorAll('dd');
  say(values[0], number(counters.received));
  FATES.forEach(([key], i) => {
    say(values[i + 1], number(counters[key]));
    $('bar').children[i].hidden = !counters[key];
    $('bar').children[i].style.flexGrow = counters[key];
  });
  say(
    $('account-title'),
    sum(FATES, ([key]) => counters[key]) === counters.received ? 'Every message accounted for' : 'Messages'
  );
  say($('account-since'), 'since ' + clock(status.started_at, status.timestamp));
  const reasons = Object.entries(counters.rejected_by)
    .filter(([, n]) => n)
    .map(([name, n]) => name + ' ' + number(n));
  const fine = [];
  if (counters.failure)
    fine.push(
      'Of those failed ' +
        number(counters.rollback) +
        ' were rolled back and ' +
        number(counters.orphaned) +
        ' orphaned.'
    );
  if (reasons.length) fine.push('Rejected: ' + reasons.join(', ') + '.');
  say($('fine'), fine.join(' '));
  $('fine').hidden = !fine.length;
}
