// What was confused, by whom, and in utterances of which length.

/** Return the table of the most frequent errors; `choose` takes the one that is pressed, or ''. */
function confusionTable(utterances, pressed, choose) {
  const counts = new Map();
  for (const one of utterances) {
    for (const key of one.errorKeys) counts.set(key, (counts.get(key) ?? 0) + 1);
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

/** Return the table of speakers; `choose` takes the one that is pressed, or ''. */
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
