// Plots in SVG. Colours are classes (c0 … c7, in style.css), so that they follow light and dark.

const COLOURS = 8;
const PLOT = { width: 400, height: 236, left: 46, right: 12, top: 12, bottom: 38 };

/**
 * Return a figure of lines.
 *
 * series: [{name, colour, isFaint, points: [[x, y], …] by rising x}]. A pointer, or the arrow keys
 * when it has the focus, reads values out.
 */
function linePlot(title, series, { xLabel, decimals = 3 }) {
  const shown = series.filter((one) => one.points.length > 0);
  const xs = shown.flatMap((one) => one.points.map(([x]) => x));
  const ys = shown.flatMap((one) => one.points.map(([, y]) => y));
  const x = axis(Math.min(0, ...xs), Math.max(...xs), PLOT.left, PLOT.width - PLOT.right);
  const low = Math.min(...ys);
  const isLog = low > 0 && Math.max(...ys) > 30 * low;
  const y = axis(low, Math.max(...ys), PLOT.height - PLOT.bottom, PLOT.top, isLog);
  const lines = shown.map((one) => s('g', { class: `c${one.colour % COLOURS}${one.isFaint ? ' faint' : ''}` },
    s('path', { class: 'line', d: one.points.map(([a, b], i) => `${i ? 'L' : 'M'}${x.at(a).toFixed(1)} ${y.at(b).toFixed(1)}`).join('') }),
    one.isFaint || one.points.length > 60 ? null
      : one.points.map(([a, b]) => s('circle', { cx: x.at(a), cy: y.at(b), r: 2.2 }))));
  const rule = s('line', { class: 'rule', y1: PLOT.top, y2: PLOT.height - PLOT.bottom, visibility: 'hidden' });
  const drawing = frame(x, y, xLabel, [...lines, rule]);
  const stops = [...new Set(xs)].sort((a, b) => a - b);
  return readable(title, drawing, isLog ? 'logarithmic' : '', stops.length, (index) => {
    const at = stops[index];
    rule.setAttribute('x1', x.at(at));
    rule.setAttribute('x2', x.at(at));
    rule.setAttribute('visibility', 'visible');
    const values = shown.map((one) => {
      const point = one.points.find(([a]) => a === at);
      return point ? `${one.name} ${short(point[1], decimals)}` : null;
    });
    return `${xLabel} ${short(at, 1)}: ${values.filter(Boolean).join(', ')}`;
  }, (place) => nearest(stops, x.from(place)));
}

/** Return a figure of points: [{name, x, y, low, high, isMarked}]; low and high are an interval. */
function scatterPlot(title, points, { xLabel, yLabel }) {
  const xs = points.map((point) => point.x);
  const isLog = Math.max(...xs) > 4 * Math.min(...xs) && Math.min(...xs) > 0;
  const pad = Math.max(0.12 * (Math.max(...xs) - Math.min(...xs)), 0.05 * Math.max(...xs)) || 1;
  const x = isLog
    ? axis(Math.min(...xs) / 1.25, Math.max(...xs) * 1.25, PLOT.left, PLOT.width - PLOT.right, true)
    : axis(Math.max(0, Math.min(...xs) - pad), Math.max(...xs) + pad, PLOT.left, PLOT.width - PLOT.right);
  const top = Math.max(...points.map((point) => point.high ?? point.y));
  const y = axis(0, top * 1.08, PLOT.height - PLOT.bottom, PLOT.top);
  const ordered = [...points].sort((a, b) => a.x - b.x || a.y - b.y);
  const front = ordered.filter((a) => !points.some((b) => b !== a && b.x <= a.x && b.y <= a.y && (b.x < a.x || b.y < a.y)));
  const marks = ordered.map((point) => s('g', { class: point.isMarked ? 'c0 chosen' : 'c7' },
    point.low === null || point.low === undefined ? null
      : s('line', { class: 'whisker', x1: x.at(point.x), x2: x.at(point.x), y1: y.at(point.low), y2: y.at(point.high) }),
    s('circle', { cx: x.at(point.x), cy: y.at(point.y), r: point.isMarked ? 4.5 : 3.5 })));
  const labels = front.length > 8 ? [] : front.map((point) => {
    const isRight = x.at(point.x) > PLOT.width / 2; // names stand towards the middle, off the falling line
    return s('text', { x: x.at(point.x) + (isRight ? -8 : 8), y: y.at(point.y) + (isRight ? 15 : -7), 'text-anchor': isRight ? 'end' : 'start' }, point.name);
  });
  const stairs = s('path', { class: 'front', d: front.map((point, i) => `${i ? 'L' : 'M'}${x.at(point.x)} ${y.at(point.y)}`).join('') });
  const ring = s('circle', { class: 'ring', r: 8, visibility: 'hidden' });
  const drawing = frame(x, y, xLabel, [stairs, ...marks, ...labels, ring]);
  return readable(title, drawing, '', ordered.length, (index) => {
    const point = ordered[index];
    ring.setAttribute('cx', x.at(point.x));
    ring.setAttribute('cy', y.at(point.y));
    ring.setAttribute('visibility', 'visible');
    const interval = point.low === null || point.low === undefined ? '' : ` (${fixed(point.low)} to ${fixed(point.high)})`;
    return `${point.name}: ${short(point.x, 4)}, ${yLabel} ${fixed(point.y)}${interval}`;
  }, (px, py) => indexOfLeast(ordered, (point) => (x.at(point.x) - px) ** 2 + (y.at(point.y) - py) ** 2));
}

