"""Slurm, Grid Engine and PBS by their recorded submissions: fakes of their commands run the scripts."""

import os
import shutil
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from espnet_lite.errors import InputError
from espnet_lite.jobs.array import TASK, Array, Word, words
from espnet_lite.jobs.backends import find_backend
from espnet_lite.jobs.cluster import load_cluster
from espnet_lite.jobs.launcher import Launcher

FAKE = Path(__file__).with_name("fake_queue")
COMMANDS = ("sbatch", "squeue", "scancel", "qsub", "qstat", "qdel")
HOSTILE = 'it\'s "$(touch pwned)" `id` & | ; * \n\\ end'


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """The folder of the fakes, which stand first on the PATH."""
    folder = tmp_path / "queue"
    folder.mkdir()
    for name in COMMANDS:
        (folder / name).symlink_to(FAKE)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_QUEUE", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


def launcher(backend: str, *, at_once: int = 0, **more) -> Launcher:
    cluster = replace(load_cluster(backend), poll_seconds=0.05, query_seconds=0.1, lost_seconds=0.3)
    return Launcher(find_backend(backend)(cluster, at_once=at_once), cluster, **more)


def array(folder: Path, *command, tasks=range(1, 3), **more) -> Array:
    log = Word((f"{folder}/logs of it/", ".log"))
    return Array("job", words(*command), log, folder / "state", tasks, **more)


def calls(queue: Path, name: str) -> list[str]:
    lines = (queue / "calls").read_text().splitlines()
    return [line.partition(" ")[2] for line in lines if line.startswith(name + " ")]


def printed(jobs: Array, task: int) -> str:
    text = jobs.log_of(task).read_text().splitlines(keepends=True)
    return "".join(line for line in text if line[:1] != "#")


@pytest.mark.parametrize("backend", ["slurm", "sge", "pbs"])
def test_words_arrive_as_they_are(queue, tmp_path, backend):
    jobs = array(tmp_path, sys.executable, "-c", "import sys; print(sys.argv[1:])", HOSTILE, TASK)
    assert launcher(backend).run(jobs) is None
    assert [printed(jobs, task) for task in (1, 2)] == [f"{[HOSTILE, n]}\n" for n in ("1", "2")]
    assert not (tmp_path / "pwned").exists() and not jobs.folder.exists()


@pytest.mark.parametrize(
    ("backend", "program", "expected"),
    [
        (
            "slurm",
            "sbatch",
            "[--parsable] [--requeue] [--job-name=job] [--output={0}/slurm.%A_%a.txt] "
            "[--array=1-2%1] [--dependency=afterok:5:6 ] [--kill-on-invalid-dep=yes] "
            "[--cpus-per-task=1] [--mem=2G] [{0}/script.sh]",
        ),
        (
            "sge",
            "qsub",
            "[-terse] [-cwd] [-S] [/bin/bash] [-r] [y] [-notify] [-N] [job] [-j] [y] [-o] [{0}] "
            "[-t] [1-2] [-tc] [1] [-hold_jid] [5,6] [-l] [h_vmem=2G] [{0}/script.sh]",
        ),
        (
            "pbs",
            "qsub",
            "[-S] [/bin/bash] [-r] [y] [-N] [job] [-j] [oe] [-o] [{0}] [-J] [1-2%1] "
            "[-W] [depend=afterok:5:6] [-l] [mem=2Gb] [{0}/script.sh]",
        ),
    ],
)
def test_submissions(queue, tmp_path, backend, program, expected):
    runs = launcher(backend, at_once=1, asked={"mem": "2G"})
    jobs = array(tmp_path, "true", after=("5", "6"), resources=runs.resources_of("any"))
    assert runs.run(jobs) is None
    folder = tmp_path / "state" / "1"
    assert calls(queue, program) == [expected.format(folder).replace("6 ]", "6]")]


def test_only_failed_tasks_are_submitted_again(queue, tmp_path):
    code = "test $1 != 2 -o -e tried || { touch tried; echo no >&2; exit 3; }"
    jobs = array(tmp_path, "bash", "-c", code, "x", TASK, tasks=range(1, 4))
    said = []
    assert launcher("slurm", retries=1, report=said.append).run(jobs) is None
    first, second = calls(queue, "sbatch")
    assert "[--array=1-3]" in first and "array" not in second
    assert said == [f"task 2 ended with code 3, run again (1 of 1); its log: {jobs.log_of(2)}"]
    log = jobs.log_of(2).read_text()
    assert log.count("# task 2 on ") == 2 and "# task 2 ended with code 0" in log


