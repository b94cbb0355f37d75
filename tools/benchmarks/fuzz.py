#!/usr/bin/env python3
"""Damaged files by the thousand: the kinds and the damage of tests/fuzz, drawn by chance, without pytest.

    tools/benchmarks/fuzz.py [--mutants 330] [--seed 0] [KIND ...]

Prints for each kind how many mutants were read as if nothing were wrong, how many were refused in one line,
and the longest time of one; and every other exception, with the steps that lead to it.
"""

import argparse
import importlib.util
import random
import sys
import tempfile
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def load_tests():
    """Return the module of tests/fuzz."""
    path = ROOT / "tests" / "fuzz" / "test_readers.py"
    spec = importlib.util.spec_from_file_location("fuzzed_readers", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def draw_steps(draw: random.Random, words: tuple[bytes, ...]) -> list[tuple]:
    """Return one to four steps for `damaged`."""
    what = {
        "change": lambda: draw.randbytes(draw.randint(1, 4)),
        "insert": lambda: draw.choice([*words, draw.randbytes(draw.randint(0, 8))]),
        "replace": lambda: draw.choice(words),
        "cut": lambda: draw.randint(1, 64),
        "double": lambda: draw.randint(1, 256),
        "end": lambda: None,
        "flip": lambda: draw.randint(0, 7),
    }
    kinds = draw.choices(list(what), k=draw.randint(1, 4))
    return [(kind, draw.random(), what[kind]()) for kind in kinds]


def main() -> int:
    """Return 0, or 1 where a reader ended in another way than InputError."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--mutants", type=int, default=330, help="of each kind")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("kinds", nargs="*", metavar="KIND", help="default: all")
    arguments = options.parse_args()
    tests = load_tests()
    draw = random.Random(arguments.seed)
    tried = faults = 0
    print("| kind | read | refused | other | longest s |\n| --- | ---: | ---: | ---: | ---: |")
    for name in arguments.kinds or tests.KINDS:
        kind = tests.KINDS[name]
        with tempfile.TemporaryDirectory() as folder:
            kind.make(Path(folder))
            whole = (Path(folder) / kind.file).read_bytes()
            taken = other = 0
            longest = 0.0
            for _ in range(arguments.mutants):
                steps = draw_steps(draw, tests.WORDS)
                started = time.process_time()
                try:
                    taken += tests.try_reader(
                        kind, Path(folder), whole, tests.damaged(whole, steps)
                    )
                except Exception:  # noqa: BLE001 - the finding itself
                    other += 1
                    print(f"{name}: {steps}\n{traceback.format_exc()}", file=sys.stderr)
                longest = max(longest, time.process_time() - started)
        refused = arguments.mutants - taken - other
        print(f"| {name} | {taken} | {refused} | {other} | {longest:.2f} |", flush=True)
        tried += arguments.mutants
        faults += other
    print(f"\n{tried:,} mutants, {faults} neither read nor refused in a line")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
