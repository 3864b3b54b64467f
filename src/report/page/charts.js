// SPDX-License-Identifier: MIT
// The last ten minutes, drawn.

const WINDOW_MS = 600000; // what the charts show

function draw(tag, attributes, text) {
  const node = document.createElementNS($('rate-chart').namespaceURI, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

/* The next number whose half is round, too. */
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 6, 8, 10].find((step) => step * power >= value * 0.999) * power;
}

function pointsOf({history, timestamp}) {
  const now = Date.parse(timestamp);
  return history.points
    .map((each) => ({...each, x: 1 - (now - Date.parse(each.time)) / WINDOW_MS}))
    .filter((each) => each.x >= 0);
}

/* Runs of points without a hole, each as SVG path data; a single one is a dot. */
function lines(points, scale, value, exists, hole) {
  let path = '',
    last = null;
  for (const each of points) {
    if (!exists(each)) {
      last = null;
      continue;
    }
    const at = scale.x(each.x) + ' ' + scale.y(value(each));
    path += last && each.x - last.x < hole ? 'L' + at : 'M' + at + 'h.01';
    last = each;
  }
  return path;
}

/* Frame, grid and labels; layers(scale) gives the paths. */
function chart(svg, top, unit, layers) {
  const width = Math.max(200, svg.clientWidth),
    height = 150,
    above = 16,
    below = 20;
  const scale = {
    x: (x) => (x * width).toFixed(1),
    y: (y) => (height - below - (y / top) * (height - above - below)).toFixed(1),
    base: height - below
  };
  const grid = [0, 0.5, 1].map((share) =>
    draw('line', {class: 'grid', x1: 0, x2: width, y1: scale.y(top * share), y2: scale.y(top * share)})
  );
  const labels = [0.5, 1].map((share) => draw('text', {x: 0, y: scale.y(top * share) - 4}, unit(top * share)));
  for (const [anchor, x, text] of [
    ['start', 0, '10 min ago'],
    ['middle', width / 2, '5 min'],
    ['end', width, 'now']
  ])
    labels.push(draw('text', {x, y: height - 4, 'text-anchor': anchor}, text));
  mark(svg, 'viewBox', '0 0 ' + width + ' ' + height);
  svg.replaceChildren(...grid, ...layers(scale), ...labels);
}

const holeOf = (status) => (2.5 * status.history.interval_seconds * 1000) / WINDOW_MS;

/* Per second where that is at least one, else per minute. */
function rateUnit(points, interval) {
  const most = Math.max(0, ...points.map((each) => Math.max(each.received, each.stored, each.failed)));
  return most / interval >= 1
    ? {name: 'a second', short: '/s', factor: 1 / interval, most}
    : {name: 'a minute', short: '/min', factor: 60 / interval, most};
}

function shortNumber(value) {
  if (value >= 10000) return number(Math.round(value / 1000)) + 'k';
  return value >= 10 || value === Math.round(value) ? number(Math.round(value)) : value.toFixed(1);
}

function renderRate(status, points) {
  const interval = status.history.interval_seconds,
    unit = rateUnit(points, interval),
    always = () => true,
    hole = holeOf(status);
  chart(
    $('rate-chart'),
    roundUp(Math.max(1, unit.most * unit.factor)),
    (value) => shortNumber(value) + ' ' + unit.short,
    (scale) => {
      const stored = lines(points, scale, (each) => each.stored * unit.factor, always, hole);
      const bar = Math.max(2, scale.x((interval * 1000) / WINDOW_MS) - 1);
      const failed = points
        .filter((each) => each.failed)
        .map(
          (each) =>
            `M${scale.x(each.x) - bar} ${scale.base}` +
            `V${Math.min(scale.base - 3, scale.y(each.failed * unit.factor))}h${bar}V${scale.base}z`
        )
        .join('');
      const area = stored.replace(
        /M([\d.]+) ([\d.]+)h\.01([^M]*)/g,
        (run, x, y, rest) =>
          `M${x} ${scale.base}L${x} ${y}${rest}L${(rest.match(/L([\d.]+) [\d.]+$/) || [0, x])[1]} ${scale.base}z`
      );
      return [
        draw('path', {class: 'received', d: lines(points, scale, (each) => each.received * unit.factor, always, hole)}),
        draw('path', {class: 'stored-area', d: area}),
        draw('path', {class: 'stored', d: stored}),
        draw('path', {class: 'failed', d: failed})
      ];
    }
  );
  const lastMinute = points.filter((each) => each.x > 1 - 60000 / WINDOW_MS - 0.001);
  const received = sum(lastMinute, (each) => each.received);
  say(
    $('rate'),
    unit.short === '/s' ? shortNumber(received / Math.max(interval, lastMinute.length * interval)) : number(received)
  );
  say($('rate-unit'), unit.short === '/s' ? 'a second, in the last minute' : 'in the last minute');
  mark(
    $('rate-chart'),
    'aria-label',
    'Messages in the last ten minutes: ' +
      number(sum(points, (each) => each.received)) +
      ' received, ' +
      number(sum(points, (each) => each.stored)) +
      ' stored, ' +
      number(sum(points, (each) => each.failed)) +
      ' failed; at most ' +
      shortNumber(unit.most * unit.factor) +
      ' ' +
      unit.name
  );
  hover($('rate-chart'), $('rate-legend'), points, (each) => [
    'stored ' + shortNumber(each.stored * unit.factor) + ' ' + unit.short,
    'received ' + shortNumber(each.received * unit.factor) + ' ' + unit.short,
    'failed ' + shortNumber(each.failed * unit.factor) + ' ' + unit.short
  ]);
}

