// Every utterance: filters, the list that grows as it is scrolled, what was confused, speakers.

const BATCH = 40; // utterances that are added to the list together
const KINDS = { S: 'substituted', D: 'deleted', I: 'inserted' };
const NOTHING = '∅'; // stands where one side has no token

/** Return the utterances of a row on a set, decoded from the compact table; see utterance_tables.py. */
function utterancesOf(table, row) {
  const { reference, outcomes } = table.rows[row];
  return table.ids.map((id, i) => {
    const outcome = outcomes[i];
    if (outcome === null) return null;
    const text = table.references[reference][i];
    const words = text === '' ? 0 : text.split(' ').length;
    const [steps, hypothesis, isMissing] = outcome === 0 ? ['C'.repeat(words), text] : outcome;
    const counts = { C: 0, S: 0, D: 0, I: 0 };
    for (const step of steps) counts[step] += 1;
    return {
      id, index: i, speaker: table.speakers[i], seconds: table.seconds[i], audio: table.audio[i],
      reference: text, hypothesis, steps, counts, words, errors: counts.S + counts.D + counts.I, isMissing: Boolean(isMissing),
      searched: `${id}\n${text}\n${hypothesis}`.toLowerCase(),
    };
  }).filter(Boolean);
}

/** Return the columns of an alignment: [step, reference word or null, hypothesis word or null]. */
function columnsOf({ steps, reference, hypothesis }) {
  const refs = reference.split(' ');
  const hyps = hypothesis.split(' ');
  let r = 0;
  let p = 0;
  return Array.from(steps, (step) => [step, step === 'I' ? null : refs[r++], step === 'D' ? null : hyps[p++]]);
}

function errorsOf(utterance) {
  return utterance.errors === 0 ? [] : columnsOf(utterance).filter(([step]) => step !== 'C');
}

const SHOWN = {
  all: ['All', () => true],
  wrong: ['With errors', (one) => one.errors > 0],
  S: ['Substitutions', (one) => one.counts.S > 0],
  D: ['Deletions', (one) => one.counts.D > 0],
  I: ['Insertions', (one) => one.counts.I > 0],
  right: ['Correct', (one) => one.errors === 0],
};
const COMPARED = {
  differs: ['Differ', (one, other) => other !== undefined && one.hypothesis !== other.hypothesis],
  worse: ['Worse here', (one, other) => other !== undefined && one.errors > other.errors],
  better: ['Better here', (one, other) => other !== undefined && one.errors < other.errors],
};
const ORDERS = {
  given: ['as in the set', null],
  errors: ['most errors first', (a, b) => b.errors - a.errors],
  rate: ['highest rate first', (a, b) => b.errors / Math.max(1, b.words) - a.errors / Math.max(1, a.words)],
  long: ['longest first', (a, b) => b.words - a.words],
  short: ['shortest first', (a, b) => a.words - b.words],
};

