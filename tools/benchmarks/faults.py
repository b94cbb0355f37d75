#!/usr/bin/env python3
"""What kill -9 costs: a tiny recipe is killed at random moments, run again, and must end the same.

egs/mini, of a few utterances and updates, runs once undisturbed: that is the reference. Then come
chains: run, kill -9, run again, … until it completes; all that it wrote is compared with the
reference, byte by byte (clocks, dates, commits and command lines left out). The kills are
dealt to all stages alike, and come at a random moment of theirs. One takes the whole tree of
processes, as a power cut or a scheduler does, or one of them, as the kernel does for want of memory.
A run that is refused because a process of the one before still lives is started again, as by a person
who reads that.

    tools/benchmarks/faults.py --folder FOLDER                        one short chain
    tools/benchmarks/faults.py --folder FOLDER --chains 10 --kills 10
"""

import argparse
import collections
import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RUN_SH = ROOT / "egs" / "mini" / "asr1" / "run.sh"
SIZES = "--train_utterances 16 --dev_utterances 4 --test_utterances 1"
PRETRAIN = """
model:
  encoder: {name: transformer, layers: 1, dim: 32, heads: 2, feed_forward: 64, dropout: 0.1}
  front_end: {name: log_mel, spec_augment: {frequency_masks: 0, time_masks: 0}}
  head: {name: cosine, dim: 16}
data: {batch_seconds: 10, min_seconds: 0.4}
train: {updates: 24, validate_every: 6, save_every: 3, average_best: 2, log_every: 1, threads: 1}
"""
TRAIN = """
model:
  encoder: {name: transformer, layers: 1, dim: 32, heads: 2, feed_forward: 64, dropout: 0.1}
  decoder: {name: transformer, layers: 1, heads: 2, feed_forward: 64}
data: {batch_seconds: 10}
train: {updates: 24, validate_every: 6, save_every: 3, average_best: 2, log_every: 1, threads: 1}
"""
# What a clock, a calendar or the machine's load says, under any key of a JSON file.
MEASURED = {
    *("minutes", "core_minutes", "seconds", "wall_seconds", "elapsed_seconds", "date", "written"),
    *("rtf", "timings", "audio_seconds_per_second", "data_wait_percent", "core_seconds", "command"),
    *(
        "mtime_ns",
        "commit",
        "reused_batches",
        "sha256",
        "bytes",
        "peak_mebibytes",
        "real_time_factor",
        "times",
    ),
}
# What a run says of itself, and what is drawn or written of times: not part of the result.
PASSED_OVER = re.compile(
    r"/tensorboard/|/logs?/|/images/|RESULTS\.md$|\.html$|/results/(profile|tables)/|/run\.sh$"
    r"|/\."  # stamps and the like, which tell of times of files
)
STAGES = (
    *("start", "data", "dump", "tokens", "units", "pretrain", "finetune", "quantize", "decode"),
    *("score", "profile"),
)
REFUSED = re.compile(r"in use by process \d+ on host")


@dataclass
class Chain:
    """What happened until a recipe was complete."""

    kills: collections.Counter = field(default_factory=collections.Counter)  # by stage
    of_one: int = 0  # kills of a single process
    runs: int = 0
    refused: int = 0  # runs that were told to wait for a process of the one before
    seconds: float = 0.0


def command_of(folder: Path) -> list[str]:
    """Return the recipe's command, every output in `folder`."""
    for name, text in (("pretrain_tiny.yaml", PRETRAIN), ("train_asr_tiny.yaml", TRAIN)):
        path = folder.parent / name
        if not path.exists():
            path.write_text(text)
    words = [str(RUN_SH), "--results_dir", str(folder), "--local_data_opts", SIZES]
    for option, place in (("datadir", "data"), ("dumpdir", "dump"), ("expdir", "exp")):
        words += [f"--{option}", str(folder / place)]
    words += ["--test_sets", "dev"]  # one set is decoded and scored: as much to kill, in less time
    words += ["--asr_config", str(folder.parent / "train_asr_tiny.yaml")]
    words += ["--pretrain_config", str(folder.parent / "pretrain_tiny.yaml")]
    words += ["--clusters", "8", "--sample_megabytes", "5", "--nj", "2", "--vocab_size", "30"]
    return [*words, "--profile_threads", "1", "--profile_runs", "1", "--skip_stages", "profile"]


