"""A real Slurm of two nodes on this machine (tools/slurm_local.sh): arrays, a drained node, signals."""

import os
import re
import shutil
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from espnet_lite.jobs.array import TASK, Array, Word, words
from espnet_lite.jobs.cluster import load_cluster
from espnet_lite.jobs.launcher import Launcher
from espnet_lite.jobs.queued import Queue

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "slurm_local.sh"
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or not all(map(shutil.which, PROGRAMS)),
        reason="needs root and slurm-wlm: tools/slurm_local.sh start FOLDER installs it",
    ),
]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slurm")
    subprocess.run([SCRIPT, "start", folder, "--nodes", "2"], check=True, timeout=120)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        yield
    subprocess.run([SCRIPT, "stop", folder], check=True, timeout=120)


def launcher(**more) -> Launcher:
    cluster = replace(load_cluster("slurm"), poll_seconds=0.2, query_seconds=1.0, lost_seconds=3.0)
    return Launcher(Queue(cluster), cluster, **more)


def array(folder: Path, code: str, *, tasks=range(1, 2), **more) -> Array:
    return Array(
        name="probe",
        command=words("bash", "-c", code, "probe", TASK),
        log=Word((f"{folder}/log.", ".txt")),
        folder=folder / "state",
        tasks=tasks,
        resources=launcher().resources_of("any"),
        **more,
    )


def ask(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def wait_for(condition) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def in_background(action) -> threading.Thread:
    thread = threading.Thread(target=action)
    thread.start()
    return thread


def test_an_array_and_only_its_failed_task_again(slurm, tmp_path):
    jobs = array(
        tmp_path,
        f"cd {tmp_path}; [[ $1 != 3 || -e tried ]] || {{ touch tried; exit 9; }}",
        tasks=range(1, 6),
    )
    said = []
    assert launcher(retries=1, report=said.append).run(jobs) is None
    assert said == [f"task 3 ended with code 9, run again (1 of 1); its log: {jobs.log_of(3)}"]
    nodes = {
        re.match(r"# task \d on (\w+), job", jobs.log_of(n).read_text())[1] for n in jobs.tasks
    }
    assert nodes <= {"node1", "node2"}


def test_a_node_that_is_drained_in_the_middle_of_an_array(slurm, tmp_path):
    """With one node drained and the other too small for the rest, the array waits and completes."""
    jobs = array(tmp_path, f"touch {tmp_path}/began.$1; sleep 1", tasks=range(1, 9))

    def drain():
        wait_for(lambda: len(list(tmp_path.glob("began.*"))) >= 3)
        for node in ("node1", "node2"):
            ask("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
        time.sleep(4)
        assert len(list(tmp_path.glob("began.*"))) < 8  # what had not begun, waits
        for node in ("node1", "node2"):
            ask("scontrol", "update", f"nodename={node}", "state=resume")

    thread = in_background(drain)
    assert launcher().run(jobs) is None
    thread.join()
    assert len(list(tmp_path.glob("began.*"))) == 8


def test_a_signal_before_the_time_limit_saves_and_queues_again(slurm, tmp_path):
    """As Slurm sends USR1 to the script (--signal=B:USR1), so does this test."""
    code = (
        f"cd {tmp_path}; [[ ! -e saved ]] || exit 0\n"
        "trap 'touch saved; exit 75' USR1; touch ready; while :; do sleep 0.1; done"
    )
    jobs = array(tmp_path, code)

    def warn():
        wait_for((tmp_path / "ready").exists)
        ask("scancel", "--signal=USR1", "--batch", (jobs.folder / "1" / "id").read_text().strip())

    said = []
    thread = in_background(warn)
    assert launcher(report=said.append).run(jobs) is None
    thread.join()
    assert said == ["task 1 saved its state and is queued again"]
    assert jobs.log_of(1).read_text().count("# task 1 on ") == 2


def test_a_job_that_is_cancelled_from_outside_is_lost_and_runs_again(slurm, tmp_path):
    code = f"cd {tmp_path}; [[ ! -e began ]] || exit 0; touch began; sleep 600"
    jobs = array(tmp_path, code)

    def kill_all():
        wait_for((tmp_path / "began").exists)
        job = (jobs.folder / "1" / "id").read_text().strip()
        ask("scancel", "--signal=KILL", "--full", job)

    said = []
    thread = in_background(kill_all)
    assert launcher(retries=1, report=said.append).run(jobs) is None
    thread.join()
    assert len(said) == 1 and "run again (1 of 1)" in said[0]


def test_a_task_that_fails_shows_what_it_said(slurm, tmp_path):
    (tmp_path / "wav.scp").write_text("u1 a.wav\nu2 b.wav\n")
    code = "echo 'batch 3: u1 u2'; echo \"error: utterance 'u2': cut short\" >&2; exit 2"
    failure = launcher(retries=3).run(array(tmp_path, code, data_dirs=(tmp_path,)))
    assert failure.exit_code == 2
    assert failure.message.splitlines()[1:] == [
        "  batch 3: u1 u2",
        "  error: utterance 'u2': cut short",
        f"  data: {tmp_path}/wav.scp:2: u2 b.wav",
    ]
