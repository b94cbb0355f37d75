"""Arrays that end well, badly and not at all: small commands as processes of this machine."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from espnet_lite.jobs.array import TASK, Array, Word, words
from espnet_lite.jobs.cluster import load_cluster
from espnet_lite.jobs.launcher import Launcher
from espnet_lite.jobs.processes import Local


@pytest.fixture
def array(tmp_path):
    """Return a maker of arrays of Python commands; sys.argv[1] is the task's number."""

    def make(code: str, *, tasks=range(1, 3), name="jobs", **more) -> Array:
        return Array(
            name=name,
            command=words(sys.executable, "-c", "import os, sys, time\n" + code, TASK),
            log=Word((f"{tmp_path}/{name}.", ".log")),
            folder=tmp_path / name,
            tasks=tasks,
            **more,
        )

    return make


def launcher(*, at_once: int = 0, **more) -> Launcher:
    cluster = load_cluster("local")
    return Launcher(Local(cluster, at_once=at_once), cluster, **more)


def printed(array: Array, task: int) -> list[str]:
    """Return the log without the launcher's lines."""
    return [line for line in array.log_of(task).read_text().splitlines() if line[:1] != "#"]


def test_all_end_well_and_know_their_threads(array):
    jobs = array("print(sys.argv[1], os.environ['OMP_NUM_THREADS'])", threads=3)
    assert launcher().run(jobs) is None
    assert [printed(jobs, task) for task in (1, 2)] == [["1 3"], ["2 3"]]
    first, command, *_, last = jobs.log_of(2).read_text().splitlines()
    assert first.startswith("# task 2 on ") and command.startswith(f"# {sys.executable} -c ")
    assert last.startswith("# task 2 ended with code 0 after 0 s, ")
    assert not jobs.folder.exists()


def test_the_first_failure_stops_the_others_and_is_told(array):
    jobs = array(
        "if sys.argv[1] == '1': time.sleep(60)\n"
        "for n in range(40): print('line', n)\n"
        "print('batch 7: u1 u2 u3 u4 u5 u6 u7'); print('error: bad'); raise SystemExit(5)"
    )
    started = time.monotonic()
    failure = launcher().run(jobs)
    assert time.monotonic() - started < 30
    assert failure.exit_code == 5
    head, *tail = failure.message.splitlines()
    assert head == (
        "error: task 2 of 2 ended with code 5 while working on u1, u2, u3, u4, u5 and 2 more; "
        f"the end of {jobs.log_of(2)}:"
    )
    assert len(tail) == 15
    assert tail[0] == "  line 27"
    assert tail[-1] == "  error: bad"


def test_the_data_line_of_the_utterance_at_fault_is_shown(array, tmp_path):
    (tmp_path / "wav.scp").write_text("u1 one.wav\nu10 ten.wav\nu2 a file/two.wav\n")
    (tmp_path / "text").write_text("u1 yes\nu2 no no\n")
    code = (
        "print('batch 0: u1 u2'); print(\"error: utterance 'u2': cut short\"); raise SystemExit(2)"
    )
    failure = launcher().run(array(code, tasks=[1], data_dirs=(tmp_path,)))
    assert failure.message.splitlines()[-2:] == [
        f"  data: {tmp_path}/wav.scp:3: u2 a file/two.wav",
        f"  data: {tmp_path}/text:2: u2 no no",
    ]


def test_a_job_that_was_killed_and_one_that_printed_nothing(array):
    code = "print('batch 0: u9', flush=True); os.kill(os.getpid(), 9)"
    failure = launcher().run(array(code, tasks=[1]))
    assert failure.exit_code == 137
    assert "ended with code 137 while working on u9; " in failure.message
    quiet = array("raise SystemExit(3)", tasks=[1])
    failure = launcher().run(quiet)
    log = quiet.log_of(1)
    assert failure.message == f"error: task 1 of 1 ended with code 3; the end of {log}:"


def test_a_program_that_is_not_there(tmp_path, capsys):
    from espnet_lite.errors import InputError

    jobs = Array("x", words("no-such-program"), Word((f"{tmp_path}/log",)), tmp_path / "x")
    with pytest.raises(InputError, match="cannot run 'no-such-program': No such file"):
        launcher().run(jobs)