/** Return a figure of bars side by side, with a dashed line at `level`. */
function barPlot(title, values, { xLabel, level, told }) {
  const x = axis(0, values.length, PLOT.left, PLOT.width - PLOT.right);
  const y = axis(0, Math.max(...values, level), PLOT.height - PLOT.bottom, PLOT.top);
  // One path: a thousand bars would be a thousand elements.
  const bars = s('path', { class: 'bars c0', d: values.map((value, i) =>
    `M${x.at(i + 0.1).toFixed(2)} ${y.at(0)}V${y.at(value).toFixed(1)}H${x.at(i + 0.9).toFixed(2)}V${y.at(0)}Z`).join('') });
  const line = s('line', { class: 'level', x1: PLOT.left, x2: PLOT.width - PLOT.right, y1: y.at(level), y2: y.at(level) });
  const rule = s('line', { class: 'rule', y1: PLOT.top, y2: PLOT.height - PLOT.bottom, visibility: 'hidden' });
  const drawing = frame(x, y, xLabel, [bars, line, rule]);
  return readable(title, drawing, '', values.length, (index) => {
    rule.setAttribute('x1', x.at(index + 0.5));
    rule.setAttribute('x2', x.at(index + 0.5));
    rule.setAttribute('visibility', 'visible');
    return told(index);
  }, (place) => Math.min(values.length - 1, Math.max(0, Math.floor(x.from(place)))));
}

/** Return a scale from values to places: `at`, its inverse `from`, and `ticks`. */
function axis(low, high, start, end, isLog = false) {
  const shape = isLog ? Math.log10 : (value) => value;
  const back = isLog ? (value) => 10 ** value : (value) => value;
  const from = shape(low);
  const span = shape(high) - from || 1;
  return {
    at: (value) => start + ((shape(value) - from) / span) * (end - start),
    from: (place) => back(from + ((place - start) / (end - start)) * span),
    ticks: isLog ? logTicks(low, high) : linearTicks(low, low + span),
    isLog,
  };
}

function linearTicks(low, high) {
  const raw = (high - low) / 5;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= raw) * power;
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1) ticks.push(i * step);
  return ticks;
}

function logTicks(low, high) {
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
    for (const factor of [1, 2, 5]) {
      const tick = factor * 10 ** power;
      if (tick >= low && tick <= high) ticks.push(tick);
    }
  }
  return ticks;
}

function frame(x, y, xLabel, children) {
  const { width, height, left, right, bottom } = PLOT;
  return s('svg', { viewBox: `0 0 ${width} ${height}`, 'aria-hidden': 'true' },
    y.ticks.map((tick) => [
      s('line', { class: 'grid', x1: left, x2: width - right, y1: y.at(tick), y2: y.at(tick) }),
      s('text', { x: left - 7, y: y.at(tick) + 4, 'text-anchor': 'end' }, short(tick, 4)),
    ]),
    x.ticks.map((tick) => s('text', { x: x.at(tick), y: height - bottom + 16, 'text-anchor': 'middle' }, short(tick, 4))),
    s('text', { class: 'axis', x: width - right, y: height - 5, 'text-anchor': 'end' }, xLabel + (x.isLog ? ' (logarithmic)' : '')),
    children);
}

/**
 * Return the figure around a drawing: title, drawing, and a line that reads out one of `stops`.
 *
 * read(index) → text; find(x, y) → index, in the drawing's coordinates.
 */
function readable(title, drawing, note, stops, read, find) {
  const out = h('output', { class: 'readout' }, '\u00a0');
  let index = -1;
  const show = (next) => {
    if (stops === 0 || next === index) return;
    index = next;
    out.textContent = read(index);
  };
  const steps = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 };
  const field = h('div', {
    class: 'drawing', tabindex: '0', role: 'application',
    'aria-roledescription': 'plot', 'aria-label': `${title}. Arrow keys read out values.`,
    onkeydown: (event) => {
      if (!has(steps, event.key)) return;
      event.preventDefault();
      show(Math.min(stops - 1, Math.max(0, index + steps[event.key])));
    },
    onpointermove: (event) => {
      const box = drawing.getBoundingClientRect();
      const scale = PLOT.width / box.width;
      show(find((event.clientX - box.left) * scale, (event.clientY - box.top) * scale));
    },
  }, drawing);
  return h('figure', {}, h('figcaption', {}, title, note ? h('small', {}, ` ${note}`) : null), field, out);
}

function nearest(numbers, value) {
  return indexOfLeast(numbers, (number) => Math.abs(number - value));
}

function indexOfLeast(items, cost) {
  return items.reduce((best, item, i) => (cost(item) < cost(items[best]) ? i : best), 0);
}

/** Return a number in a few characters: 12,500, 0.00033, 1.5. */
function short(value, digits) {
  if (value === 0) return '0';
  const size = Math.abs(value);
  if (size < 1e-3) return value.toExponential(1).replace('.0e', 'e');
  if (size >= 1e5) return new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 }).format(value);
  return new Intl.NumberFormat('en', { maximumSignificantDigits: Math.max(digits, 3) }).format(value);
}
