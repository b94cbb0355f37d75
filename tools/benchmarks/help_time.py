"""Time `python -m espnet_lite.bin.X --help` for every program: each should answer in under 0.5 s.

Usage: python tools/benchmarks/help_time.py [--repeats 5]
Beside it stands `import torch` alone, which a program that imported it at its top would pay.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIMIT_SECONDS = 0.5


def median_seconds(command: list[str], repeats: int) -> float:
    """Return the median wall time of `command` over `repeats` runs, after one to warm caches."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    seconds = []
    for _ in range(repeats + 1):
        begun = time.perf_counter()
        subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds[1:])


def main() -> int:
    """Print the table; return 1 when a program is slower than the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    programs = sorted((ROOT / "espnet_lite" / "bin").glob("*_*.py"))
    programs = [path.stem for path in programs if path.stem != "__init__"]
    slow = []
    print(f"Python {platform.python_version()}, {platform.machine()}, median of {repeats}")
    print("| program | seconds |\n| --- | --- |")
    for program in programs:
        command = [sys.executable, "-m", f"espnet_lite.bin.{program}", "--help"]
        seconds = median_seconds(command, repeats)
        slow += [program] if seconds >= LIMIT_SECONDS else []
        print(f"| {program} | {seconds:.3f} |")
    seconds = median_seconds([sys.executable, "-c", "import torch"], repeats)
    print(f"| (import torch) | {seconds:.3f} |")
    if slow:
        print(f"not under {LIMIT_SECONDS} s: {', '.join(slow)}")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
