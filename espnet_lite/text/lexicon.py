"""Pronunciation lexicons: `WORD P1 P2 ...` a line, as CMUdict, Kaldi and LibriSpeech write them."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from espnet_lite.errors import InputError
from espnet_lite.files import read_lines
from espnet_lite.text.special_tokens import BLANK, SOS_EOS, UNKNOWN

COMMENT = ";;;"
MISSING_SHOWN = 10
_ALTERNATIVE = re.compile(r"(.+)\(\d+\)")  # CMUdict's READ(2) is another way to say READ
_PROBABILITY = re.compile(r"[01]?\.\d+(e-\d+)?")  # second field of Kaldi's lexiconp.txt

Pronunciations = Mapping[str, tuple[str, ...]]  # phones of each word


def read_lexicon(path: Path | str) -> dict[str, tuple[str, ...]]:
    """Return the first pronunciation of each word in a lexicon file.

    The first, because nothing here says which one was spoken, and lexicons begin with the usual
    one; what `READ(2)` or a second line of a word say is left out. Fields are parted by spaces or
    tabs. Empty lines, lines that begin with `;;;` and what follows a field that begins with `#`
    (comments of CMUdict, disambiguation symbols of Kaldi) are skipped. Phones are taken as
    written: AH0 and AH1 are two.

    Raises:
        InputError: with file and line: missing file, not UTF-8, CRLF, a word without phones, a
            probability among the phones, a phone that is a special token; or no words at all.
    """
    lines = read_lines(path)
    lines[:1] = [line.removeprefix("\ufeff") for line in lines[:1]]  # as some editors begin a file
    pronunciations = parse_lexicon(lines, where=path)
    if not pronunciations:
        raise InputError("no words, expected lines of '<word> <phones>'", where=path)
    return pronunciations


def parse_lexicon(lines: Iterable[str], *, where: object) -> dict[str, tuple[str, ...]]:
    """Return the first pronunciation of each word of a lexicon's lines; see `read_lexicon`."""
    pronunciations: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(lines, start=1):
        if line.startswith(COMMENT) or not line.strip():
            continue
        word, *phones = line.split()
        comment = next((i for i, phone in enumerate(phones) if phone.startswith("#")), len(phones))
        phones = tuple(phones[:comment])
        _check_phones(word, phones, where=f"{where}:{number}")
        alternative = _ALTERNATIVE.fullmatch(word)
        pronunciations.setdefault(alternative[1] if alternative else word, phones)
    return pronunciations


def _check_phones(word: str, phones: tuple[str, ...], *, where: str) -> None:
    if not phones:
        raise InputError(
            f"word '{word}' without phones, expected '<word> <phones>'",
            where=where,
            fix="add its phones or remove the line",
        )
    if _PROBABILITY.fullmatch(phones[0]):
        raise InputError(
            f"'{phones[0]}' where the first phone of '{word}' should be, as in Kaldi's lexiconp.txt",
            where=where,
            fix="give lexicon.txt, which has no probabilities",
        )
    for phone in phones:
        if phone in (BLANK, UNKNOWN, SOS_EOS):
            raise InputError(
                f"phone '{phone}' of '{word}' is a special token of every table",
                where=where,
                fix="name it otherwise, such as SPN",
            )


def lexicon_text(pronunciations: Pronunciations) -> str:
    """Return the words in byte order, `WORD P1 P2 ...` a line: `parse_lexicon` reads it back."""
    words = sorted(pronunciations, key=lambda word: word.encode("utf-8"))
    return "".join(f"{word} {' '.join(pronunciations[word])}\n" for word in words)


def pronounce(
    places: Mapping[str, str],
    pronunciations: Pronunciations,
    *,
    lexicon: Path | str,
    oov_phone: str | None = None,
) -> dict[str, tuple[str, ...]]:
    """Return the pronunciations of the words of `places`, and that of <unk> with `oov_phone`.

    Args:
        places: word → `file:line` where it stands first.
        pronunciations: as `read_lexicon` returns them.
        lexicon: their file, to name it.
        oov_phone: stands for every word without a pronunciation, those that come later included.

    Raises:
        InputError: words without a pronunciation and no `oov_phone`: their number, the first ten
            in byte order and where the first one stands.
    """
    if oov_phone is not None:
        _check_oov_phone(oov_phone)
    elif missing := missing_words(places, pronunciations):
        raise _missing_error(missing, places, pronunciations, lexicon=lexicon)
    found = {word: pronunciations[word] for word in places if word in pronunciations}
    return found if oov_phone is None else {**found, UNKNOWN: (oov_phone,)}


def missing_words(words: Iterable[str], pronunciations: Pronunciations) -> list[str]:
    """Return the words without a pronunciation, each once, in byte order."""
    missing = {word for word in words if word not in pronunciations}
    return sorted(missing, key=lambda word: word.encode("utf-8"))


def missing_text(missing: list[str]) -> str:
    """Return how many words have no pronunciation, and the first ten of them."""
    shown = " ".join(missing[:MISSING_SHOWN])
    first = f"the first {MISSING_SHOWN}: " if len(missing) > MISSING_SHOWN else ""
    return f"{len(missing)} {'word' if len(missing) == 1 else 'words'} ({first}{shown})"


def _missing_error(
    missing: list[str], places: Mapping[str, str], pronunciations: Pronunciations, *, lexicon
) -> InputError:
    return InputError(
        f"no pronunciation in {lexicon} of {missing_text(missing)}",
        where=places[missing[0]],
        fix=_case_fix(missing, pronunciations, lexicon=lexicon)
        or "add them to the lexicon, or give --oov_phone PHONE to say them all with one phone",
    )


def _case_fix(missing: list[str], pronunciations: Pronunciations, *, lexicon) -> str | None:
    """Return what to do when most missing words are there in the other case."""
    for name, other, change in (("upper", "lower", str.lower), ("lower", "upper", str.upper)):
        if 2 * sum(change(word) in pronunciations for word in missing) > len(missing):
            return (
                f"the text is {name} case, the lexicon {other}: "
                f"awk '{{$1 = to{name}($1)}} 1' {lexicon} > {Path(lexicon).name}.{name}"
            )
    return None


def _check_oov_phone(phone: str) -> None:
    if phone.split() != [phone] or phone in (BLANK, UNKNOWN, SOS_EOS) or phone.startswith("#"):
        raise InputError(f"'{phone}', expected one phone such as SPN", where="--oov_phone")
