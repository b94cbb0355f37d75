"""The command line of run_jobs, on this machine."""

import sys

import pytest

from espnet_lite.bin import run_jobs


def run(capfd, *words: str) -> tuple[int, str, str]:
    """Return exit code, standard output and standard error."""
    try:
        code = run_jobs.main(list(words))
    except SystemExit as end:
        code = end.code
    out, err = capfd.readouterr()
    return code, out, err


def test_an_array_with_a_log_for_each_task(tmp_path, capfd):
    log = f"{tmp_path}/logs/it is.JOB.txt"
    code, _, _ = run(capfd, "JOB=2:3", log, "echo", "--x=JOB", "$HOME", "*")
    assert code == 0
    for task in (2, 3):
        lines = (tmp_path / "logs" / f"it is.{task}.txt").read_text().splitlines()
        assert lines[1] == f"# echo --x={task} '$HOME' '*'"
        assert lines[2] == f"--x={task} $HOME *"


def test_the_exit_code_and_the_end_of_the_log(tmp_path, capfd):
    log = f"{tmp_path}/log"
    code, _, err = run(capfd, log, sys.executable, "-c", "print('no'); raise SystemExit(7)")
    assert code == 7
    assert err == f"error: task 1 of 1 ended with code 7; the end of {log}:\n  no\n"


def test_what_a_single_task_prints_is_followed(tmp_path, capfd):
    code, out, _ = run(capfd, "--follow", f"{tmp_path}/log", "echo", "hello")
    assert code == 0 and "hello\n" in out


def test_options_of_the_command_are_not_ours(tmp_path, capfd):
    code, _, _ = run(capfd, "--retries=1", f"{tmp_path}/log", "echo", "--retries", "--dry_run")
    assert code == 0
    assert "\n--retries --dry_run\n" in (tmp_path / "log").read_text()


def test_dry_run_writes_nothing(tmp_path, capfd):
    words = ("--cmd_backend", "slurm", "--dry_run", "--resource", "mem=2G")
    code, out, _ = run(capfd, *words, "JOB=1:4", f"{tmp_path}/1.JOB", "echo", "it's JOB")
    assert code == 0
    assert out.startswith("sbatch --parsable --requeue --job-name=_1 ")
    assert "--array=1-4 --cpus-per-task=1 --mem=2G" in out
    assert "    'it'\"'\"'s '\"$JOB\")" in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "expected [JOB=1:N] LOG COMMAND [ARGUMENT ...] after the options"),
        (("log",), "expected [JOB=1:N] LOG COMMAND"),
        (("JOB=1:2", "log", "echo"), "log: 2 tasks cannot share one log; put JOB into it"),
        (("--resource", "mem", "log", "echo"), "--resource: 'mem' is not NAME=VALUE"),
        (("--retries", "-1", "log", "echo"), "--retries: -1, expected 0 or more"),
        (("--cmd_backend", "slrum", "log", "echo"), "did you mean 'slurm'?"),
        (("--after", "7", "log", "echo"), "--after: local has no queue to wait in"),
        (("--retrys", "1", "log", "echo"), "unknown option '--retrys' (did you mean '--retries'?)"),
    ],
)
def test_mistakes(tmp_path, monkeypatch, capfd, words, message):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capfd, *words)
    assert code == 2 and message in err and err.count("\n") == 1
    assert not (tmp_path / "log").exists()
