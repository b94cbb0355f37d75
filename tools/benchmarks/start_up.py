#!/usr/bin/env python
"""How long transcribe takes from the command to the text of a first recording, each time in a new process.

    python tools/benchmarks/start_up.py model.esp [model.esp …] [--seconds 5] [--repeats 7] [--threads 2]

The recording is made here, 5 s long. `whole` is the program's wall time; the parts are those of a process that
does the same with the clock read in between: the interpreter until its first line, `import torch`, the toolkit's
own imports, the model (read, checked, arranged for the kernels), and the recording. Median of the repeats, after one
that fills the system's cache of files; kernels are compiled before. Memory is the most that a process had in RAM.

Goal: whole under 1 s.
"""

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import InputError, reports_input_errors

ROOT = Path(__file__).resolve().parents[2]
GOAL_SECONDS = 1.0
PARTS = ("interpreter", "import torch", "other imports", "model", "recording")
CHILD = """
import gc, json, sys, time
clock = [time.time()]
gc.disable()
import torch
torch.set_num_threads(int(sys.argv[3]))
clock.append(time.time())
from espnet_lite.decode.transcriber import Transcriber
from espnet_lite.profile.memory import peak_bytes
gc.enable(); gc.freeze()
clock.append(time.time())
recognizer = Transcriber.load(sys.argv[1])
clock.append(time.time())
recognizer.transcribe(sys.argv[2])
clock.append(time.time())
print(json.dumps([*clock, peak_bytes()]))
"""


def run(command: list[str]) -> tuple[float, str]:
    """Return the seconds of a process and what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    begun = time.perf_counter()
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, cwd=ROOT
    )
    taken = time.perf_counter() - begun
    if done.returncode:
        told = done.stderr.strip().splitlines()
        raise InputError(told[-1] if told else f"exit code {done.returncode}", where=command[2])
    return taken, done.stdout


def parts_of(model: str, recording: str, threads: int) -> dict[str, float]:
    """Return the seconds of each part of one process, and its memory in MB."""
    begun = time.time()
    _, printed = run([sys.executable, "-c", CHILD, model, recording, str(threads)])
    *clock, memory = json.loads(printed)
    seconds = [end - start for start, end in itertools.pairwise([begun, *clock])]
    return {**dict(zip(PARTS, seconds, strict=True)), "MB": memory / 1e6}


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Print the table; return 1 where a model takes longer than the goal."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("models", nargs="+", help="packed models")
    arguments.add_argument("--seconds", type=float, default=5.0, help="of the recording")
    arguments.add_argument("--repeats", type=int, default=7)
    arguments.add_argument("--threads", type=int, default=2)
    args = arguments.parse_args(argv)

    import soundfile

    from espnet_lite.environment import describe
    from espnet_lite.kernels.library import chosen_level
    from espnet_lite.runtime.format import read_header
    from espnet_lite.runtime.pack import synthetic_waveform

    machine = describe()
    print(
        f"s, median of {args.repeats}; {machine['cpu']}, {args.threads} of {machine['cores']} cores, "
        f"kernels for {chosen_level()}, torch {machine['torch']}, commit {machine['commit'] or 'none'}"
    )
    print(f"| model | MB of file | whole | {' | '.join(PARTS)} | MB of memory |")
    print(f"| --- |{' ---: |' * (3 + len(PARTS))}")
    slow = []
    with tempfile.TemporaryDirectory() as folder:
        for model in args.models:
            rate = read_header(model)["sample_rate"]
            recording = f"{folder}/recording.wav"
            soundfile.write(recording, synthetic_waveform(args.seconds, rate)[0].numpy(), rate)
            program = [sys.executable, "-m", "espnet_lite.bin.transcribe", model, recording]
            program += ["--threads", str(args.threads)]
            whole, parts = [], []
            for _ in range(args.repeats + 1):
                whole.append(run(program)[0])
                parts.append(parts_of(model, recording, args.threads))
            found = {key: statistics.median(each[key] for each in parts[1:]) for key in parts[0]}
            taken = statistics.median(whole[1:])
            slow += [model] if taken >= GOAL_SECONDS else []
            cells = [f"{Path(model).stat().st_size / 1e6:.1f}", f"{taken:.2f}"]
            cells += [f"{found[part]:.2f}" for part in PARTS] + [f"{found['MB']:.0f}"]
            print(f"| {Path(model).name} | {' | '.join(cells)} |", flush=True)
    if slow:
        print(f"not under {GOAL_SECONDS:g} s: {', '.join(slow)}")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
