"""Prepare CMU AN4 (the "census" database) as Kaldi data directories train, dev and test.

Recorded at Carnegie Mellon University about 1991: people spell and say names, addresses, telephone
numbers and control words; 16 kHz, 16 bit, close-talking microphone. A. Acero, "Acoustical and
environmental robustness in automatic speech recognition", Kluwer 1993. Free for any purpose; its
licence asks that its notice is kept.

The official layout, whatever the format of the audio:

    etc/an4_train.fileids            an4_clstk/fash/an251-fash-b
    etc/an4_train.transcription      <s> YES </s> (an251-fash-b)     or without the marks
    wav/an4_clstk/fash/an251-fash-b.sph                              or .flac, .wav
    the same with an4_test and an4test_clstk

The corpus has no development set: dev is all utterances of the training speakers named in
dev_speakers.txt, every ninth of the sorted list from the fifth on. Utterance ids are
SPEAKER-RECORDING-TYPE (`fash-an251-b`), as in ESPnet.

--unlabelled DIR adds the set `unlabelled`, without texts: all audio below DIR, whatever its layout,
for pre-training.
"""

import re
import sys
from pathlib import Path

from espnet_lite.bin.arguments import parser
from espnet_lite.data.corpus_sets import check_counts, write_sets
from espnet_lite.data.data_dir import Utterance, write_data_dir
from espnet_lite.data.download import fetch, unpack
from espnet_lite.data.importers.assemble import assemble
from espnet_lite.data.importers.entry import ImportOptions
from espnet_lite.data.importers.folder import import_folder
from espnet_lite.data.validate import validate_data_dir
from espnet_lite.errors import InputError, reports_input_errors
from espnet_lite.files import read_lines

URL = "http://www.speech.cs.cmu.edu/databases/an4/an4_sphere.tar.gz"
DEV_SPEAKERS = Path(__file__).with_name("dev_speakers.txt")
AUDIO_SUFFIXES = (".sph", ".flac", ".wav")
OTHERWISE = "give a copy on this machine: --corpus DIR (the folder that holds etc and wav)"


# What the published corpus holds, before dev is taken out of train. 773 is the number of words that
# published error rates divide by.
FACTS = {
    "train": {"utterances": 948, "speakers": 74},
    "test": {"utterances": 130, "speakers": 10, "words": 773},
}

_FILE_ID = re.compile(r"(?P<folder>[\w/]+)/(?P<speaker>\w+)/(?P<stem>\w+-\w+-\w+)")
_TRANSCRIPT = re.compile(r"(?:<s>)?(?P<words>[^()<>]*)(?:</s>)?\s*\((?P<stem>[^()\s]+)\)\s*")
_WORDS = re.compile(r"[A-Z']+( [A-Z']+)*")


def read_part(corpus: Path, part: str) -> list[Utterance]:
    """Return the utterances of `part` (train or test) of the corpus.

    Raises:
        InputError: a file of the corpus is missing, or a line is not what the corpus has.
    """
    file_ids = corpus / "etc" / f"an4_{part}.fileids"
    transcription = corpus / "etc" / f"an4_{part}.transcription"
    stems = _stems(file_ids)
    texts = _texts(transcription)
    for number, stem in enumerate(stems, start=1):
        if stem not in texts:
            raise InputError(
                f"'{stem}' has no line in {transcription}", where=f"{file_ids}:{number}"
            )
    for number, stem in enumerate(texts, start=1):
        if stem not in stems:
            raise InputError(
                f"'{stem}' has no line in {file_ids}", where=f"{transcription}:{number}"
            )
    utterances = []
    for number, (stem, folder) in enumerate(stems.items(), start=1):
        speaker = folder.rpartition("/")[2]
        recording, _, kind = stem.split("-")
        utterances.append(
            Utterance(
                id=f"{speaker}-{recording}-{kind}",
                audio=str(_audio(corpus / "wav" / folder / stem, where=f"{file_ids}:{number}")),
                start_seconds=None,
                end_seconds=None,
                text=texts[stem],
                speaker=speaker,
                num_samples=None,
            )
        )
    return utterances


def _stems(path: Path) -> dict[str, str]:
    """Return stem → folder below wav/, in the order of the file."""
    stems = {}
    for number, line in enumerate(_corpus_lines(path), start=1):
        match = _FILE_ID.fullmatch(line.strip())
        if match is None or match["stem"].split("-")[1] != match["speaker"]:
            raise InputError(
                f"'{line}', expected a line like 'an4_clstk/fash/an251-fash-b'",
                where=f"{path}:{number}",
            )
        if match["stem"] in stems:
            raise InputError(f"duplicate '{match['stem']}'", where=f"{path}:{number}")
        stems[match["stem"]] = f"{match['folder']}/{match['speaker']}"
    return stems