def start(folder: Path, log: Path) -> subprocess.Popen:
    folder.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        return subprocess.Popen(
            command_of(folder),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )


def tree_of(pid: int) -> list[int]:
    """Return a process and all that descend from it, from /proc."""
    children = collections.defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                children[int(fields[1])].append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        todo += children[found[-1]]
    return found


def kill(process: subprocess.Popen, draw: random.Random) -> bool:
    """Kill the whole tree, or one process of it at random; return whether it was one."""
    tree = tree_of(process.pid)
    one = draw.random() < 0.3
    for pid in [draw.choice(tree)] if one else tree:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return one


def stage_at(log: Path, begin: int) -> str:
    """Return the stage that the log's last run was in."""
    with log.open("rb") as file:
        file.seek(begin)
        text = file.read().decode("utf-8", "replace")
    found = re.findall(r"^stage \d+ (\w+): (?!\d+ s$|up to date)", text, flags=re.M)
    return found[-1] if found else "start"


def run_undisturbed(folder: Path, log: Path) -> dict[str, float]:
    """Run the recipe in `folder` and return the seconds of each stage."""
    begun: dict[str, float] = {}
    process = start(folder, log)
    while process.poll() is None:
        begun.setdefault(stage_at(log, 0), time.monotonic())
        time.sleep(0.02)
    if process.returncode:
        raise SystemExit(f"error: it ended with {process.returncode}:\n{log.read_text()[-3000:]}")
    begins = [*begun.values(), time.monotonic()]
    return {name: after - at for name, at, after in zip(begun, begins, begins[1:], strict=False)}


def deal(
    lasting: dict[str, float], draw: random.Random, *, chains: int, kills: int
) -> list[list[tuple[str, float]]]:
    """Return the moments of each chain's kills: all stages in turn, so that each gets its share.

    A moment is a stage and the seconds since it began, within the time that it takes undisturbed.
    """
    dealt: list[str] = []
    while len(dealt) < chains * kills:
        turn = [name for name in lasting if name != "start"]
        draw.shuffle(turn)
        dealt += turn
    hands = [dealt[n * kills : (n + 1) * kills] for n in range(chains)]
    return [
        [(name, draw.uniform(0, lasting[name])) for name in sorted(hand, key=STAGES.index)]
        for hand in hands
    ]


def wait_for_moment(
    process: subprocess.Popen, log: Path, begin: int, moment: tuple[str, float]
) -> None:
    """Wait until a stage (or one after it) has run for so many seconds, or the process ended."""
    stage, seconds = moment
    while process.poll() is None and STAGES.index(stage_at(log, begin)) < STAGES.index(stage):
        time.sleep(0.02)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def run_chain(
    folder: Path, log: Path, draw: random.Random, *, moments: list[tuple[str, float]]
) -> Chain:
    """Run the recipe in `folder` until it is complete, killed at each of the moments on the way."""
    chain = Chain()
    left = list(moments)
    begun = time.monotonic()
    while True:
        begin = log.stat().st_size if log.exists() else 0
        process = start(folder, log)
        chain.runs += 1
        if left:
            wait_for_moment(process, log, begin, left[0])
        killed = process.poll() is None and bool(left)
        if killed:
            one = kill(process, draw)
            chain.of_one += one
            chain.kills[stage_at(log, begin)] += 1
            left.pop(0)
        code = process.wait(600)
        if code == 0:
            chain.seconds = time.monotonic() - begun
            return chain
        if killed:
            continue
        with log.open("rb") as file:
            file.seek(begin)
            said = file.read().decode("utf-8", "replace")
        if REFUSED.search(said):
            chain.refused += 1
            time.sleep(0.5)
            continue
        raise SystemExit(f"error: a run that nobody killed ended with {code}:\n{said[-3000:]}")


