// SPDX-License-Identifier: MIT
// Is it well, and since when: the problems of a state, the worst first.

const WELL = 'All is well';
const A_MOMENT_S = 60; // to get ready after the start
const LATELY_S = 600; // a trouble younger than that colours the verdict
const NEARLY_FULL = 0.8; // of the room in memory or on disk

function whereMessagesWait(status) {
  const waiting = status.counters.waiting;
  if (!waiting) return 'Messages wait until it is back; none does yet.';
  const safe = status.spool && status.spool.writable ? 'on disk' : 'in memory';
  return count(waiting, 'message waits', 'messages wait') + ' ' + safe + ' until it is back.';
}

function redisProblem({redis}) {
  if (redis.circuit_open)
    return [
      'bad',
      'Redis is away',
      'Redis could not be reached ' +
        count(redis.failures, 'time') +
        ' in a row: the circuit is ' +
        'open, and promptd tries only now and then. What is published meanwhile is not received.'
    ];
  if (!redis.connected)
    return [
      'bad',
      'Redis is away',
      'There is no subscription to ' +
        redis.channel +
        ': what is published meanwhile is not received. ' +
        'promptd tries again by itself.'
    ];
  return null;
}

function databaseProblem(status) {
  const {database} = status;
  if (database.circuit_open)
    return [
      'bad',
      'PostgreSQL is away',
      'PostgreSQL could not be reached many times in a row: the circuit is open, and promptd tries ' +
        'only now and then. ' +
        whereMessagesWait(status)
    ];
  if (!database.up)
    return [
      'bad',
      'PostgreSQL is away',
      'PostgreSQL does not answer, or takes no writes. ' + whereMessagesWait(status)
    ];
  if (database.connections < database.connections_wanted)
    return [
      'warn',
      'PostgreSQL gives too few connections',
      'Only ' + database.connections + ' of ' + database.connections_wanted + ' connections to PostgreSQL are open.'
    ];
  return null;
}

/* The share of the bound that is reached first. */
const queueTaken = (queue) => Math.max(queue.messages / queue.max_messages, queue.bytes / queue.max_bytes);
const spoolTaken = (spool) => spool.bytes / spool.max_bytes;

function roomProblems({queue, spool}) {
  const found = [];
  if (spool && !spool.writable)
    found.push([
      'bad',
      'The spool cannot be written',
      'The disk refuses the spool in ' +
        spool.directory +
        ': messages are in memory only, and would not survive a crash.'
    ]);
  if (queueTaken(queue) >= NEARLY_FULL)
    found.push([
      'warn',
      'Memory fills up',
      'The room for messages in memory is nearly full; then the newest are dropped.'
    ]);
  if (spool && spoolTaken(spool) >= NEARLY_FULL)
    found.push(['warn', 'The spool fills up', 'The spool is nearly full; then the newest messages are dropped.']);
  if (spool && spool.dead_letters)
    found.push([
      'warn',
      count(spool.dead_letters, 'dead letter'),
      count(spool.dead_letters, 'dead letter waits', 'dead letters wait') +
        ' in the spool for a person: promptctl dead list'
    ]);
  return found;
}

/* Every problem as [level, title, sentence], the worst first. */
function problemsOf(status) {
  const found = [redisProblem(status), databaseProblem(status)];
  if (status.orphans.length)
    found.push([
      'bad',
      count(status.orphans.length, 'orphaned prompt needs', 'orphaned prompts need') + ' a person',
      count(status.orphans.length, 'prompt stands', 'prompts stand') +
        ' in the database without a ready interview: clean up as said below.'
    ]);
  found.push(...roomProblems(status));
  if (status.state === 'draining')
    found.push(['warn', 'promptd is stopping', 'It takes nothing new, and settles what it has.']);
  else if (!status.ready && !found.some((each) => each && each[0] === 'bad'))
    found.push(['bad', 'promptd is not ready', status.not_ready.join('; ')]);
  const lately = status.troubles.filter((each) => secondsBetween(each.time, status.timestamp) < LATELY_S).length;
  if (lately)
    found.push([
      'warn',
      'Well, but not every message was stored',
      count(lately, 'message') + (lately === 1 ? ' has' : ' have') + ' gone wrong in the last ten minutes.'
    ]);
  return found.filter(Boolean).sort((a, b) => (a[0] === 'bad' ? 0 : 1) - (b[0] === 'bad' ? 0 : 1));
}

