"""Jobs that end well, badly and not at all: small Python commands instead of decoding."""

import sys
import time

import pytest

from espnet_lite.decode.jobs import run_jobs


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


@pytest.fixture
def logs(tmp_path):
    return [tmp_path / f"job.{job}.log" for job in range(2)]


def test_all_end_well_and_know_their_threads(logs):
    code = "import os; print(os.environ['OMP_NUM_THREADS'], os.environ['MKL_NUM_THREADS'])"
    assert run_jobs([python(code)] * 2, logs, threads=3) is None
    assert [log.read_text() for log in logs] == ["3 3\n"] * 2


def test_the_first_failure_stops_the_others_and_is_told(logs):
    lines = "for n in range(40): print('line', n)"
    code = (
        f"{lines}\nprint('batch 7: u1 u2 u3 u4 u5 u6 u7'); print('error: bad'); raise SystemExit(5)"
    )
    started = time.monotonic()
    failure = run_jobs([python("import time; time.sleep(60)"), python(code)], logs, threads=1)
    assert time.monotonic() - started < 30
    assert failure.exit_code == 5
    head, *tail = failure.message.splitlines()
    assert head == (
        "error: job 1 of 2 ended with code 5 while decoding u1, u2, u3, u4, u5 and 2 more; "
        f"the end of {logs[1]}:"
    )
    assert len(tail) == 15
    assert tail[0] == "  line 27"
    assert tail[-1] == "  error: bad"


def test_a_job_that_was_killed(logs):
    code = "import os; print('batch 0: u9', flush=True); os.kill(os.getpid(), 9)"
    failure = run_jobs([python(code)], logs[:1], threads=1)
    assert failure.exit_code == 137
    assert "ended with code 137 while decoding u9; " in failure.message


def test_a_job_that_printed_nothing(logs):
    failure = run_jobs([python("raise SystemExit(3)")], logs[:1], threads=1)
    assert failure.message == f"error: job 0 of 1 ended with code 3; the end of {logs[0]}:"
