"""The last steps of every corpus' preparation: compare counts with the published, write, validate, say."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from espnet_lite.data.data_dir import Utterance, write_data_dir
from espnet_lite.data.validate import validate_data_dir
from espnet_lite.errors import InputError


def count(utterances: Sequence[Utterance]) -> dict[str, int]:
    """Return the numbers of "utterances", "speakers" and "words"."""
    return {
        "utterances": len(utterances),
        "speakers": len({utterance.speaker for utterance in utterances}),
        "words": sum(len(utterance.text.split()) for utterance in utterances),
    }


def check_counts(
    name: str,
    utterances: Sequence[Utterance],
    published: Mapping[str, int],
    *,
    where: Path,
    fix: str,
) -> None:
    """Compare a set with what its publisher counted.

    Args:
        name: what the published set is called in the message.
        utterances: the set that was found.
        published: the counts to compare, by the names that `count` gives.
        where: the folder of the corpus.
        fix: what the user can do.

    Raises:
        InputError: another number of utterances, speakers or words.
    """
    found = count(utterances)
    for what, expected in published.items():
        if found[what] != expected:
            raise InputError(
                f"{found[what]} {what}, the published {name} has {expected}", where=where, fix=fix
            )


def check_audio(utterances: Sequence[Utterance]) -> None:
    """Raise InputError for the first utterance whose file cannot be read or is empty."""
    for utterance in utterances:
        try:
            is_empty = os.stat(utterance.audio).st_size == 0
        except OSError as error:
            raise InputError(
                f"cannot open the audio of '{utterance.id}': {error.strerror}",
                where=utterance.audio,
            ) from error
        if is_empty:
            raise InputError(
                f"empty file, expected the audio of '{utterance.id}'",
                where=utterance.audio,
                fix="get it anew",
            )


def write_sets(sets: Mapping[str, Sequence[Utterance]], data_dir: Path) -> None:
    """Write and validate the data directory `data_dir/<set>` of each set and print a line about it.

    Raises:
        InputError: audio that is missing or empty, before any set is written; what
            `write_data_dir` raises.
    """
    for utterances in sets.values():
        check_audio(utterances)
    for name, utterances in sets.items():
        write_data_dir(data_dir / name, utterances)
        validate_data_dir(data_dir / name)
        found = ", ".join(f"{number} {what}" for what, number in count(utterances).items())
        print(f"{data_dir / name}: {found}")