def test_a_task_that_left_the_queue_without_an_exit_code(queue, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_LOSES", "2")
    jobs = array(tmp_path, "true")
    failure = launcher("slurm").run(jobs)
    assert failure.exit_code == 255
    assert failure.message.startswith("error: task 2 of 2 ended with code 255; the end of ")


def test_a_scheduler_that_does_not_answer_has_lost_nothing(queue, tmp_path):
    """While it is down nothing is known; what ended meanwhile is seen by its exit code."""
    jobs = array(tmp_path, "bash", "-c", "touch $FAKE_QUEUE/is_down; sleep 1.5; exit 0")
    assert launcher("slurm").run(jobs) is None
    assert len(calls(queue, "squeue")) > 3


def test_a_refused_submission(queue, tmp_path):
    runs = launcher("slurm", asked={"partition": "none"})
    with pytest.raises(InputError, match=r"the queue refused a job: .*invalid partition specified"):
        runs.run(array(tmp_path, "true", resources=runs.resources_of("any")))


def test_no_scheduler_on_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="no program 'sbatch' on this machine"):
        launcher("slurm").run(array(tmp_path, "true"))


def test_a_signal_cancels_the_jobs_and_lets_them_save(queue, tmp_path):
    code = "trap 'exit 75' TERM; touch ready.$1; while :; do sleep 0.05; done"
    jobs = array(tmp_path, "bash", "-c", code, "x", TASK)

    def interrupt():
        end = time.monotonic() + 20
        while len(list(tmp_path.glob("ready.*"))) < 2 and time.monotonic() < end:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=interrupt)
    thread.start()
    failure = launcher("slurm").run(jobs)
    thread.join()
    assert calls(queue, "scancel") == ["[77]"]
    assert failure.exit_code == 75 and "its state is saved" in failure.message


def test_jobs_of_a_killed_launcher_are_ended_first(queue, tmp_path):
    jobs = array(tmp_path, "bash", "-c", "test -e second || { touch first; sleep 60; }")
    runs = launcher("slurm")
    folder = jobs.folder / "1"
    folder.mkdir(parents=True)
    (tmp_path / "logs of it").mkdir()
    runs.backend.start(jobs, list(jobs.tasks), folder=folder)  # and nobody waits for it
    end = time.monotonic() + 20
    while not (tmp_path / "first").exists() and time.monotonic() < end:
        time.sleep(0.02)
    (tmp_path / "second").touch()
    assert launcher("slurm").run(jobs) is None
    assert calls(queue, "scancel") == ["[77]"]


def test_what_waits_is_submitted_at_once_and_again_after_a_retry(queue, tmp_path):
    code = "test -e tried || { touch tried; exit 3; }"
    first = array(tmp_path, "bash", "-c", code, tasks=[1])
    second = replace(first, name="next", folder=tmp_path / "next", command=words("true"))
    second = replace(second, log=Word((f"{tmp_path}/next.log",)))
    assert launcher("slurm", retries=1).run(first, second) is None
    submitted = calls(queue, "sbatch")
    assert ["--job-name=next" in line for line in submitted] == [False, True, False, True]
    assert all("[--dependency=afterok:77]" in line for line in submitted[1::2])
    assert calls(queue, "scancel") == ["[77]"]  # what waited for the first try


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_a_script_runs_by_hand(queue, tmp_path):
    import subprocess

    jobs = array(tmp_path, "echo", TASK, tasks=[4, 9])
    text = launcher("slurm").backend.describe(jobs)
    submission, _, script = text.partition("\n")
    assert submission.startswith("sbatch --parsable --requeue --job-name=job ")
    jobs.folder.mkdir()
    (tmp_path / "logs of it").mkdir()
    (tmp_path / "script.sh").write_text(script)
    assert subprocess.run(["bash", "script.sh", "9"], check=False).returncode == 0
    assert printed(jobs, 9) == "9\n"
    assert (jobs.folder / "code.9").read_text() == "0\n"