/** Return the section, with `has(row, set)` and `show(row, set)` for others to call. */
function utterancesSection(data) {
  const sets = Object.keys(data.utterances);
  const rowsOf = (set) => data.rows.map((row) => row.row).filter((row) => has(data.utterances[set].rows, row));
  const state = { set: sets[0], row: rowsOf(sets[0])[0], beside: '', show: 'all', speaker: '', query: '', order: 'given', error: '' };
  readAddress(state, data, rowsOf);

  const controls = h('div', { class: 'filters' });
  const status = h('p', { class: 'status', role: 'status' });
  const list = h('div', { class: 'utterances', onkeydown: moveOrPlay });
  const more = h('button', { type: 'button', class: 'more', onclick: () => grow(true) });
  const [confusions, speakers, lengths] = [h('div'), h('div'), h('div')];
  const side = h('aside', { class: 'side', 'aria-label': 'Errors and speakers' },
    foldable('Confusions', confusions), foldable('Speakers', speakers), foldable('Errors by length', lengths));
  let utterances = [];
  let others = new Map();
  let chosen = [];
  let drawn = 0;

  function load() {
    const table = data.utterances[state.set];
    utterances = utterancesOf(table, state.row);
    others = new Map((state.beside ? utterancesOf(table, state.beside) : []).map((one) => [one.index, one]));
    drawControls();
    select();
  }

  function change(changes) {
    Object.assign(state, changes);
    if ('set' in changes) Object.assign(state, { speaker: '', error: '' });
    if (!rowsOf(state.set).includes(state.row)) state.row = rowsOf(state.set)[0];
    if (state.beside === state.row || !rowsOf(state.set).includes(state.beside)) state.beside = '';
    if (!state.beside && has(COMPARED, state.show)) state.show = 'all';
    const loads = 'set' in changes || 'row' in changes || 'beside' in changes;
    if (loads) load();
    else select();
    if ('speaker' in changes && !loads) drawControls();
  }

  function select() {
    const [, test] = SHOWN[state.show] ?? COMPARED[state.show];
    const words = state.query.toLowerCase();
    const found = utterances.filter((one) => (!state.speaker || one.speaker === state.speaker) && one.searched.includes(words));
    chosen = found.filter((one) => test(one, others.get(one.index))
      && (!state.error || errorsOf(one).some((column) => errorKey(column) === state.error)));
    const order = ORDERS[state.order][1];
    if (order) chosen.sort((a, b) => order(a, b) || a.index - b.index);
    drawn = 0;
    refill(list);
    grow(false);
    drawStatus();
    drawSide();
    writeAddress(state);
  }

  function grow(hasFocus) {
    const start = drawn;
    const next = chosen.slice(start, start + BATCH);
    drawn += next.length;
    list.append(...next.map((one) => card(one, others.get(one.index), state.beside)));
    const left = chosen.length - drawn;
    more.hidden = left === 0;
    more.textContent = `Show more (${whole(left)} left)`;
    if (hasFocus) list.children[start]?.focus();
  }

  function drawControls() {
    const row = rowsOf(state.set);
    const names = [...new Set(utterances.map((one) => one.speaker))].sort((a, b) => a.localeCompare(b, 'en', { numeric: true }));
    const kinds = state.beside ? { ...SHOWN, ...COMPARED } : SHOWN;
    refill(controls,
      choice('Set', sets.map((set) => [set, set]), state.set, (set) => change({ set })),
      choice('Row', row.map((name) => [name, name]), state.row, (name) => change({ row: name })),
      row.length > 1 ? choice('Beside it', [['', 'nothing'], ...row.filter((name) => name !== state.row).map((name) => [name, name])],
        state.beside, (beside) => change({ beside })) : null,
      choice('Speaker', [['', `all ${names.length}`], ...names.map((name) => [name, name])], state.speaker, (speaker) => change({ speaker })),
      choice('Order', Object.entries(ORDERS).map(([key, [text]]) => [key, text]), state.order, (order) => change({ order })),
      h('fieldset', { class: 'kinds' }, h('legend', { class: 'unseen' }, 'Utterances to show'),
        Object.entries(kinds).map(([key, [text, test]]) => h('label', {},
          h('input', { type: 'radio', name: 'show', value: key, checked: key === state.show, onchange: () => change({ show: key }) }),
          h('span', {}, has(KINDS, key) ? h('b', { class: `mark ${key}`, 'aria-hidden': 'true' }, key) : null, text,
            h('small', {}, ` ${whole(utterances.filter((one) => test(one, others.get(one.index))).length)}`))))),
      h('label', { class: 'field search' }, h('span', {}, 'Search words or ids'),
        h('input', { type: 'search', value: state.query, autocomplete: 'off', spellcheck: 'false', oninput: (event) => change({ query: event.target.value }) })));
  }

  function drawStatus() {
    const sum = { S: 0, D: 0, I: 0 };
    let words = 0;
    for (const one of chosen) {
      words += one.words;
      for (const kind of Object.keys(sum)) sum[kind] += one.counts[kind];
    }
    const errors = sum.S + sum.D + sum.I;
    const rate = percent(errors, words);
    refill(status,
      h('strong', {}, `${whole(chosen.length)} of ${counted(utterances.length, 'utterance')}`),
      ` · ${counted(words, 'word')} · ${whole(sum.S)} substituted, ${whole(sum.D)} deleted, ${whole(sum.I)} inserted`,
      rate === null ? '' : ` · error rate ${fixed(rate)} %`,
      state.error ? h('button', { type: 'button', class: 'chip', onclick: () => change({ error: '' }) }, `only ${errorText(state.error)} ✕`, h('span', { class: 'unseen' }, ' (remove)')) : '');
  }

  function drawSide() {
    refill(confusions, confusionTable(chosen, state.error, (error) => change({ error })));
    refill(speakers, speakerTable(utterances, state.speaker, (speaker) => change({ speaker })));
    refill(lengths, lengthTable(utterances));
  }

  load();
  new IntersectionObserver((entries) => {
    if (entries.some((entry) => entry.isIntersecting) && !more.hidden) grow(false);
  }, { rootMargin: '600px' }).observe(more);

  const node = section('utterances', 'Utterances', controls, status,
    h('div', { class: 'columns' }, h('div', {}, list, more), side),
    h('p', { class: 'note' }, 'Reference above, hypothesis below. ',
      Object.entries(KINDS).map(([kind, name]) => [h('b', { class: `mark ${kind}` }, kind), ` ${name} `]),
      'In the list the keys j and k go to the next and the one before, p plays.'));
  return {
    node,
    has: (row, set) => has(data.utterances, set) && has(data.utterances[set].rows, row),
    show: (row, set) => {
      change({ set, row, show: 'wrong', error: '', speaker: '', query: '' });
      node.scrollIntoView();
      controls.querySelector('select').focus({ preventScroll: true });
    },
  };
}

