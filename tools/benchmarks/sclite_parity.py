#!/usr/bin/env python
"""Compare the scorer with NIST sclite (Debian package `sctk`) on random pairs, or on a score folder.

    python tools/benchmarks/sclite_parity.py                        10,000 random pairs
    python tools/benchmarks/sclite_parity.py --score_dir DIR        what `score_asr` wrote
    python tools/benchmarks/sclite_parity.py --write_golden FILE    store pairs and sclite's answer

Prints one table: pairs, pairs with other counts, pairs with another alignment, seconds of either; of
a score folder also whether each result.txt is what sclite prints, to the byte. Exit code 1 if a
single pair or, columns apart, a line of a file differs. kaldialign's sclite mode runs beside it where installed.
"""

import gzip
import itertools
import json
import random
import re
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

Pair = tuple[list[str], list[str]]


def random_pairs(count: int, *, seed: int) -> list[Pair]:
    """Return `count` pairs of plain tokens: unrelated or corrupted, empty sides included.

    Small vocabularies make many paths of the same cost, which is where aligners differ.
    """
    rng = random.Random(seed)
    pairs = []
    for _ in range(count):
        vocabulary = [chr(97 + i) for i in range(rng.choice([1, 2, 2, 3, 5, 10, 26]))]
        reference = rng.choices(vocabulary, k=rng.choice([0, 1, 2, 3, 4, 6, 9, 14, 20]))
        if rng.random() < 0.4:
            hypothesis = rng.choices(vocabulary, k=rng.choice([0, 1, 2, 3, 4, 6, 9, 14, 20]))
        else:
            hypothesis = _corrupted(reference, vocabulary, rng)
        pairs.append((reference, hypothesis))
    return pairs


def _corrupted(reference: list[str], vocabulary: list[str], rng: random.Random) -> list[str]:
    hypothesis = []
    rate = rng.choice([0.02, 0.1, 0.3])
    for token in reference:
        if rng.random() < rate:
            hypothesis.append(rng.choice(vocabulary))  # before it: an insertion
        kind = rng.random()
        if kind > 2 * rate:
            hypothesis.append(token)
        elif kind > rate:
            hypothesis.append(rng.choice(vocabulary))
    return hypothesis


def sclite_steps(pairs: list[Pair]) -> list[str]:
    """Return sclite's alignment of each pair as letters of `CSDI`."""
    from espnet_lite.score.sclite import read_sgml_steps, run_sclite, trn_id, write_trn

    names = [f"{index:06d}" for index in range(len(pairs))]
    speakers = {name: f"s{int(name) // 7}" for name in names}
    references, hypotheses = zip(*pairs, strict=True)
    with tempfile.TemporaryDirectory() as folder:
        reference, hypothesis = Path(folder, "ref.trn"), Path(folder, "hyp.trn")
        write_trn(reference, dict(zip(names, references, strict=True)), speakers=speakers)
        write_trn(hypothesis, dict(zip(names, hypotheses, strict=True)), speakers=speakers)
        run_sclite(reference, hypothesis, output_dir=Path(folder))
        steps = read_sgml_steps(Path(folder, "sclite.sgml"))
    return [steps[trn_id(speakers[name], name)] for name in names]


def read_trn(path: Path) -> dict[str, list[str]]:
    """Return `{trn id: tokens}`, escapes left in place: they are one-to-one."""
    transcripts = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        *tokens, name = line.split(" ")
        transcripts[name.strip("()")] = [token for token in tokens if token]
    return transcripts


def write_golden(path: Path, pairs: list[Pair]) -> None:
    """Write one JSON line `[reference, hypothesis, sclite's steps]` for each pair, gzipped."""
    rows = [
        json.dumps([" ".join(reference), " ".join(hypothesis), steps])
        for (reference, hypothesis), steps in zip(pairs, sclite_steps(pairs), strict=True)
    ]
    content = ("\n".join(rows) + "\n").encode()
    path.write_bytes(gzip.compress(content, compresslevel=9, mtime=0))