function headline(problems) {
  if (!problems.length) return WELL;
  const away = problems.filter((each) => / is away$/.test(each[1]));
  return away.length === 2 ? 'Redis and PostgreSQL are away' : problems[0][1];
}

/* When began what the headline names? null: promptd does not say. (Its times sort as text.) */
function begunAt(status, title) {
  if (title === WELL) return [status.ready_since, ...status.troubles.map((each) => each.time)].sort().pop();
  if (!status.ready) return status.ready_since;
  return status.orphans.length ? status.orphans.map((each) => each.since).sort()[0] : null;
}

/* For the rest: since when this page has seen it, which has not always been looking. */
const seen = {title: '', since: null, whole: false};

function sinceLine(status, title) {
  if (seen.title !== title) Object.assign(seen, {title, since: status.timestamp, whole: seen.title !== ''});
  const began = begunAt(status, title);
  const running =
    'Running for ' + span(status.uptime_seconds) + ', since ' + clock(status.started_at, status.timestamp) + '.';
  if (title === WELL && secondsBetween(status.started_at, began) < A_MOMENT_S)
    return running.replace('.', ', and well ever since.');
  const since = began || seen.since;
  if (!began && !seen.whole)
    return 'Since before this page was opened at ' + clock(since, status.timestamp) + '. ' + running;
  return (
    'Since ' +
    clock(since, status.timestamp) +
    ', for ' +
    span(secondsBetween(since, status.timestamp)) +
    '. ' +
    running
  );
}

const COLOURS = {ok: '#17704a', warn: '#c98a1b', bad: '#d0392e', gone: '#d0392e'};

/* The tab tells, too: a dot in the colour of the verdict. */
function showIcon(level) {
  if ($('icon').dataset.level === level) return;
  $('icon').dataset.level = level;
  const canvas = make('canvas', {width: 32, height: 32});
  const pen = canvas.getContext('2d');
  pen.fillStyle = COLOURS[level];
  pen.arc(16, 16, 13, 0, 2 * Math.PI);
  pen.fill();
  $('icon').href = canvas.toDataURL();
}

function showVerdict(level, title, since) {
  mark($('verdict'), 'data-level', level);
  say($('title'), title);
  say($('since'), since);
  document.title = title + ' – promptd';
  showIcon(level);
}

function renderVerdict(status) {
  const problems = problemsOf(status);
  const title = headline(problems),
    level = problems.length ? problems[0][0] : 'ok';
  showVerdict(level, title, sinceLine(status, title));
  const list = $('problems');
  while (list.children.length > problems.length) list.lastChild.remove();
  problems.forEach(([itsLevel, , text], i) => {
    const item = list.children[i] || list.appendChild(make('li', {class: 'tone'}, make('span')));
    mark(item, 'data-level', itsLevel);
    say(item.firstChild, text);
  });
  const {redis, database} = status;
  $('circuit').hidden = !redis.circuit_open && !database.circuit_open;
  say(
    $('circuit-hint'),
    'for when ' +
      (!database.circuit_open ? 'Redis' : !redis.circuit_open ? 'PostgreSQL' : 'they') +
      (redis.circuit_open && database.circuit_open ? ' are' : ' is') +
      ' known to be back'
  );
  $('retry').hidden = true;
  $('more').hidden = !problems.length;
}

async function closeCircuit() {
  $('close-circuit').disabled = true;
  try {
    const answer = await fetch('admin/redis/reset-circuit-breaker', {
      method: 'POST',
      signal: AbortSignal.timeout(PATIENCE_MS)
    });
    say(
      $('said'),
      answer.ok ? 'The circuit is closed; promptd tries at once' : 'promptd refuses: HTTP ' + answer.status
    );
  } catch {
    say($('said'), 'promptd does not answer');
  }
  $('close-circuit').disabled = false;
  $('title').focus(); // the button goes when the circuit is closed; the keyboard must not be lost with it
  ask();
}