// The state stands in the address, so that a view can be kept and passed on.
function readAddress(state, data, rowsOf) {
  const given = new URLSearchParams(location.hash.slice(1));
  if (has(data.utterances, given.get('set'))) state.set = given.get('set');
  state.row = rowsOf(state.set).includes(given.get('row')) ? given.get('row') : rowsOf(state.set)[0];
  if (rowsOf(state.set).includes(given.get('beside'))) state.beside = given.get('beside');
  if (has(SHOWN, given.get('show')) || (state.beside && has(COMPARED, given.get('show')))) state.show = given.get('show');
  if (has(ORDERS, given.get('order'))) state.order = given.get('order');
  for (const key of ['speaker', 'query', 'error']) state[key] = given.get(key) ?? '';
}

function writeAddress(state) {
  const kept = Object.entries(state).filter(([key, value]) => value !== '' && value !== 'all' && value !== 'given');
  const isUntouched = kept.every(([key]) => key === 'set' || key === 'row');
  if (isUntouched && !location.hash) return;
  history.replaceState(null, '', `#${new URLSearchParams(kept)}`);
}

function errorKey([step, reference, hypothesis]) {
  return [step, reference ?? '', hypothesis ?? ''].join(' ');
}

function errorText(key) {
  const [, reference, hypothesis] = key.split(' ');
  return `${reference || NOTHING} → ${hypothesis || NOTHING}`;
}

/** Return one utterance: what it is, its alignment, and that of the row beside it. */
function card(one, other, besideName) {
  return h('article', { tabindex: '-1', class: one.errors === 0 ? 'right' : null, 'aria-label': one.id },
    h('header', {},
      one.audio ? playButton(one) : null,
      h('span', { class: 'id' }, one.id),
      h('span', { class: 'who' }, `speaker ${one.speaker}`),
      h('span', { class: 'sum' }, errorSum(one))),
    alignment(one),
    besideName ? h('div', { class: 'beside' }, h('p', { class: 'name' }, besideName, h('span', { class: 'sum' }, other ? errorSum(other) : 'not decoded')),
      other ? alignment(other) : null) : null);
}

function errorSum(one) {
  if (one.errors === 0) return '✓ correct';
  const parts = Object.keys(KINDS).filter((kind) => one.counts[kind] > 0)
    .map((kind) => h('span', { class: `mark ${kind}`, title: KINDS[kind] }, `${one.counts[kind]} ${kind}`));
  return [one.isMissing ? 'no hypothesis ' : null, ...parts, one.words ? ` ${fixed(percent(one.errors, one.words), 1)} %` : ' no reference'];
}

function alignment(one) {
  if (one.errors === 0) return h('p', { class: 'alignment', dir: 'auto' }, one.reference);
  return h('p', { class: 'alignment', dir: 'auto' }, columnsOf(one).map(([step, reference, hypothesis]) => {
    if (step === 'C') return [h('span', { class: 'column' }, h('span', {}, reference), h('span', { class: 'same', 'aria-hidden': 'true' }, hypothesis)), ' '];
    return [h('span', { class: `column ${step}` },
      h('span', { class: 'unseen' }, `[${KINDS[step]}: `),
      h('span', { class: 'reference' }, reference ?? NOTHING),
      h('span', { class: 'hypothesis' }, hypothesis ?? NOTHING),
      h('span', { class: 'unseen' }, ']'),
      h('span', { class: 'letter', 'aria-hidden': 'true' }, step)), ' '];
  }));
}

function playButton(one) {
  const seconds = one.seconds === null ? '' : ` ${fixed(one.seconds, 1)} s`;
  return h('button', { type: 'button', class: 'play', 'aria-label': `Play ${one.id}`, onclick: play }, h('span', { 'aria-hidden': 'true' }, '▶'), seconds);

  function play(event) {
    const player = h('audio', { controls: true, src: one.audio, 'aria-label': one.id });
    player.addEventListener('error', () => {
      player.replaceWith(h('span', { class: 'missing' }, `no audio at ${decodeURI(one.audio)}`));
    });
    player.addEventListener('play', () => {
      for (const another of document.querySelectorAll('audio')) if (another !== player) another.pause();
    });
    event.currentTarget.replaceWith(player);
    player.focus();
    player.play().catch(() => {}); // told by the event above
  }
}

