"""Reading `text` and `utt2spk` for scoring, and what a token is: word, character, phone or model token."""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from espnet_lite.errors import InputError
from espnet_lite.files import read_lines
from espnet_lite.text.lexicon import missing_text, missing_words
from espnet_lite.text.phone import PhoneSplitter

SPACE = "<space>"  # the space between words as a token of the CER, as in ESPnet


def read_table(path: Path | str, *, fix: str | None = None) -> dict[str, tuple[str, int]]:
    """Return `{utterance: (the rest of its line, line number)}` of a Kaldi `text` or `utt2spk`.

    The rest may be empty: a hypothesis without words is a hypothesis.

    Raises:
        InputError: missing file, not UTF-8, CRLF, an empty line or an id twice, with file:line.
    """
    table: dict[str, tuple[str, int]] = {}
    for number, line in enumerate(read_lines(path, fix=fix), start=1):
        where = f"{path}:{number}"
        fields = line.split(maxsplit=1)
        if not fields or line[0].isspace():
            raise InputError("no utterance id at the start of the line", where=where)
        utterance = fields[0]
        if utterance in table:
            first = table[utterance][1]
            raise InputError(f"utterance '{utterance}' is already in line {first}", where=where)
        table[utterance] = (fields[1] if len(fields) == 2 else "", number)
    if not table:
        raise InputError("empty file, expected a line for each utterance", where=path, fix=fix)
    return table


def read_pairs(
    reference_path: Path | str, hypothesis_path: Path | str
) -> tuple[dict[str, tuple[str, str]], list[str]]:
    """Return `{utterance: (reference text, hypothesis text)}` in the reference's order, and the
    utterances without a hypothesis: theirs is empty, all their words are deleted.

    Raises:
        InputError: what `read_table` finds; a hypothesis of an utterance that has no reference,
            with its id and file:line. Nothing is left out in silence.
    """
    reference = read_table(reference_path, fix="score needs transcripts: is the set labelled?")
    again = "decode the set again: ./run.sh --stage decode"
    hypothesis = read_table(hypothesis_path, fix=again)
    for utterance, (_, line) in hypothesis.items():
        if utterance not in reference:
            unknown = sum(name not in reference for name in hypothesis)
            raise InputError(
                f"utterance '{utterance}' is not in {reference_path} ({unknown} such)",
                where=f"{hypothesis_path}:{line}",
                fix=again,
            )
    missing = [utterance for utterance in reference if utterance not in hypothesis]
    pairs = {
        name: (text, hypothesis.get(name, ("", 0))[0]) for name, (text, _) in reference.items()
    }
    return pairs, missing


def read_speakers(path: Path | str, utterances: Iterable[str]) -> dict[str, str]:
    """Return `{utterance: speaker}` of an `utt2spk` for these utterances.

    Raises:
        InputError: what `read_table` finds, an utterance without a speaker.
    """
    table = read_table(path, fix=f"mend it: fix_data {Path(path).parent}")
    speakers = {}
    for utterance in utterances:
        speaker = table.get(utterance, ("", 0))[0].strip()
        if not speaker:
            raise InputError(
                f"no speaker for utterance '{utterance}'",
                where=path,
                fix=f"mend it: fix_data {Path(path).parent}",
            )
        speakers[utterance] = speaker
    return speakers


def words(text: str) -> list[str]:
    """Return the words of a text, split at any white space."""
    return text.split()


def characters(text: str) -> list[str]:
    """Return the Unicode code points of the words, with `<space>` between two words.

    ESPnet counts the space too, so its CER and this one agree; a CER without spaces is lower or
    higher by a little. Nothing is normalized: "e" + combining accent are two characters.
    """
    return [SPACE if character == " " else character for character in " ".join(words(text))]


def tokens_of(tokenizer) -> Callable[[str], list[str]]:
    """Return the split of the TER: both sides through the model's own tokenizer, as in ESPnet.

    Pieces that its table lacks stay as they are written, so two unknown ones are not alike.
    """
    return lambda text: tokenizer.split(" ".join(words(text)))


def phones_of_references(
    pairs: Mapping[str, tuple[str, str]], splitter: PhoneSplitter, *, where: object
) -> dict[str, tuple[str, str]]:
    """Return the pairs with the words of the references said in phones, as training had them.

    Hypotheses of a model of phones are phones already. A splitter with an `oov_phone` says words
    without a pronunciation by it.

    Args:
        splitter: the model's.
        where: the references' file, to name it.

    Raises:
        InputError: a word without a pronunciation: their number, the first ten and an utterance.
    """
    if splitter.oov_phone is None:
        references = {name: reference for name, (reference, _) in pairs.items()}
        if missing := splitter.missing(references):
            words = missing_words(missing, {})
            raise InputError(
                f"the tokenizer has no pronunciation of {missing_text(words)}",
                where=f"{where}, utterance '{missing[words[0]]}'",
                fix="give --lexicon FILE with these words",
            )
    return {
        name: (" ".join(splitter.split(reference)), hypothesis)
        for name, (reference, hypothesis) in pairs.items()
    }


def without_symbols(
    pairs: Mapping[str, tuple[str, str]], symbols: Iterable[str]
) -> dict[str, tuple[str, str]]:
    """Return the pairs without the non-linguistic symbols (`<noise>`), on both sides.

    They are the tokenizer's; ESPnet scores without them too (remove_non_linguistic_symbols).
    """
    longest_first = sorted(symbols, key=len, reverse=True)
    if not longest_first:
        return dict(pairs)
    symbol = re.compile("|".join(map(re.escape, longest_first)))
    return {
        name: (symbol.sub("", reference), symbol.sub("", hypothesis))
        for name, (reference, hypothesis) in pairs.items()
    }
