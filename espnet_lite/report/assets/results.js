// Results, cost, trainings and units: the sections above the utterances.

/** Return error rate and interval of a row on a set: {value, low, high, over: what was drawn}, or null. */
function rateOf(row, set, kind = row.kind) {
  const score = row.scores[set]?.[kind];
  if (!score) return null;
  const value = percent(score.counts.err, score.counts.tokens);
  const { low = null, high = null, over = null } = score.interval ?? {};
  return value === null ? null : { value, low, high, over };
}

function intervalText({ low, high }) {
  return low === null ? null : `${fixed(low, 1)} to ${fixed(high, 1)}`;
}

/** Return the numbers of the headline row, large. */
function headline(data) {
  const [best] = data.rows;
  const unit = { wer: 'words', per: 'phones' }[best.kind];
  const numbers = data.sets.filter((set) => rateOf(best, set)).map((set) => {
    const rate = rateOf(best, set);
    const score = best.scores[set];
    return h('div', {},
      h('dt', {}, `${best.kind.toUpperCase()} ${set}`),
      h('dd', { class: 'large' }, fixed(rate.value), h('small', {}, ' %')),
      h('dd', {}, intervalText(rate) ? `95 %: ${intervalText(rate)}, by ${rate.over}` : null),
      h('dd', {}, `${counted(score.utterances, 'utterance')}, ${whole(score[unit])} ${unit}`));
  });
  return [
    h('p', { class: 'lede' }, h('strong', {}, breakable(best.row)), ` has the lowest ${best.kind.toUpperCase()} on ${best.dev_sets[0]}, where it was chosen: `,
      `${millions(best.model.parameters)} parameters, ${megabytes(best.model.bytes)}.`),
    h('dl', { class: 'headline' }, numbers),
  ];
}

function millions(value) {
  return `${fixed(value / 1e6)} M`;
}

function megabytes(value) {
  return `${fixed(value / 1e6, 1)} MB`;
}

function resultsSection(data, showUtterances) {
  const all = data.rows.flatMap((row) => data.sets.map((set) => rateOf(row, set))).filter(Boolean);
  const most = Math.max(...all.map((rate) => rate.high ?? rate.value));
  const kinds = [...new Set(data.rows.map((row) => row.kind))];
  const columns = [
    { label: 'Model and decoding', isText: true, isHead: true, value: (row) => row.row, cell: rowName },
    ...data.sets.map((set) => ({
      label: `${kinds.map((kind) => kind.toUpperCase()).join(' or ')} ${set}`,
      value: (row) => rateOf(row, set)?.value ?? null,
      cell: (row) => rateCell(row, set, most, showUtterances),
    })),
    { label: 'Search', isText: true, value: (row) => row.decode.config.method ?? '' },
    { label: 'Parameters', value: (row) => row.model.parameters, cell: (row) => millions(row.model.parameters) },
    { label: 'MB', value: (row) => row.model.bytes, cell: (row) => fixed(row.model.bytes / 1e6, 1) },
    { label: 'RTF', value: (row) => row.decode.rtf[data.sets[0]] ?? null, cell: (row) => fixed(row.decode.rtf[data.sets[0]], 4) },
  ];
  const rows = data.rows.map((row, index) => ({ ...row, isMarked: index === 0 }));
  return section('results', 'Results',
    sortableTable(columns, rows, { caption: 'Results of all rows' }),
    h('p', { class: 'note' }, 'Error rates in percent, with the interval that holds 95 % of bootstrap draws (of speakers where they are many, else of utterances). ',
      `RTF: seconds that one process computes for a second of ${data.sets[0]}. A rate that can be pressed shows its utterances below.`),
    h('details', {}, h('summary', {}, 'Errors by kind'), scoresTable(data)),
    h('details', {}, h('summary', {}, 'How each row was made'), data.rows.map(madeOf)));
}

function rowName(row) {
  return row.isMarked ? [h('span', { class: 'star', 'aria-hidden': 'true' }, '★\u00a0'), breakable(row.row), h('span', { class: 'unseen' }, ' (headline)')] : breakable(row.row);
}

