"""A source divided into sets: no speaker in two of them, the same ones for the same seed."""

import hashlib
import re
from collections.abc import Iterable, Sequence

from espnet_lite.data.importers.assemble import Imported
from espnet_lite.errors import InputError

SPLIT_BY = ("speaker", "utterance")
# A set may become this much larger than asked for by the speaker that fills it.
LARGEST_OVERSHOOT = 0.5
_BY_UTTERANCE = "divide by utterance: --split_by utterance (speakers are then in several sets)"


def parse_shares(words: Iterable[str]) -> dict[str, float]:
    """Return name → share for words like `train=0.9`.

    Raises:
        InputError: not such a word, a name twice or that is no folder name, shares that are not
            positive or do not add up to 1.
    """
    shares: dict[str, float] = {}
    for word in words:
        name, _, number = word.partition("=")
        check_set_name(name, where=f"--split {word}")
        try:
            shares_of_name = float(number)
        except ValueError:
            shares_of_name = 0.0
        if not 0 < shares_of_name <= 1:
            raise InputError(
                f"share '{number}', expected NAME=SHARE above 0, e.g. train=0.9",
                where=f"--split {word}",
            )
        if name in shares:
            raise InputError(f"set '{name}' twice", where=f"--split {word}")
        shares[name] = shares_of_name
    if shares and abs(sum(shares.values()) - 1) > 1e-6:
        raise InputError(f"shares add up to {sum(shares.values()):g}, expected 1", where="--split")
    return shares


def check_set_name(name: str, *, where: str) -> None:
    """Raise InputError unless `name` can be the name of a data directory."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise InputError(
            f"set '{name}', expected a folder name of letters, digits, '.', '_' and '-'",
            where=where,
        )


def divide(
    rows: Sequence[Imported], shares: dict[str, float], *, by: str, seed: int, where: object
) -> dict[str, list[Imported]]:
    """Return set → its utterances, shares of the number of utterances.

    By speaker, the largest set is what the others leave; they take whole speakers in an order
    drawn by the seed, until they have their share.

    Raises:
        InputError: fewer speakers (or utterances) than sets, or speakers that are not known.
    """
    if by == "speaker":
        unknown = [row for row in rows if not row.has_speaker]
        if unknown:
            raise InputError(
                f"the speakers of {len(unknown)} of {len(rows)} utterances are not known "
                f"(first: {unknown[0].utterance.id}), so sets cannot be kept apart by speaker",
                where=where,
                fix=f"say who speaks (--speaker_column, --speaker_from), or {_BY_UTTERANCE}",
            )
    groups: dict[str, list[Imported]] = {}
    for row in rows:
        key = row.utterance.speaker if by == "speaker" else row.utterance.id
        groups.setdefault(key, []).append(row)
    if len(groups) < len(shares):
        raise InputError(
            f"{len(groups)} {by}{'s' if len(groups) != 1 else ''} for {len(shares)} sets "
            f"({', '.join(shares)}), expected at least {len(shares)}",
            where=where,
            fix=_BY_UTTERANCE if by == "speaker" else "ask for fewer sets",
        )
    waiting = sorted(groups, key=lambda key: _draw(key, seed))
    sets: dict[str, list[Imported]] = {name: [] for name in shares}
    rest, *small = sorted(shares, key=lambda name: -shares[name])
    for position, name in enumerate(reversed(small)):
        still_empty = len(small) - position  # of the sets after this one, the rest included
        wanted = shares[name] * len(rows)
        chosen = _fill(waiting, groups, wanted, at_most=len(waiting) - still_empty)
        sets[name] = [row for key in chosen for row in groups[key]]
        taken = set(chosen)
        waiting = [key for key in waiting if key not in taken]
    sets[rest] = [row for key in waiting for row in groups[key]]
    return sets


def _fill(
    waiting: Sequence[str], groups: dict[str, list[Imported]], wanted: float, *, at_most: int
) -> list[str]:
    """Return the groups for a set of about `wanted` utterances: at least one, at most `at_most`."""
    chosen: list[str] = []
    number = 0
    for key in waiting:
        if number >= wanted or len(chosen) == at_most:
            break
        if number + len(groups[key]) <= wanted + LARGEST_OVERSHOOT * max(wanted, 1):
            chosen.append(key)
            number += len(groups[key])
    return chosen or [min(waiting, key=lambda key: len(groups[key]))]


def _draw(key: str, seed: int) -> bytes:
    """Return what orders the groups: a hash, so that other groups change nothing."""
    return hashlib.sha256(f"{seed} {key}".encode()).digest()