def kaldialign_steps(pairs: list[Pair]) -> list[str] | None:
    try:
        import kaldialign
    except ImportError:
        return None
    steps = []
    for reference, hypothesis in pairs:
        columns = kaldialign.align(reference, hypothesis, "*", sclite_mode=True)
        steps.append("".join(
            "I" if r == "*" else "D" if h == "*" else "C" if r == h else "S" for r, h in columns
        ))  # fmt: skip
    return steps


def _timed(function, argument):
    start = time.perf_counter()
    result = function(argument)
    return result, time.perf_counter() - start


def compare(title: str, pairs: list[Pair]) -> int:
    """Print the table of one comparison and return the number of pairs where we differ."""
    from espnet_lite.score.alignment import align

    wanted, sclite_seconds = _timed(sclite_steps, pairs)
    ours, our_seconds = _timed(lambda pairs: [align(*pair).steps for pair in pairs], pairs)
    other, other_seconds = _timed(kaldialign_steps, pairs)
    print(f"{title}: {len(pairs)} pairs, {sum(len(p[0]) for p in pairs)} reference tokens")
    print(f"{'aligner':<28}{'other counts':>14}{'other alignment':>17}{'seconds':>9}")
    print(f"{'NIST sclite -s (oracle)':<28}{'-':>14}{'-':>17}{sclite_seconds:>9.2f}")
    differing = 0
    for name, steps, seconds in (
        ("espnet_lite.score.align", ours, our_seconds),
        ("kaldialign sclite_mode", other, other_seconds),
    ):
        if steps is None:
            continue
        alignments = sum(a != b for a, b in zip(steps, wanted, strict=True))
        counts = sum(sorted(a) != sorted(b) for a, b in zip(steps, wanted, strict=True))
        print(f"{name:<28}{counts:>14}{alignments:>17}{seconds:>9.2f}")
        if steps is ours:
            differing = alignments
    return differing


def compare_report(folder: Path) -> int:
    """Print whether result.txt is what sclite prints, and return the lines that differ otherwise than
    in the blanks and stars that fill columns: those of tokens that are not ASCII do."""
    from espnet_lite.score.sclite import sclite_report

    theirs = sclite_report(folder / "ref.trn", folder / "hyp.trn").split("\n")
    ours = (folder / "result.txt").read_text(encoding="utf-8").split("\n")
    pairs = list(itertools.zip_longest(ours, theirs, fillvalue=""))
    differing = sum(one != other for one, other in pairs)
    filled = re.compile(r"[ *]+")
    otherwise = sum(filled.sub(" ", one) != filled.sub(" ", other) for one, other in pairs)
    print(
        f"{folder.name}/result.txt: {differing} of {len(theirs)} lines differ, {otherwise} "
        "otherwise than in the filling of columns"
    )
    return otherwise


def main(argv: list[str] | None = None) -> int:
    from espnet_lite.bin.arguments import parser

    arguments = parser(__doc__.split("\n")[0])
    arguments.add_argument("--pairs", type=int, default=10_000, help="number of random pairs")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--score_dir", type=Path, help="a folder that score_asr wrote")
    arguments.add_argument("--write_golden", type=Path, help="file to store, tests/golden/…")
    args = arguments.parse_args(argv)
    if args.write_golden:
        write_golden(args.write_golden, random_pairs(args.pairs, seed=args.seed))
        print(f"{args.write_golden}: {args.write_golden.stat().st_size} bytes")
        return 0
    if args.score_dir is None:
        return int(compare("random pairs", random_pairs(args.pairs, seed=args.seed)) > 0)
    differing = 0
    for reference_path in sorted(args.score_dir.glob("*/ref.trn")):
        folder = reference_path.parent
        reference, hypothesis = read_trn(reference_path), read_trn(folder / "hyp.trn")
        pairs = [(reference[key], hypothesis[key]) for key in reference]
        differing += compare(folder.name, pairs)
        differing += compare_report(folder)
    return int(differing > 0)


if __name__ == "__main__":
    sys.exit(main())
