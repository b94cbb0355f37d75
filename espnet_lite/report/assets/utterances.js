// The section of utterances: filters, a list that grows as it is scrolled, tables beside it.

const BATCH = 40; // utterances that are added to the list together

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

const RATES = { '': 'any', 10: '10 % and more', 25: '25 % and more', 50: '50 % and more', 100: '100 % and more' };

/** Return the section, with `has(row, set)` and `show(row, set)` for others to call. */
function utterancesSection(data) {
  const sets = Object.keys(data.utterances);
  const rowsOf = (set) => data.rows.map((row) => row.row).filter((row) => has(data.utterances[set].rows, row));
  const state = { set: sets[0], row: rowsOf(sets[0])[0], beside: '', show: 'all', speaker: '', rate: '', query: '', order: 'given', error: '' };
  readAddress(state, data, rowsOf);

  const controls = h('div', { class: 'filters' });
  const status = h('p', { class: 'status', role: 'status' });
  const list = h('div', { class: 'utterances', onkeydown: moveOrPlay });
  const more = h('button', { type: 'button', class: 'more', onclick: () => grow(true) });
  const [confusions, speakers, lengths] = [h('div'), h('div'), h('div')];
  const side = h('aside', { class: 'side', 'aria-label': 'Errors and speakers' },
    foldable('Confusions', confusions), foldable('Speakers', speakers), foldable('Errors by length', lengths));
  const decoded = new Map();
  let utterances = [];
  let others = new Map();
  let chosen = [];
  let drawn = 0;
  let pending = 0;

  function utterancesFor(row) {
    const key = JSON.stringify([state.set, row]);
    if (!decoded.has(key)) decoded.set(key, utterancesOf(data.utterances[state.set], row));
    return decoded.get(key);
  }

  function load() {
    utterances = utterancesFor(state.row);
    others = new Map((state.beside ? utterancesFor(state.beside) : []).map((one) => [one.index, one]));
    if (!utterances.some((one) => one.speaker === state.speaker)) state.speaker = '';
    drawControls();
    drawSpeakers();
    refill(lengths, lengthTable(utterances));
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
    if ('speaker' in changes && !loads) {
      drawControls();
      drawSpeakers();
    }
  }

  function select() {
    const [, test] = SHOWN[state.show] ?? COMPARED[state.show];
    const words = state.query.toLowerCase();
    const found = utterances.filter((one) => (!state.speaker || one.speaker === state.speaker)
      && (!state.rate || (one.errors > 0 && 100 * one.errors >= state.rate * one.words)) && (!words || one.searched.includes(words)));
    chosen = found.filter((one) => test(one, others.get(one.index))
      && (!state.error || one.errorKeys.includes(state.error)));
    const order = ORDERS[state.order][1];
    if (order) chosen.sort((a, b) => order(a, b) || a.index - b.index);
    drawn = 0;
    refill(list);
    grow(false);
    drawStatus();
    writeAddress(state);
    // What takes longest comes when the list is there, and once for a word that is being typed.
    clearTimeout(pending);
    pending = setTimeout(drawConfusions, 0);
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
      choice('Error rate', Object.entries(RATES).sort(([a], [b]) => a - b), state.rate, (rate) => change({ rate })),
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

  function drawConfusions() {
    refill(confusions, confusionTable(chosen, state.error, (error) => change({ error })));
  }

  function drawSpeakers() {
    refill(speakers, speakerTable(utterances, state.speaker, (speaker) => change({ speaker })));
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
      change({ set, row, show: 'wrong', error: '', speaker: '', rate: '', query: '' });
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
  if (has(RATES, given.get('rate'))) state.rate = given.get('rate');
  if (has(ORDERS, given.get('order'))) state.order = given.get('order');
  for (const key of ['speaker', 'query', 'error']) state[key] = given.get(key) ?? '';
}

function writeAddress(state) {
  const kept = Object.entries(state).filter(([key, value]) => value !== '' && value !== 'all' && value !== 'given');
  const isUntouched = kept.every(([key]) => key === 'set' || key === 'row');
  if (isUntouched && !location.hash) return;
  history.replaceState(null, '', `#${new URLSearchParams(kept)}`);
}

function foldable(title, content) {
  return h('details', { open: matchMedia('(min-width: 60rem)').matches }, h('summary', {}, title), content);
}
