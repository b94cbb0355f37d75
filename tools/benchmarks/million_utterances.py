#!/usr/bin/env python
"""Start of a training on many utterances: our table of them against a list of them.

    python tools/benchmarks/million_utterances.py [--utterances 1000000] [--runs 3]

Makes the dump folder of a corpus like LibriSpeech in a temporary folder (350 MB for a million: ids
like 1089-134686-0001, paths of 90 bytes to 64 short FLAC files, 35 words of text, seven utterances in
ten about 14.5 s long and the others 2 to 12 s), then starts a fresh process for each side, in turn:

    table    `read_data_dir`: offsets of lines in arrays, lines read when they are asked for
    list     the readable way: a dictionary for each table, a list of one object for each utterance

Each step has its seconds (median) and the peak of the process' resident memory up to its end. One
thread. Batches of 80 s, three speed factors, characters as tokens. What was written is still in the
system's file cache; reading it for the first time costs the disk's time on top, on both sides.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import reports_input_errors

ROOT = Path(__file__).resolve().parents[2]
SAMPLE_RATE = 16000
FILES = 64
PATH_BYTES = 90
CHAPTER = 50  # utterances
WORDS_PER_SECOND = 2.85
TEXT = (
    "the of and to in a i that he was it his her with as had for you not be at but she on him is my "
    "have said by all which so they from this were me or one an there what would when no who if "
    "their them been could then will out into more up than now some upon your very little time "
    "before about know over old down again little people nothing through morning himself together"
)
WORDS = TEXT.split(" ")
SIDES = ("table", "list")


def lengths_seconds(count: int, random):
    """Return `count` sorted lengths in seconds."""
    import numpy as np

    usual = random.random(count) < 0.7
    seconds = np.where(usual, random.normal(14.5, 1.3, count), random.uniform(2.0, 12.0, count))
    return np.sort(np.clip(seconds, 1.5, 24.5))


def make_audio(folder: Path, random) -> tuple[list[str], list[int]]:
    """Write the FLAC files and return their paths and samples."""
    import numpy as np
    import soundfile

    folder = folder / "audio".ljust(PATH_BYTES - len(str(folder)) - len("/00.flac") - 1, "_")
    folder.mkdir()
    paths, samples = [], []
    for number, seconds in enumerate(lengths_seconds(FILES, random)):
        wave = 0.1 * np.sin(np.arange(round(seconds * SAMPLE_RATE)) / 7.0)
        paths.append(str(folder / f"{number:02}.flac"))
        samples.append(len(wave))
        soundfile.write(paths[-1], wave, SAMPLE_RATE, subtype="PCM_16")
    return paths, samples


def make_corpus(folder: Path, *, utterances: int) -> None:
    """Write wav.scp, text, utt2spk and utt2num_samples, and the audio they name.

    Line by line, the numbers drawn in arrays: a list of 40 million ids would not fit many machines.
    """
    import numpy as np

    random = np.random.default_rng(0)
    paths, samples = make_audio(folder, random)
    chapters = -(-utterances // CHAPTER)
    readers = random.integers(10, 9000, chapters).tolist()
    # No chapter's name begins another's, so their utterances stand in the order of the chapters.
    names = sorted(
        (f"{reader}-{100000 + chapter}-", str(reader), min(CHAPTER, utterances - CHAPTER * chapter))
        for chapter, reader in enumerate(readers)
    )
    which = random.integers(0, FILES, utterances).astype(np.uint8)
    stream = [WORDS[i] for i in random.integers(0, len(WORDS), 100_000)]
    begins = random.integers(0, len(stream) - 100, utterances).astype(np.int32)
    counts = [round(WORDS_PER_SECOND * n / SAMPLE_RATE) for n in samples]
    tables = {
        "wav.scp": lambda reader, i, first: paths[i],
        "text": lambda reader, i, first: " ".join(stream[first : first + counts[i]]).upper(),
        "utt2spk": lambda reader, i, first: reader,
        "utt2num_samples": lambda reader, i, first: samples[i],
    }
    for table, value in tables.items():
        with (folder / table).open("w", encoding="utf-8") as file:
            at = 0
            for name, reader, size in names:
                of_chapter = which[at : at + size].tolist(), begins[at : at + size].tolist()
                file.writelines(
                    f"{name}{number:04} {value(reader, i, first)}\n"
                    for number, (i, first) in enumerate(zip(*of_chapter, strict=True))
                )
                at += size


def read_list(folder: Path) -> list:
    """Return the utterances as a list: the readable way, without segments."""
    from espnet_lite.data.data_dir import Utterance, parse_count
    from espnet_lite.data.tables import BLANKS, read_table

    names = ("wav.scp", "utt2spk", "text", "utt2num_samples")
    audio, speakers, texts, samples = (read_table(folder / name) for name in names)
    assert list(audio) == list(speakers) == list(texts) == list(samples)
    return [
        Utterance(
            id=key,
            audio=audio[key],
            start_seconds=None,
            end_seconds=None,
            text=BLANKS.sub(" ", texts[key]),
            speaker=speakers[key],
            num_samples=parse_count(samples[key], where=f"{folder}/utt2num_samples:{line}"),
        )
        for line, key in enumerate(audio, start=1)
    ]


def measure(side: str, folder: Path) -> dict[str, tuple[float, float]]:
    """Return the seconds of each step and the peak memory in 10⁶ bytes at its end."""
    steps = {}
    started = time.perf_counter()

    def done(step: str) -> None:
        nonlocal started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak_bytes = peak if sys.platform == "darwin" else peak * 1024
        steps[step] = (time.perf_counter() - started, peak_bytes / 1e6)
        started = time.perf_counter()

    import torch

    torch.set_num_threads(1)
    done("import torch")
    from espnet_lite.data.data_dir import read_data_dir
    from espnet_lite.data.loader import Loader
    from espnet_lite.text.tokenizer import train_tokenizer

    tokenizer = train_tokenizer("char", [" ".join(WORDS).upper()])
    done("import the rest")
    utterances = read_data_dir(folder) if side == "table" else read_list(folder)
    done("read the tables")
    loader = Loader(
        utterances,
        tokenizer,
        sample_rate=SAMPLE_RATE,
        batch_seconds=80.0,
        seed=0,
        speed_factors=(0.9, 1.0, 1.1),
    )
    assert loader.num_batches(0) > 1
    done("loader and plan")
    batches = loader.batches(0)
    next(batches)
    done("first batch")
    batches.close()
    return steps


def run_step(step: str, folder: Path, *, utterances: int) -> dict[str, tuple[float, float]]:
    """Run one step in a process of its own and return what it measured.

    The corpus is made so too: a process begins with the peak memory of the one that started it.
    """
    command = [sys.executable, __file__, "--step", step, "--folder", str(folder)]
    command += ["--utterances", str(utterances)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
    return json.loads(found.stdout)


def show(runs: dict[str, list[dict[str, tuple[float, float]]]], *, utterances: int) -> None:
    """Print the table."""
    from espnet_lite.environment import describe

    machine = describe()
    print(
        f"{utterances:,} utterances, median of {len(runs['table'])}; {machine['cpu']}, 1 thread, "
        f"torch {machine['torch']}, commit {machine['commit'] or 'none'}"
    )
    print("| step | table s | table peak MB | list s | list peak MB |")
    print("| --- | ---: | ---: | ---: | ---: |")
    totals = {
        side: statistics.median(sum(seconds for seconds, _ in run.values()) for run in runs[side])
        for side in SIDES
    }
    for step in runs["table"][0]:
        cells = [step]
        for side in SIDES:
            cells.append(f"{statistics.median(run[step][0] for run in runs[side]):.2f}")
            cells.append(f"{statistics.median(run[step][1] for run in runs[side]):.0f}")
        print(f"| {' | '.join(cells)} |")
    print(f"| together | {totals['table']:.2f} | | {totals['list']:.2f} | |")


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--utterances", type=int, default=1_000_000)
    arguments.add_argument("--runs", type=int, default=3, help="processes of each side")
    arguments.add_argument("--step", choices=("corpus", *SIDES), help="do only this, in --folder")
    arguments.add_argument("--folder", type=Path, help="of --step")
    args = arguments.parse_args(argv)

    if args.step == "corpus":
        make_corpus(args.folder, utterances=args.utterances)
        print("{}")
        return 0
    if args.step is not None:
        print(json.dumps(measure(args.step, args.folder)))
        return 0
    runs: dict[str, list[dict[str, tuple[float, float]]]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as name:
        run_step("corpus", Path(name), utterances=args.utterances)
        for _ in range(args.runs):
            for side in SIDES:
                runs[side].append(run_step(side, Path(name), utterances=args.utterances))
    show(runs, utterances=args.utterances)
    return 0


if __name__ == "__main__":
    sys.exit(main())