def _texts(path: Path) -> dict[str, str]:
    """Return stem → words, in the order of the file."""
    texts = {}
    for number, line in enumerate(_corpus_lines(path), start=1):
        match = _TRANSCRIPT.fullmatch(line)
        words = " ".join(match["words"].split()) if match else ""
        if not _WORDS.fullmatch(words):
            raise InputError(
                f"'{line}', expected capital words and an id like 'YES (an251-fash-b)'",
                where=f"{path}:{number}",
            )
        if match["stem"] in texts:
            raise InputError(f"duplicate '{match['stem']}'", where=f"{path}:{number}")
        texts[match["stem"]] = words
    return texts


def _corpus_lines(path: Path) -> list[str]:
    if not path.is_file():
        raise InputError(
            "no such file, so this is not the AN4 corpus, expected etc/an4_train.fileids, "
            "etc/an4_train.transcription, the same for an4_test, and wav/",
            where=path,
            fix=OTHERWISE,
        )
    return read_lines(path)


def _audio(stem: Path, *, where: str) -> Path:
    for suffix in AUDIO_SUFFIXES:
        path = stem.with_name(stem.name + suffix)
        if path.is_file():
            return path
    if stem.with_name(stem.name + ".raw").is_file():
        raise InputError(
            f"{stem}.raw has no header (its byte order is unknown), expected .sph, .flac or .wav",
            where=where,
            fix="use the SPHERE release of the corpus",
        )
    raise InputError(f"no audio {stem} with {', '.join(AUDIO_SUFFIXES)}", where=where)


def split_dev(utterances: list[Utterance]) -> tuple[list[Utterance], list[Utterance]]:
    """Return (train, dev): dev is every utterance of the speakers in dev_speakers.txt.

    Raises:
        InputError: one of the two would be empty.
    """
    speakers = set(read_lines(DEV_SPEAKERS))
    train = [utterance for utterance in utterances if utterance.speaker not in speakers]
    dev = [utterance for utterance in utterances if utterance.speaker in speakers]
    for name, part in (("train", train), ("dev", dev)):
        if not part:
            raise InputError(
                f"no utterances are left for {name} of {len(utterances)} training utterances",
                where=DEV_SPEAKERS,
            )
    return train, dev


def read_unlabelled(folder: Path) -> list[Utterance]:
    """Return all audio below a folder, as utterances without texts.

    A speaker is the folder that a file lies in, or the utterance where that names nobody.

    Raises:
        InputError: no such folder, no audio in it, an empty file, two utterances with one name.
    """
    options = ImportOptions(need_text=False)
    rows = assemble(import_folder(folder.absolute(), options), options=options).rows
    return [row.utterance for row in rows]


def download_corpus(url: str, download_dir: Path) -> Path:
    """Return the folder of the downloaded corpus; fetched only when it is not there.

    Raises:
        InputError: the download failed.
    """
    corpus = download_dir / "an4"
    if not corpus.is_dir():
        archive = download_dir / "an4_sphere.tar.gz"
        if not archive.is_file():
            fetch(url, archive, otherwise=OTHERWISE)
        unpack(archive, corpus, otherwise=OTHERWISE)
    return corpus


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Prepare all three sets, and `unlabelled` where it is asked for."""
    options = parser(__doc__.partition("\n")[0])
    options.add_argument("--corpus", default="", help="folder of a local copy; none: download it")
    options.add_argument("--download_dir", type=Path, default=Path("downloads"))
    options.add_argument("--data_dir", type=Path, default=Path("data"))
    options.add_argument("--url", default=URL, help="where the SPHERE archive is fetched")
    options.add_argument(
        "--expect_official",
        choices=("yes", "no"),
        default="yes",
        help="no: do not compare the counts with the published corpus",
    )
    options.add_argument(
        "--unlabelled", type=Path, help="folder of speech to pre-train on: the set `unlabelled`"
    )
    arguments = options.parse_args(argv)
    if arguments.corpus:
        corpus = Path(arguments.corpus)
        if not corpus.is_dir():
            raise InputError(f"no such folder: --corpus {corpus}", fix=OTHERWISE)
    else:
        corpus = download_corpus(arguments.url, arguments.download_dir)
    parts = {part: read_part(corpus, part) for part in FACTS}
    if arguments.expect_official == "yes":
        for part, utterances in parts.items():
            check_counts(
                f"{part} of AN4",
                utterances,
                FACTS[part],
                where=corpus,
                fix="get the corpus anew, or say --expect_official no for a part of it",
            )
    train, dev = split_dev(parts["train"])
    unlabelled = read_unlabelled(arguments.unlabelled) if arguments.unlabelled else []
    write_sets({"train": train, "dev": dev, "test": parts["test"]}, arguments.data_dir)
    if unlabelled:
        target = arguments.data_dir / "unlabelled"
        write_data_dir(target, unlabelled)
        validate_data_dir(target, need_text=False)
        print(f"{target}: {len(unlabelled)} utterances without texts")
    return 0


if __name__ == "__main__":
    sys.exit(main())