/** Return a rate with its interval drawn on a scale that all cells share. */
function rateCell(row, set, most, showUtterances) {
  const rate = rateOf(row, set);
  if (!rate) return null;
  const at = (value) => (value / most) * 100;
  const drawing = s('svg', { class: 'interval', viewBox: '-2 0 104 8', 'aria-hidden': 'true' },
    s('line', { class: 'track', x1: 0, x2: 100, y1: 4, y2: 4 }),
    rate.low === null ? null : s('line', { class: 'whisker', x1: at(rate.low), x2: at(rate.high), y1: 4, y2: 4 }),
    s('circle', { cx: at(rate.value), cy: 4, r: 2.6 }));
  const text = fixed(rate.value);
  const number = showUtterances.has(row.row, set)
    ? h('button', { class: 'link', type: 'button', onclick: () => showUtterances.show(row.row, set), 'aria-label': `${text}: utterances of ${row.row} on ${set}` }, text)
    : text;
  const interval = intervalText(rate);
  return [number, drawing, interval ? h('small', {}, interval) : null];
}

function scoresTable(data) {
  const lines = data.rows.flatMap((row, index) => data.sets.filter((set) => row.scores[set]?.[row.kind])
    .map((set) => ({ ...row, set, isMarked: index === 0, counts: row.scores[set][row.kind].counts })));
  const rate = (label, key, of = 'tokens') => numbers(label, (line) => percent(line.counts[key], line.counts[of]));
  const other = (kind) => numbers(kind.toUpperCase(), (line) => rateOf(line, line.set, kind)?.value ?? null);
  return sortableTable([
    { label: 'Model and decoding', isText: true, isHead: true, value: (line) => line.row, cell: rowName },
    { label: 'Set', isText: true, value: (line) => line.set },
    { label: 'Snt', value: (line) => line.counts.utterances, cell: (line) => whole(line.counts.utterances) },
    { label: 'Wrd', value: (line) => line.counts.tokens, cell: (line) => whole(line.counts.tokens) },
    rate('Corr', 'corr'), rate('Sub', 'sub'), rate('Del', 'del'), rate('Ins', 'ins'), rate('Err', 'err'),
    rate('S.Err', 's_err', 'utterances'), other('cer'), other('ter'),
  ], lines, { caption: 'Columns of NIST sclite, in percent; S.Err in percent of the utterances', showCaption: true });
}

/** Return a column of numbers with two decimals. */
function numbers(label, value) {
  return { label, value, cell: (line) => fixed(value(line)) };
}

/** Return what is recorded of a row, folded. */
function madeOf(row) {
  const facts = (label, values) => {
    const said = Object.entries(values ?? {}).filter(([, value]) => ['string', 'number', 'boolean'].includes(typeof value) && value !== '');
    return said.length === 0 ? null : h('section', {}, h('h4', {}, label), h('dl', { class: 'facts' },
      said.map(([key, value]) => h('div', { class: String(value).length > 24 ? 'long' : null },
        h('dt', {}, key.replaceAll('_', ' ')), h('dd', {}, Number.isInteger(value) ? whole(value) : String(value))))));
  };
  return h('details', {}, h('summary', {}, row.row),
    facts('Model', row.model), facts('Training', row.record),
    facts('Decoding', { ...row.decode.config, nj: row.decode.nj, threads: row.decode.threads }), facts('Decoded on', row.environment));
}