def content(path: Path) -> str:
    """Return a digest of what a file says, without what was measured."""
    raw = path.read_bytes()
    if path.suffix in (".json", ".jsonl"):
        lines = raw.decode().splitlines() if path.suffix == ".jsonl" else [raw.decode()]
        raw = json.dumps([unmeasured(json.loads(line)) for line in lines]).encode()
    elif path.suffix == ".esp":
        raw = without_record(raw)
    return hashlib.sha256(raw).hexdigest()


def unmeasured(value: object) -> object:
    if isinstance(value, dict):
        return {key: unmeasured(item) for key, item in value.items() if key not in MEASURED}
    if isinstance(value, list):
        return [unmeasured(item) for item in value]
    return value


def without_record(raw: bytes) -> bytes:
    """Return the tensors of a packed model: its header tells of minutes and dates."""
    return raw[8 + int.from_bytes(raw[:8], "little") :]


def results(folder: Path) -> dict[str, str]:
    """Return the digest of every file of a recipe that is a result."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = f"/{path.relative_to(folder)}"
        if path.is_file() and not PASSED_OVER.search(name):
            found[name] = content(path)
    return found


def leftovers(folder: Path) -> list[str]:
    """Return what should be gone once a recipe is complete."""
    names = [str(path.relative_to(folder)) for path in folder.rglob("*")]
    return [n for n in names if re.search(r"\.(tmp|old|lock|pending|part)(\.|$)|\.shards$", n)]


def main() -> int:
    """Print a table and return 0, or 1 where an output differs."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--folder", type=Path, required=True, help="to work in; emptied")
    options.add_argument("--chains", type=int, default=1)
    options.add_argument("--kills", type=int, default=4, help="in each chain")
    options.add_argument("--seed", type=int, default=0)
    arguments = options.parse_args()

    folder = arguments.folder.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    run, reference = folder / "run", folder / "reference"
    lasting = run_undisturbed(run, folder / "reference.log")
    run.rename(reference)
    expected = results(reference)
    seconds = sum(lasting.values())
    print(f"undisturbed: {seconds:.0f} s, {len(expected)} files compared", flush=True)

    draw = random.Random(arguments.seed)
    chains, differing = [], 0
    hands = deal(lasting, draw, chains=arguments.chains, kills=arguments.kills)
    for number, moments in enumerate(hands, start=1):
        log = folder / f"chain.{number}.log"
        chain = run_chain(run, log, draw, moments=moments)
        chains.append(chain)
        found = results(run)
        wrong = sorted(n for n in expected.keys() | found.keys() if expected.get(n) != found.get(n))
        wrong += [f"{name} is left over" for name in leftovers(run)]
        differing += len(wrong)
        print(
            f"chain {number}: {sum(chain.kills.values())} kills ({chain.of_one} of one process), "
            f"{chain.runs} runs, {chain.refused} refused, {chain.seconds:.0f} s; "
            + (f"DIFFERS: {', '.join(wrong[:8])}" if wrong else "all files the same"),
            flush=True,
        )
        if wrong:
            run.rename(folder / f"chain.{number}")
        else:
            shutil.rmtree(run)
    kills = sum((chain.kills for chain in chains), collections.Counter())
    names = [name for name in STAGES if name == "start" or name in lasting]
    print("\n| " + " | ".join(["killed in", *names, "all"]) + " |")
    print("| --- |" + " ---: |" * (len(names) + 1))
    print("| kills | " + " | ".join(str(kills[n]) for n in names) + f" | {sum(kills.values())} |")
    print(f"\n{len(chains)} chains complete, {differing} files differ")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
