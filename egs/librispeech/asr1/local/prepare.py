"""Prepare sets of LibriSpeech, or of mini LibriSpeech, as Kaldi data directories.

Read English speech from LibriVox' audio books, 16 kHz: V. Panayotov, G. Chen, D. Povey, S. Khudanpur,
"Librispeech: an ASR corpus based on public domain audio books", ICASSP 2015. CC BY 4.0.
https://www.openslr.org/12 and, its small part, https://www.openslr.org/31.

Every folder in the layout of the corpus (layout.py) is a set, under the name of the folder. A set under
a published name is compared with what was published (published.py). Without --corpus the published
sets are downloaded. --subsets names a table of sets that are parts of others (subsets.py).
"""

import sys
from pathlib import Path

from layout import folders_in, read_set
from published import OPENSLR, PUBLISHED
from subsets import read_subsets

from espnet_lite.bin.arguments import parser
from espnet_lite.data.corpus_sets import check_counts, write_sets
from espnet_lite.data.data_dir import Utterance
from espnet_lite.data.download import fetch, unpack
from espnet_lite.errors import InputError, reports_input_errors, unknown_name

OTHERWISE = "give a copy on this machine: --corpus DIR (the folder that holds the sets)"


def set_folder(corpus: Path, name: str) -> Path:
    """Return the folder of a set of a local copy.

    Raises:
        InputError: there is none; the message says which folders are there.
    """
    folder = corpus / name
    if name not in folders_in(corpus):
        there = ", ".join(folders_in(corpus)) or "no folders"
        raise InputError(f"no set '{name}', there are: {there}", where=corpus)
    return folder


def download_set(name: str, download_dir: Path, *, mirror: str = OPENSLR) -> Path:
    """Return the folder of a downloaded set; fetched only when it is not there.

    Raises:
        InputError: the download failed, or the archive is not the published one.
    """
    folder = download_dir / "LibriSpeech" / name
    if folder.is_dir():
        return folder
    published = PUBLISHED[name]
    archive = download_dir / f"{name}.tar.gz"
    if not archive.is_file():
        fetch(
            f"{mirror.rstrip('/')}/{published.resource}/{archive.name}",
            archive,
            otherwise=OTHERWISE,
            sha256=published.sha256,
            md5=published.md5,
            size_bytes=published.size_bytes,
        )
    unpack(archive, folder, inner=f"LibriSpeech/{name}", otherwise=OTHERWISE)
    return folder


def find_corpus(given: str) -> Path:
    """Return the folder that holds the sets: the one given, or LibriSpeech in it.

    Raises:
        InputError: no such folder.
    """
    corpus = Path(given)
    if not corpus.is_dir():
        raise InputError(
            f"no such folder: --corpus {given}", fix="expected the one that holds the sets"
        )
    inner = corpus / "LibriSpeech"
    return (inner if inner.is_dir() else corpus).resolve()


def check_distinct(sets: dict[str, list[Utterance]]) -> None:
    """Refuse an utterance that two sets hold, as train-clean-5 and train-clean-100 do.

    Raises:
        InputError: with the utterance and both sets.
    """
    homes: dict[str, str] = {}
    for name, utterances in sets.items():
        for utterance in utterances:
            other = homes.setdefault(utterance.id, name)
            if other != name:
                raise InputError(
                    f"utterance '{utterance.id}' is in {other} and in {name}",
                    fix="leave one set out",
                )


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Prepare the sets asked for: all of them, or none where one has a fault."""
    options = parser(__doc__.partition("\n")[0])
    options.add_argument("--corpus", default="", help="folder of a local copy; none: download it")
    options.add_argument("--download_dir", type=Path, default=Path("downloads"))
    options.add_argument("--data_dir", type=Path, default=Path("data"))
    options.add_argument("--mirror", default=OPENSLR, help="server: MIRROR/12/dev-clean.tar.gz")
    options.add_argument(
        "--expect_official",
        choices=("yes", "no"),
        default="yes",
        help="no: do not compare the counts of sets under a published name",
    )
    options.add_argument(
        "--sets",
        nargs="+",
        required=True,
        metavar="SET",
        help="names of the sets' folders, as words or in one word parted by blanks",
    )
    options.add_argument("--subsets", type=Path, help="table of sets that are parts of others")
    arguments = options.parse_args(argv)
    asked = list(dict.fromkeys(" ".join(arguments.sets).split()))
    subsets = read_subsets(arguments.subsets)
    names = list(dict.fromkeys(subsets[name].whole if name in subsets else name for name in asked))
    if not names:
        raise InputError("--sets names no set", fix="name folders, as --sets dev-clean test-clean")
    if arguments.corpus:
        corpus = find_corpus(arguments.corpus)
        folders = {name: set_folder(corpus, name) for name in names}
    else:
        for name in names:
            if name not in PUBLISHED:
                raise unknown_name(
                    "published set", name, PUBLISHED, where="no --corpus, so sets are downloaded"
                )
        folders = {
            name: download_set(name, arguments.download_dir, mirror=arguments.mirror)
            for name in names
        }
    sets = {name: read_set(folder) for name, folder in folders.items()}
    check_distinct({name: sets[name] for name in asked if name in sets})
    if arguments.expect_official == "yes":
        for name in names:
            if name in PUBLISHED:
                check_counts(
                    name,
                    sets[name],
                    PUBLISHED[name].counts,
                    where=folders[name],
                    fix="get the set anew; for a part of it say --expect_official no, better "
                    "rename its folder: results carry the name",
                )
    parts = {name: subsets[name].of(sets[subsets[name].whole]) for name in asked if name in subsets}
    write_sets(
        {name: parts[name] if name in parts else sets[name] for name in asked}, arguments.data_dir
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
