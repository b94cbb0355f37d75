"""Local decoding processes: started together, stopped together, the first failure told in full."""

import os
import re
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

POLL_SECONDS = 0.05
STOP_SECONDS = 10.0  # a job may take this long to leave after SIGTERM
TAIL_LINES = 15
_NAMES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Failure:
    """A job that did not end well: `message` has its log's tail, `exit_code` is what to pass on."""

    message: str
    exit_code: int


def run_jobs(
    commands: Sequence[Sequence[str]], logs: Sequence[Path], *, threads: int
) -> Failure | None:
    """Run one process a command, output into its log; return None when all ended with 0.

    At the first failure the others are stopped. A job killed by signal n counts as 128 + n.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    processes: list[subprocess.Popen] = []
    try:
        for command, log in zip(commands, logs, strict=True):
            with log.open("wb") as file:
                processes.append(
                    subprocess.Popen(
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=file,
                        stderr=subprocess.STDOUT,
                        env=environment,
                    )
                )
        while True:
            codes = [process.poll() for process in processes]
            for job, code in enumerate(codes):
                if code:
                    return _failure(job, len(codes), code if code > 0 else 128 - code, logs[job])
            if None not in codes:
                return None
            time.sleep(POLL_SECONDS)
    finally:
        _stop(processes)


def _stop(processes: Sequence[subprocess.Popen]) -> None:
    running = [process for process in processes if process.poll() is None]
    for process in running:
        process.terminate()
    for process in running:
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _failure(job: int, jobs: int, exit_code: int, log: Path) -> Failure:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    batches = [line for line in lines if re.match(r"batch \d+: ", line)]
    during = ""
    if batches:
        names = batches[-1].split()[2:]
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        during = f" while decoding {', '.join(names[:_NAMES_SHOWN])}{more}"
    told = [line if len(line) < 300 else line[:300] + "…" for line in lines[-TAIL_LINES:]]
    head = f"error: job {job} of {jobs} ended with code {exit_code}{during}; the end of {log}:"
    return Failure("\n".join([head, *(f"  {line}" for line in told)]), exit_code)
