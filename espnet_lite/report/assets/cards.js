// One utterance in the list: what it is, its alignments, its audio.

/** Return one utterance: what it is, its alignment, and that of the row beside it. */
function card(one, other, besideName) {
  return h('article', { tabindex: '-1', class: one.errors === 0 ? 'right' : null, 'aria-label': one.id },
    h('header', {},
      one.audio ? playButton(one) : null,
      h('span', { class: 'id' }, one.id),
      h('span', { class: 'who' }, `speaker ${one.speaker}`),
      h('span', { class: 'sum' }, errorSum(one))),
    alignment(one),
    besideName ? besideIt(one, other, besideName) : null);
}

/** Return what the other row made of the utterance: its alignment only where it differs. */
function besideIt(one, other, name) {
  const isSame = other !== undefined && other.hypothesis === one.hypothesis && other.reference === one.reference;
  const sum = isSame ? 'the same' : other ? errorSum(other) : 'not decoded';
  return h('div', { class: 'beside' }, h('p', { class: 'name' }, breakable(name), h('span', { class: 'sum' }, sum)),
    other && !isSame ? alignment(other) : null);
}

function errorSum(one) {
  if (one.errors === 0) return '✓ correct';
  const parts = Object.keys(KINDS).filter((kind) => one.counts[kind] > 0)
    .map((kind) => h('span', { class: `mark ${kind}`, title: KINDS[kind] }, `${one.counts[kind]} ${kind}`));
  return [one.isMissing ? 'no hypothesis ' : null, ...parts, one.words ? ` ${fixed(percent(one.errors, one.words), 1)} %` : ' no reference'];
}

function alignment(one) {
  if (one.errors === 0) return h('p', { class: 'alignment', dir: 'auto' }, one.reference);
  return h('p', { class: 'alignment', dir: 'auto' }, one.columns().map(([step, reference, hypothesis]) => {
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
