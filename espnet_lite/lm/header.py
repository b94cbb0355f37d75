"""What a language model's file says of itself. Imports no torch: the parent process of decoding asks.

A language model is one packed file (runtime/format.py), lm.esp, whose header says `kind: lm`:

    {kind: "lm", family: ngram | transformer, record, …}

or, for an n-gram, an ARPA file.
"""

from pathlib import Path

from espnet_lite.errors import InputError
from espnet_lite.runtime.format import read_checked_header

KIND = "lm"
NGRAM, TRANSFORMER = "ngram", "transformer"
FIX = "give the lm.esp that stage lm made, or an n-gram's ARPA file (*.arpa, *.arpa.gz)"


def is_arpa(path: Path) -> bool:
    """Return whether a file's name is that of an ARPA file."""
    return path.name.endswith((".arpa", ".arpa.gz"))


def read_lm_header(path: Path) -> dict:
    """Return the header of a language model, of which an ARPA file has the family alone.

    Raises:
        InputError: no such file, a damaged one, or one of something else.
    """
    if not path.is_file():
        raise InputError("no such language model", where=path, fix=FIX)
    if is_arpa(path):
        return {"kind": KIND, "family": NGRAM, "record": {}}
    return check_kind(read_checked_header(path), path)


def check_kind(header: dict, path: Path) -> dict:
    """Return the header of a packed file that is a language model.

    Raises:
        InputError: it is something else.
    """
    if header.get("kind") != KIND or header.get("family") not in (NGRAM, TRANSFORMER):
        raise InputError("a packed file, but no language model", where=path, fix=FIX)
    return header
