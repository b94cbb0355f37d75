// Utterances and their alignments, decoded from the compact tables of utterance_tables.py.

const KINDS = { S: 'substituted', D: 'deleted', I: 'inserted' };
const NOTHING = '∅'; // stands where one side has no word

/** What a row made of one utterance. What is asked of few of them is made when it is asked for. */
class Utterance {
  #searched = null;
  #errorKeys = null;

  constructor(table, row, index) {
    const { reference, outcomes } = table.rows[row];
    const text = table.references[reference][index];
    const [steps, hypothesis, isMissing] = outcomes[index] === 0 ? ['', text] : outcomes[index];
    this.id = table.ids[index];
    this.index = index;
    this.speaker = table.speakers[index];
    this.seconds = table.seconds[index];
    this.audio = table.audio[index];
    this.reference = text;
    this.hypothesis = hypothesis;
    this.steps = steps; // none where all is correct
    this.isMissing = Boolean(isMissing);
    this.counts = { S: 0, D: 0, I: 0 };
    for (let i = 0; i < steps.length; i += 1) if (steps[i] !== 'C') this.counts[steps[i]] += 1;
    this.errors = this.counts.S + this.counts.D + this.counts.I;
    this.words = steps === '' ? wordsIn(text) : steps.length - this.counts.I;
  }

  /** Return the columns of the alignment: [step, reference word or null, hypothesis word or null]. */
  columns() {
    const refs = this.reference.split(' ');
    const hyps = this.hypothesis.split(' ');
    let r = 0;
    let p = 0;
    return Array.from(this.steps, (step) => [step, step === 'I' ? null : refs[r++], step === 'D' ? null : hyps[p++]]);
  }

  /** Return what is searched: id and both texts, in small letters. */
  get searched() {
    this.#searched ??= `${this.id}\n${this.reference}\n${this.hypothesis}`.toLowerCase();
    return this.#searched;
  }

  /** Return the errors, each as "S reference hypothesis", "D reference " or "I  hypothesis". */
  get errorKeys() {
    this.#errorKeys ??= this.columns().filter(([step]) => step !== 'C')
      .map(([step, reference, hypothesis]) => [step, reference ?? '', hypothesis ?? ''].join(' '));
    return this.#errorKeys;
  }
}

function wordsIn(text) {
  let words = text === '' ? 0 : 1;
  for (let at = text.indexOf(' '); at !== -1; at = text.indexOf(' ', at + 1)) words += 1;
  return words;
}

/** Return the utterances of a row on a set, without those that it did not decode. */
function utterancesOf(table, row) {
  return table.rows[row].outcomes.flatMap((outcome, index) => (outcome === null ? [] : [new Utterance(table, row, index)]));
}

function errorText(key) {
  const [, reference, hypothesis] = key.split(' ');
  return `${reference || NOTHING} → ${hypothesis || NOTHING}`;
}