def test_only_failed_tasks_run_again(array, tmp_path):
    said = []
    jobs = array(
        f"path = {str(tmp_path)!r} + '/tried.' + sys.argv[1]\n"
        "open(path, 'a').write('x')\n"
        "raise SystemExit(9 if sys.argv[1] == '2' and len(open(path).read()) < 3 else 0)",
        tasks=range(1, 4),
    )
    assert launcher(retries=2, report=said.append).run(jobs) is None
    assert [(tmp_path / f"tried.{task}").read_text() for task in (1, 2, 3)] == ["x", "xxx", "x"]
    assert said == [
        f"task 2 ended with code 9, run again ({n} of 2); its log: {jobs.log_of(2)}" for n in (1, 2)
    ]
    assert jobs.log_of(2).read_text().count("# task 2 ended with code 9") == 2


def test_a_mistake_is_not_repeated_and_a_saved_state_always(array, tmp_path):
    jobs = array(
        f"open({str(tmp_path / 'tried')!r}, 'a').write('x'); raise SystemExit(2)", tasks=[1]
    )
    assert launcher(retries=5).run(jobs).exit_code == 2
    assert (tmp_path / "tried").read_text() == "x"
    again = array(
        f"file = open({str(tmp_path / 'saved')!r}, 'a+'); file.write('x'); file.flush()\n"
        "file.seek(0); raise SystemExit(75 if len(file.read()) < 4 else 0)",
        tasks=[1],
    )
    assert launcher(retries=0).run(again) is None
    assert (tmp_path / "saved").read_text() == "xxxx"


def test_no_more_at_once_than_asked_for(array, tmp_path):
    jobs = array(
        f"os.mkdir({str(tmp_path / 'only one')!r}); time.sleep(0.02)\n"
        f"os.rmdir({str(tmp_path / 'only one')!r})",
        tasks=range(1, 5),
    )
    assert launcher(at_once=1).run(jobs) is None


def test_arrays_run_in_order_and_only_after_success(array, tmp_path):
    first = array(f"time.sleep(0.2); open({str(tmp_path / 'x')!r}, 'w')", name="first", tasks=[1])
    second = array(f"raise SystemExit(not os.path.exists({str(tmp_path / 'x')!r}))", name="second")
    assert launcher().run(first, second) is None
    assert launcher().run(array("raise SystemExit(4)", name="first"), second).exit_code == 4
    assert not second.log_of(1).exists()


@pytest.mark.parametrize(("number", "name"), [(signal.SIGTERM, 15), (signal.SIGINT, 2)])
def test_a_signal_stops_all_and_what_they_started(array, tmp_path, number, name):
    """A task and its child must be gone before the launcher returns."""
    pids = tmp_path / "pids"
    jobs = array(
        "import subprocess\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}} ')\n"
        "child.wait()",
        tasks=[1],
    )

    def interrupt():
        end = time.monotonic() + 20
        while not pids.is_file() or len(pids.read_text().split()) < 2:
            time.sleep(0.02)
            assert time.monotonic() < end
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt)
    thread.start()
    failure = launcher(retries=3).run(jobs)
    thread.join()
    assert failure.exit_code == 128 + name
    assert failure.message == f"jobs: stopped by signal {name}"
    for pid in pids.read_text().split():
        state = Path(f"/proc/{pid}/stat")
        assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_signal_lets_them_save_their_state(array, tmp_path):
    ready = tmp_path / "ready"
    jobs = array(
        "import signal\n"
        "signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(75))\n"
        f"open({str(ready)!r}, 'w')\n"
        "time.sleep(60)",
        tasks=[1],
    )

    def interrupt():
        end = time.monotonic() + 20
        while not ready.is_file() and time.monotonic() < end:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGUSR1)

    thread = threading.Thread(target=interrupt)
    thread.start()
    failure = launcher().run(jobs)
    thread.join()
    assert failure.exit_code == 75
    assert failure.message == "jobs: stopped by signal 10, its state is saved"


def test_what_the_only_task_prints_is_handed_on(array):
    said = []
    jobs = array("print('one', flush=True); time.sleep(0.3); print('two')", tasks=[1])
    assert launcher(follow=said.append).run(jobs) is None
    assert [line for part in said for line in part.splitlines() if line[:1] != "#"] == [
        "one",
        "two",
    ]
    assert len(said) > 1
