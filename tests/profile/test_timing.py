"""How often and on what a model is run, and whose memory is counted; never how fast."""

import subprocess
import sys

import pytest
import torch

from espnet_lite.profile import timing as timing_module
from espnet_lite.profile.network import read_subject
from espnet_lite.profile.timing import Timing, time_subject


@pytest.fixture(autouse=True)
def every_test_puts_back(global_state_is_put_back):
    """Use the fixture of all tests in each of this file, and put back the number of threads."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_short_clips_first_one_run_to_warm_up_and_the_median(tmp_path, monkeypatch):
    seen = []
    times = [0, 1, 10, 14, 20, 22, 30, 31, 40, 41, 50, 51]  # runs of 1, 4, 2 seconds; then of 1
    clock = iter(map(float, times))
    monkeypatch.setattr(timing_module.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(
        timing_module,
        "_runnable",
        lambda subject: (lambda waveform, lengths: seen.append(waveform.size(1)), 100),
    )
    path = tmp_path / "x.yaml"
    path.write_text("model: {}")
    found = list(time_subject(read_subject(path), threads=1, clip_seconds=[3.0, 2.0], runs=3))
    assert seen == [200] * 4 + [300] * 4
    assert [(t.audio_seconds, t.seconds, t.fastest_seconds) for t in found] == [
        (2.0, 2.0, 1.0),
        (3.0, 1.0, 1.0),
    ]
    assert found[0].rtf == 1.0 and torch.get_num_threads() == 1


def test_long_runs_are_enough_before_all_are_done(tmp_path, monkeypatch):
    clock = iter([0.0, 20.0, 20.0, 40.0])
    monkeypatch.setattr(timing_module.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(timing_module, "_runnable", lambda subject: (lambda *_: None, 100))
    path = tmp_path / "x.yaml"
    path.write_text("model: {}")
    [found] = time_subject(read_subject(path), threads=1, clip_seconds=[1.0], runs=5)
    assert (found.runs, found.seconds) == (2, 20.0)


def test_rtf_by_hand():
    assert Timing(2, 15.0, 0.75, 0.5, 5, 1).rtf == 0.05


def test_peak_memory_is_not_that_of_the_process_that_started_this_one():
    program = """
import subprocess, sys
from espnet_lite.profile.memory import peak_bytes
if len(sys.argv) > 1:
    print(peak_bytes())
else:
    held = b"x" * (200 << 20)
    print(peak_bytes(), flush=True)
    subprocess.run([sys.executable, "-c", sys.orig_argv[2], "child"])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    parent, child = map(int, done.stdout.split())
    assert parent > 200 << 20 > 100 << 20 > child > 1 << 20