/** Keys in the list: j and k move between utterances, p plays or stops. */
function moveOrPlay(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const here = event.target.closest('article');
  if (event.key === 'j') here?.nextElementSibling?.focus();
  else if (event.key === 'k') here?.previousElementSibling?.focus();
  else if (event.key === 'p') {
    const player = here?.querySelector('audio');
    if (!player) here?.querySelector('.play')?.click();
    else if (player.paused) player.play();
    else player.pause();
  }
}

function foldable(title, content) {
  return h('details', { open: matchMedia('(min-width: 60rem)').matches }, h('summary', {}, title), content);
}

function confusionTable(utterances, pressed, choose) {
  const counts = new Map();
  for (const one of utterances) {
    for (const column of errorsOf(one)) {
      const key = errorKey(column);
      counts.set(key, (counts.get(key) ?? 0) + 1);
    }
  }
  const most = [...counts].sort((a, b) => b[1] - a[1]).slice(0, 30)
    .map(([key, count]) => ({ key, count, step: key[0], reference: key.split(' ')[1], hypothesis: key.split(' ')[2], isMarked: key === pressed }));
  if (most.length === 0) return h('p', { class: 'note' }, 'No errors.');
  return sortableTable([
    { label: 'Kind', isText: true, value: (line) => line.step, cell: (line) => h('b', { class: `mark ${line.step}`, title: KINDS[line.step] }, line.step) },
    { label: 'Reference', isText: true, value: (line) => line.reference, cell: (line) => line.reference || NOTHING },
    { label: 'Hypothesis', isText: true, value: (line) => line.hypothesis, cell: (line) => line.hypothesis || NOTHING },
    { label: 'Times', value: (line) => line.count,
      cell: (line) => h('button', { type: 'button', class: 'link', 'data-key': line.key, 'aria-pressed': String(line.isMarked), 'aria-label': `${line.count} times ${errorText(line.key)}: show only these`, onclick: () => choose(line.isMarked ? '' : line.key) }, whole(line.count)) },
  ], most, { caption: 'The 30 most frequent errors of the utterances in the list' });
}

function speakerTable(utterances, pressed, choose) {
  const speakers = new Map();
  for (const one of utterances) {
    const sum = speakers.get(one.speaker) ?? { name: one.speaker, utterances: 0, words: 0, errors: 0, isMarked: one.speaker === pressed };
    sum.utterances += 1;
    sum.words += one.words;
    sum.errors += one.errors;
    speakers.set(one.speaker, sum);
  }
  return sortableTable([
    { label: 'Speaker', isText: true, isHead: true, value: (line) => line.name,
      cell: (line) => h('button', { type: 'button', class: 'link', 'data-key': line.name, 'aria-pressed': String(line.isMarked), onclick: () => choose(line.isMarked ? '' : line.name) }, line.name) },
    { label: 'Snt', value: (line) => line.utterances },
    { label: 'Wrd', value: (line) => line.words },
    { label: 'Err %', value: (line) => percent(line.errors, line.words), cell: (line) => fixed(percent(line.errors, line.words), 1) },
  ], [...speakers.values()], { caption: 'Error rate of each speaker', sortBy: 3, descending: true });
}

/** Return error rates by length of the reference: of some five groups of about as many words. */
function lengthTable(utterances) {
  const ordered = [...utterances].sort((a, b) => a.words - b.words);
  const total = ordered.reduce((sum, one) => sum + one.words, 0);
  const groups = [];
  for (const one of ordered) {
    let group = groups.at(-1);
    const isFull = group && group.words >= total / 5 && one.words !== group.high;
    if (!group || isFull) {
      group = { low: one.words, high: one.words, utterances: 0, words: 0, S: 0, D: 0, I: 0 };
      groups.push(group);
    }
    group.high = one.words;
    group.utterances += 1;
    group.words += one.words;
    for (const kind of Object.keys(KINDS)) group[kind] += one.counts[kind];
  }
  const rate = (kind) => ({ label: `${{ S: 'Sub', D: 'Del', I: 'Ins' }[kind]} %`, value: (group) => percent(group[kind], group.words), cell: (group) => fixed(percent(group[kind], group.words), 1) });
  return sortableTable([
    { label: 'Words', isText: true, isHead: true, value: (group) => group.low, cell: (group) => (group.low === group.high ? `${group.low}` : `${group.low}–${group.high}`) },
    { label: 'Snt', value: (group) => group.utterances },
    rate('S'), rate('D'), rate('I'),
  ], groups, { caption: 'Errors by the number of words in the reference' });
}
