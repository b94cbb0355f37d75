#!/usr/bin/env python
"""Seconds that scoring a large set takes: ours, in its parts, and NIST sclite.

    python tools/benchmarks/scoring.py --text train-clean-100.text.gz [--error_rate 0.1] [--runs 3]

The text is a Kaldi `text`, gzipped or not; the speaker is what stands before the first `-` of an
utterance's id. Hypotheses are made by seeded random edits: a word is substituted by another of the
text, deleted, or one is inserted before it, each with a third of the error rate. Timed in one process
and one thread, the fastest of the runs:

    align          WER alignments of all utterances
    by speaker     1,000 bootstrap draws of the speakers
    by utterance   1,000 bootstrap draws of the utterances
    score_asr      the whole program: reading, WER and CER, all files (docs/scoring.md)
    sclite         NIST's program on the same words (Debian package `sctk`), its summary alone

Prints whether sclite's counts are ours.
"""

import gzip
import os
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from espnet_lite.bin import score_asr
from espnet_lite.bin.arguments import parser
from espnet_lite.errors import InputError, reports_input_errors
from espnet_lite.files import write_text
from espnet_lite.score.bootstrap import rate_interval
from espnet_lite.score.sclite import find_sclite, sclite_report, write_trn
from espnet_lite.score.scoring import SetScore, score_pairs
from espnet_lite.score.transcripts import words


def read_text(path: Path) -> dict[str, str]:
    """Return `{utterance: text}` of a Kaldi `text`, gzipped or not."""
    if not path.is_file():
        raise InputError("no such file", where=path)
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    lines = [line.partition(" ") for line in raw.decode("utf-8").splitlines()]
    return {utterance: text for utterance, _, text in lines}


def edited(texts: dict[str, str], *, error_rate: float, seed: int) -> dict[str, str]:
    """Return hypotheses: the texts with random edits."""
    rng = random.Random(seed)
    vocabulary = sorted({word for text in texts.values() for word in text.split()})
    third = error_rate / 3
    hypotheses = {}
    for utterance, text in texts.items():
        said = []
        for word in text.split():
            if rng.random() < third:
                said.append(rng.choice(vocabulary))
            kind = rng.random()
            if kind >= 2 * third:
                said.append(word)
            elif kind >= third:
                said.append(rng.choice(vocabulary))
        hypotheses[utterance] = " ".join(said)
    return hypotheses


@dataclass(frozen=True)
class Seconds:
    """The least of all runs: on the clock, and those that processors were busy with it."""

    wall: float
    busy: float


def fastest(runs: int, function) -> tuple[Seconds, object]:
    """Return the seconds of the fastest of `runs` calls, and what the last one returned."""
    seconds, result = [], None
    for _ in range(runs):
        before, start = os.times(), time.perf_counter()
        result = function()
        wall, after = time.perf_counter() - start, os.times()
        seconds.append((wall, sum(after[:4]) - sum(before[:4])))
    return Seconds(*(min(one) for one in zip(*seconds, strict=True))), result


def time_program(
    texts: dict[str, str], hypotheses: dict[str, str], speakers: dict[str, str], runs: int
) -> Seconds:
    """Return the seconds of `score_asr` with all that it reads and writes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, table in (
            ("data/text", texts),
            ("data/utt2spk", speakers),
            ("hyp", hypotheses),
        ):
            write_text(folder / file, "".join(f"{key} {value}\n" for key, value in table.items()))
        arguments = ["--data_dir", "data", "--hyp", "hyp", "--output_dir", "score"]
        arguments = [a if a.startswith("--") else str(folder / a) for a in arguments]
        return fastest(runs, lambda: score_asr.main(arguments))[0]


def time_sclite(score: SetScore, runs: int) -> tuple[Seconds, str] | None:
    """Return sclite's seconds and report; None where it is not installed."""
    if find_sclite() is None:
        return None
    with tempfile.TemporaryDirectory() as name:
        reference, hypothesis = Path(name, "ref.trn"), Path(name, "hyp.trn")
        alignments = score.alignments.items()
        write_trn(reference, {n: a.reference for n, a in alignments}, speakers=score.speakers)
        write_trn(hypothesis, {n: a.hypothesis for n, a in alignments}, speakers=score.speakers)
        return fastest(runs, lambda: sclite_report(reference, hypothesis, reports=("rsum",)))


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    arguments = parser(__doc__.split("\n")[0])
    arguments.add_argument("--text", type=Path, required=True, help="a Kaldi text, or gzipped")
    arguments.add_argument("--error_rate", type=float, default=0.1)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--runs", type=int, default=3)
    arguments.add_argument(
        "--without",
        nargs="+",
        default=[],
        choices=("score_asr", "sclite"),
        help="what to leave out",
    )
    args = arguments.parse_args(argv)
    texts = read_text(args.text)
    hypotheses = edited(texts, error_rate=args.error_rate, seed=args.seed)
    speakers = {utterance: utterance.split("-")[0] for utterance in texts}
    pairs = {utterance: (text, hypotheses[utterance]) for utterance, text in texts.items()}

    aligning, score = fastest(args.runs, lambda: score_pairs(pairs, words, speakers=speakers))
    seconds = {"align": aligning}
    for name, counts in (("by speaker", score.by_speaker), ("by utterance", score.counts)):
        errors, tokens = zip(*((one.errors, one.tokens) for one in counts.values()), strict=True)
        seconds[name], interval = fastest(args.runs, lambda e=errors, t=tokens: rate_interval(e, t))
        print(f"WER {interval} {name}")
    if "score_asr" not in args.without:
        seconds["score_asr"] = time_program(texts, hypotheses, speakers, args.runs)
    total = score.total
    print(f"{total.utterances} utterances, {total.tokens} words, {len(score.by_speaker)} speakers")
    peer = None if "sclite" in args.without else time_sclite(score, args.runs)
    if peer is not None:
        seconds["sclite"], report = peer
        cells = next(line for line in report.split("\n") if line.strip().startswith("| Sum "))
        theirs = [int(cell) for cell in cells.replace("|", " ").split()[1:]]
        ours = [total.utterances, total.tokens, total.correct, total.substituted, total.deleted]
        ours += [total.inserted, total.errors, total.wrong_utterances]
        print(f"counts of sclite: {'the same' if ours == theirs else f'{theirs}, ours {ours}'}")
    for name, value in seconds.items():
        print(f"{name:<14}{value.wall:8.2f} s {value.busy:8.2f} s of processor time")
    return 0


if __name__ == "__main__":
    sys.exit(main())
