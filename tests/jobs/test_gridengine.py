"""A real Grid Engine (tools/gridengine_local.sh, and source its settings.sh): arrays, failures, qdel."""

import os
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

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "SGE_ROOT" not in os.environ or shutil.which("qsub") is None,
        reason="needs Grid Engine: tools/gridengine_local.sh start FOLDER; source FOLDER/settings.sh",
    ),
]


def launcher(**more) -> Launcher:
    cluster = replace(load_cluster("sge"), poll_seconds=0.2, query_seconds=1.0, lost_seconds=3.0)
    return Launcher(Queue(cluster, at_once=2), cluster, **more)


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


def test_an_array_and_only_its_failed_task_again(tmp_path):
    code = f"cd {tmp_path}; [[ $1 != 2 || -e tried ]] || {{ touch tried; exit 9; }}"
    jobs = array(tmp_path, code, tasks=range(1, 4))
    said = []
    assert launcher(retries=1, report=said.append).run(jobs) is None
    assert said == [f"task 2 ended with code 9, run again (1 of 1); its log: {jobs.log_of(2)}"]


def test_a_job_that_is_deleted_from_outside_is_lost_and_runs_again(tmp_path):
    jobs = array(tmp_path, f"cd {tmp_path}; [[ ! -e began ]] || exit 0; touch began; sleep 600")

    def delete():
        end = time.monotonic() + 120
        while not (tmp_path / "began").exists():
            assert time.monotonic() < end
            time.sleep(0.1)
        number = (jobs.folder / "1" / "id").read_text().strip()
        subprocess.run(["qdel", number], check=True, capture_output=True)

    said = []
    thread = threading.Thread(target=delete)
    thread.start()
    assert launcher(retries=1, report=said.append).run(jobs) is None
    thread.join()
    assert len(said) == 1 and "run again (1 of 1)" in said[0]


def test_a_task_that_fails_shows_what_it_said(tmp_path):
    (tmp_path / "wav.scp").write_text("u1 a.wav\nu2 b.wav\n")
    code = "echo 'batch 3: u1 u2'; echo \"error: utterance 'u2': cut short\" >&2; exit 2"
    failure = launcher(retries=3).run(array(tmp_path, code, data_dirs=(tmp_path,)))
    assert failure.exit_code == 2
    assert failure.message.splitlines()[1:] == [
        "  batch 3: u1 u2",
        "  error: utterance 'u2': cut short",
        f"  data: {tmp_path}/wav.scp:2: u2 b.wav",
    ]