function costSection(data) {
  const { kind } = data.rows[0];
  const [set] = data.sets;
  const lineOf = new Map(data.efficiency.map((line) => [line.model, line]));
  const isBest = (row) => row?.model.sha256 === data.rows[0].model.sha256;
  const points = (value) => data.rows.filter((row) => row.kind === kind && rateOf(row, set)).map((row) => {
    const { value: y, low, high } = rateOf(row, set);
    return { name: row.row, x: value(row, lineOf.get(row.row)) ?? null, y, low, high, isMarked: isBest(row) };
  }).filter((point) => point.x !== null);
  const yLabel = `${kind.toUpperCase()} ${set}, %`;
  const plots = [
    ['size', 'MB of the packed file', (row) => row.model.bytes / 1e6],
    ['computation', 'GMACs for a second of audio', (row, line) => (line ? line.macs_per_second / 1e9 : null)],
    ['time', 'real-time factor of 15 s of audio in one thread', (row, line) => line?.rtf],
  ].map(([name, xLabel, value]) => [name, xLabel, points(value)])
    .filter(([, , shown]) => shown.length > 1)
    .map(([name, xLabel, shown]) => scatterPlot(`${yLabel}, against ${name}`, shown, { xLabel, yLabel }));
  const rowOf = new Map(data.rows.map((row) => [row.row, row]));
  const kinds = macKinds(data.efficiency);
  const columns = [
    { label: 'Model', isText: true, isHead: true, value: (line) => line.model, cell: (line) => [breakable(line.model), line.weights === 'random' ? ' (random weights)' : null] },
    ...data.sets.map((name) => ({ label: `${kind.toUpperCase()} ${name}`, value: (line) => line.rates[kind]?.[name] ?? null, cell: (line) => fixed(line.rates[kind]?.[name]) })),
    { label: 'Parameters', value: (line) => line.parameters, cell: (line) => millions(line.parameters) },
    { label: 'MB', value: (line) => line.bytes, cell: (line) => (line.bytes_of === 'file' ? '' : '~') + fixed(line.bytes / 1e6) },
    { label: 'GMACs/s', value: (line) => line.macs_per_second, cell: (line) => fixed(line.macs_per_second / 1e9, 3) },
    { label: 'RTF', value: (line) => line.rtf, cell: (line) => fixed(line.rtf, 4) },
    { label: 'Peak MiB', value: (line) => line.peak_bytes, cell: (line) => (line.peak_bytes === null ? null : fixed(line.peak_bytes / 2 ** 20, 0)) },
    { label: 'MACs by kind', isText: true, value: (line) => line.macs_share[kinds[0]] ?? 0, cell: (line) => shareBar(line.macs_share, kinds) },
  ];
  return section('cost', 'Cost',
    h('div', { class: 'figures' }, plots),
    plots.length > 0 ? h('p', { class: 'note' }, 'Dotted: the rows that no other beats in both. Strong: the model of the headline.') : null,
    data.efficiency.length === 0 ? null : [
      sortableTable(columns, data.efficiency.map((line) => ({ ...line, isMarked: isBest(rowOf.get(line.model)) })), { caption: 'What each model costs' }),
      h('ul', { class: 'legend' }, kinds.map((name, index) => h('li', { class: `c${index % COLOURS}` }, swatch(), name.replaceAll('_', ' ')))),
      h('p', { class: 'note' }, 'Front end, encoder and CTC head, no attention decoder; MACs of SUPERB’s 32 utterances. ~: not packed, weights in bf16.'),
    ]);
}

/** Return the kinds of modules, the one with most MACs first. */
function macKinds(lines) {
  const sums = {};
  for (const line of lines) for (const [kind, share] of Object.entries(line.macs_share)) sums[kind] = (sums[kind] ?? 0) + share;
  return Object.keys(sums).sort((a, b) => sums[b] - sums[a]);
}

function shareBar(share, kinds) {
  let x = 0;
  const text = kinds.filter((kind) => share[kind]).map((kind) => `${kind.replaceAll('_', ' ')} ${fixed(share[kind] * 100, 1)} %`).join(', ');
  const parts = kinds.map((kind, index) => {
    const width = (share[kind] ?? 0) * 100;
    const part = s('rect', { class: `c${index % COLOURS}`, x, y: 0, width, height: 8 });
    x += width;
    return part;
  });
  return s('svg', { class: 'share', viewBox: '0 0 100 8', preserveAspectRatio: 'none', role: 'img', 'aria-label': text }, s('title', {}, text), parts);
}

function swatch() {
  return s('svg', { class: 'swatch', viewBox: '0 0 10 10', 'aria-hidden': 'true' }, s('rect', { width: 10, height: 10, rx: 2 }));
}

// What is drawn of a training: value → its name, and what it is multiplied by.
const CURVES = {
  loss: ['loss', 1], loss_ctc: ['CTC loss', 1], loss_attention: ['attention loss', 1], loss_masked: ['loss of masked frames', 1],
  ctc_error: ['token error rate, greedy CTC, %', 100],
  accuracy: ['accuracy, %', 100], accuracy_unmasked: ['accuracy of unmasked frames, %', 100],
  lr: ['learning rate', 1], gradient_norm: ['gradient norm', 1], audio_seconds_per_second: ['seconds of audio a second', 1],
};
const FIRST_CURVES = ['loss', 'ctc_error', 'accuracy', 'accuracy_unmasked'];