function renderLatency(status, points) {
  const exists = (each) => each.p99_ms > 0,
    measured = points.filter(exists),
    hole = holeOf(status);
  const most = Math.max(0, ...measured.map((each) => each.p99_ms));
  chart($('latency-chart'), roundUp(Math.max(1, most)), milliseconds, (scale) =>
    ['p99', 'p50'].map((name) =>
      draw('path', {class: name, d: lines(points, scale, (each) => each[name + '_ms'], exists, hole)})
    )
  );
  const last = measured.filter((each) => each.x > 1 - 60000 / WINDOW_MS - 0.001),
    weight = sum(last, (each) => each.stored + each.failed || 1);
  say(
    $('latency'),
    last.length ? milliseconds(sum(last, (each) => each.p50_ms * (each.stored + each.failed || 1)) / weight) : '–'
  );
  say(
    $('latency-unit'),
    last.length
      ? 'typically, ' + milliseconds(Math.max(...last.map((each) => each.p99_ms))) + ' at worst, in the last minute'
      : 'no message in the last minute'
  );
  mark(
    $('latency-chart'),
    'aria-label',
    'Time from arrival to outcome in the last ten minutes: ' +
      (measured.length ? 'at worst ' + milliseconds(most) + ' for the slowest of a hundred' : 'no message')
  );
  hover($('latency-chart'), $('latency-legend'), points, (each) =>
    exists(each)
      ? ['p50 ' + milliseconds(each.p50_ms), 'p99 ' + milliseconds(each.p99_ms)]
      : ['no message', 'no message']
  );
}

/* For a pointer: the values at its place stand in the legend. (Who has none finds them in the table.) */
function hover(svg, legend, points, values) {
  const keys = [...legend.children];
  keys.forEach((key) => {
    key.dataset.text = key.dataset.text || key.textContent;
  });
  const leave = () => {
    svg.querySelector('.cursor')?.remove();
    keys.forEach((key) => say(key, key.dataset.text));
  };
  const show = (at) => {
    if (!points.length) return;
    const nearest = points.reduce((best, each) => (Math.abs(each.x - at) < Math.abs(best.x - at) ? each : best));
    const x = (nearest.x * svg.viewBox.baseVal.width).toFixed(1);
    svg.querySelector('.cursor')?.remove();
    svg.append(draw('line', {class: 'cursor', x1: x, x2: x, y1: 8, y2: 130}));
    values(nearest).forEach((text, i) => say(keys[i], text + (i ? '' : ' at ' + clock(nearest.time))));
  };
  svg.onpointermove = (event) => {
    svg.place = event.offsetX / svg.clientWidth;
    show(svg.place);
  };
  svg.onpointerleave = () => {
    delete svg.place;
    leave();
  };
  if (svg.place !== undefined) show(svg.place);
}

function renderMinutes(status, points) {
  const minutes = new Map();
  for (const each of points) {
    const name = each.time.slice(11, 16),
      row = minutes.get(name) || {received: 0, stored: 0, failed: 0, p99_ms: 0};
    for (const key of ['received', 'stored', 'failed']) row[key] += each[key];
    row.p99_ms = Math.max(row.p99_ms, each.p99_ms);
    minutes.set(name, row);
  }
  $('minutes').replaceChildren(
    ...[...minutes]
      .reverse()
      .map(([name, row]) =>
        make(
          'tr',
          null,
          make('th', {scope: 'row'}, name),
          ...[row.received, row.stored, row.failed].map((value) => make('td', null, number(value))),
          make('td', null, row.p99_ms ? milliseconds(row.p99_ms) : '–')
        )
      )
  );
}

function renderCharts(status) {
  const points = pointsOf(status);
  renderRate(status, points);
  renderLatency(status, points);
  renderMinutes(status, points);
}