function trainingSection(data) {
  const groups = [...new Set(data.trainings.map((training) => training.group))];
  const records = data.pretrainings.rows;
  const header = data.pretrainings.header;
  return section('training', 'Training',
    groups.map((group) => curvesOf(group, data.trainings.filter((training) => training.group === group))),
    records.length === 0 ? null : sortableTable(
      header.map((label, i) => ({ label, isText: i === 0 || label === 'units of', isHead: i === 0, value: (row) => numberOr(row[i]), cell: (row) => row[i] })),
      records, { caption: 'Pre-trainings', showCaption: true }));
}

/** Return the number that a cell begins with, or its text, for sorting. */
function numberOr(text) {
  const number = Number.parseFloat(text.replaceAll(',', ''));
  return text === '-' ? null : Number.isNaN(number) ? text : number;
}

function curvesOf(group, trainings) {
  const off = new Set();
  let against = 'update';
  const first = h('div', { class: 'figures' });
  const more = h('div', { class: 'figures' });
  const draw = () => {
    const shown = trainings.map((training, colour) => ({ ...training, colour })).filter(({ name }) => !off.has(name));
    const panels = (keys) => keys.map((key) => curvePlot(key, shown, against)).filter(Boolean);
    refill(first, panels(FIRST_CURVES));
    refill(more, panels(Object.keys(CURVES).filter((key) => !FIRST_CURVES.includes(key))));
  };
  const toggles = trainings.map(({ name }, colour) => h('button', {
    type: 'button', class: `toggle c${colour % COLOURS}`, 'aria-pressed': 'true',
    onclick: (event) => {
      if (!off.delete(name)) off.add(name);
      event.currentTarget.setAttribute('aria-pressed', String(!off.has(name)));
      draw();
    },
  }, swatch(), name));
  draw();
  return h('section', { 'aria-label': group }, h('h3', {}, group),
    h('div', { class: 'controls' },
      h('div', { class: 'toggles', role: 'group', 'aria-label': 'Trainings to draw' }, toggles),
      choice('Against', [['update', 'updates'], ['minutes', 'minutes']], against, (value) => { against = value; draw(); })),
    first,
    h('p', { class: 'note' }, 'Strong lines: validation. Faint lines: training.'),
    h('details', {}, h('summary', {}, 'More curves'), more));
}

function curvePlot(key, trainings, against) {
  const [label, factor] = CURVES[key];
  const x = against === 'update' ? 0 : 1;
  const series = trainings.flatMap(({ name, colour, curves }) => ['train', 'dev'].map((kind) => ({
    name: kind === 'dev' ? name : `${name} (training)`, colour, isFaint: kind === 'train',
    points: (curves[kind]?.[key] ?? []).filter((point) => point[x] !== null && point[x] !== undefined).map((point) => [point[x], point[2] * factor]),
  })));
  if (series.every((one) => one.points.length === 0)) return null;
  return linePlot(label, series, { xLabel: against === 'update' ? 'updates' : 'minutes' });
}

function unitsSection(data) {
  return section('units', 'Units',
    h('div', { class: 'figures' }, data.units.map((units) => {
      const total = units.counts.reduce((sum, count) => sum + count, 0);
      const used = units.counts.filter((count) => count > 0).length;
      const shares = units.counts.map((count) => (100 * count) / total);
      const figure = barPlot(`${units.name}: frames of each unit, %`, shares, {
        xLabel: 'units, the most used first', level: 100 / units.counts.length,
        told: (index) => `unit of rank ${index + 1}: ${short(shares[index], 3)} % of ${whole(total)} frames`,
      });
      return h('div', {}, figure, h('p', { class: 'note' },
        `${whole(units.counts.length)} units of ${units.features}, ${whole(used)} of them used, perplexity ${fixed(units.perplexity, 1)}. Dashed: the even share.`));
    })));
}
