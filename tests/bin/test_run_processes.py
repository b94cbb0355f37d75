"""Two processes train what one trains with the same batches, stop together, and go on as one.

So they do where each keeps a share of the parameters alone (train.sharding=fsdp).
"""

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from espnet_lite.bin import merge_checkpoint, run_processes
from espnet_lite.errors import InputError
from espnet_lite.train.checkpoint import is_sharded
from espnet_lite.train.launch import Meeting, first_failure, meeting_of_slurm

MEASURED = ("minutes", "core_minutes", "audio_seconds_per_second", "data_wait_percent")
# fp32, because the bound is on rounding; dropout and masks stay on: each batch brings their seed.
OPTIONS = (
    *("train.precision=fp32", "train.accumulate=2", "train.log_every=1", "train.updates=9"),
    *("train.threads=1", "model.encoder.dropout=0.1"),
    "train.schedule={name: warmup_inverse_root, warmup_updates: 2}",  # knows no end
)


def command(corpus, expdir, *, processes: int, options=()) -> list[str]:
    """Return the command that trains on `corpus` in `expdir`."""
    module = "espnet_lite.bin.train_asr"
    program = ["-m", module]
    if processes > 1:
        program = ["-m", "espnet_lite.bin.run_processes", "--nproc", str(processes), "train_asr"]
    return [
        *(sys.executable, *program, "--config", str(corpus / "conf.yaml"), "--device", "cpu"),
        *("--train_dirs", str(corpus / "dump/train"), "--dev_dirs", str(corpus / "dump/dev")),
        *("--tokenizer", str(corpus / "tokens"), "--cmvn", str(corpus / "cmvn.safetensors")),
        *("--expdir", str(expdir)),
        *(word for option in (*OPTIONS, *options) for word in ("--set", option)),
    ]


def start(words: list[str], **options) -> subprocess.Popen:
    return subprocess.Popen(
        words,
        **options,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def train(corpus, expdir, *, processes: int, options=()) -> tuple[int, str]:
    """Return the exit code and what was said on stderr."""
    process = start(command(corpus, expdir, processes=processes, options=options))
    _, said = process.communicate(timeout=300)
    return process.returncode, said


def curve(expdir) -> list[dict]:
    """Return train.jsonl without what a clock measured."""
    lines = (expdir / "train.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(x).items() if k not in MEASURED} for x in lines]


def assert_same_curve(one, two, *, updates: int = 9, relative: float = 1e-4) -> None:
    """Check all values of both logs, training and validation."""
    first, second = curve(one), curve(two)
    assert len(first) == len(second) and first[-1]["update"] == updates
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for key, value in a.items():
            assert b[key] == (value if key == "kind" else pytest.approx(value, rel=relative)), key


@pytest.fixture(scope="module")
def alone(corpus, tmp_path_factory):
    """Return the folder of the training by one process."""
    folder = tmp_path_factory.mktemp("alone") / "exp"
    code, said = train(corpus, folder, processes=1)
    assert code == 0, said
    return folder


@pytest.fixture(scope="module")
def together(corpus, tmp_path_factory):
    """Return the folder of the training by two processes, and what they said."""
    folder = tmp_path_factory.mktemp("together") / "exp"
    code, said = train(corpus, folder, processes=2)
    assert code == 0, said
    return folder, said


@pytest.mark.slow
def test_two_processes_train_what_one_does(alone, together):
    folder, said = together
    assert_same_curve(alone, folder)
    record = json.loads((folder / "model.json").read_text())
    assert record["processes"] == 2
    lines = [line for line in said.splitlines() if line.startswith("update 9/9")]
    assert len(lines) == 1  # the first process talks for both


@pytest.mark.slow
def test_two_begin_and_one_goes_on(corpus, tmp_path, alone):
    """Five updates of two batches lie in the second epoch of seven batches."""
    folder = tmp_path / "exp"
    assert train(corpus, folder, processes=2, options=["train.updates=5"])[0] == 0
    code, said = train(corpus, folder, processes=1)
    assert code == 0, said
    assert_same_losses(alone, folder)


@pytest.mark.slow
def test_a_signal_to_the_launcher_saves_once_and_asks_to_be_started_again(corpus, tmp_path):
    folder = tmp_path / "exp"
    options = ["train.updates=100000", "train.save_every=1"]
    process = start(command(corpus, folder, processes=2, options=options))
    wait_for_checkpoint(folder, process)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 75, said
    assert said.count("stopped by signal 15") == 1 and "Traceback" not in said
    process = start(command(corpus, folder, processes=2, options=options))
    line = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert "going on after update" in line or "M parameters" in line
    assert process.returncode == 75


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells a process of its parent's end"
)
def test_kill_9_of_the_launcher_ends_the_others_too(corpus, tmp_path):
    folder = tmp_path / "exp"
    options = ["train.updates=100000", "train.save_every=1"]
    process = start(command(corpus, folder, processes=2, options=options))
    wait_for_checkpoint(folder, process)
    process.kill()
    _, said = process.communicate(timeout=120)  # ends when no process holds the pipe any more
    assert "stopped by signal 15" in said
    again = start(command(corpus, folder, processes=2, options=options))
    assert "going on after update" in again.stdout.readline() + again.stdout.readline()
    again.send_signal(signal.SIGTERM)
    again.communicate(timeout=120)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes by /proc")
def test_a_killed_process_costs_no_more_than_the_way_back_to_the_last_checkpoint(
    corpus, tmp_path, alone
):
    """All begin again by themselves; the losses are those of a training that nobody disturbed."""
    folder = tmp_path / "exp"
    process = start(command(corpus, folder, processes=2, options=["train.save_every=1"]))
    wait_for_checkpoint(folder, process)
    os.kill(rank_of(process.pid, 1), signal.SIGKILL)
    out, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert "a process ended with code 137; starting all again (1 of 3)" in out
    assert_same_curve(alone, folder)


@pytest.mark.slow
def test_a_process_that_is_killed_again_and_again_ends_all(corpus, tmp_path):
    words = command(corpus, tmp_path / "exp", processes=2)
    words[words.index("--nproc") : words.index("--nproc")] = ["--restarts", "0"]
    process = start([*words, "--set", "train.updates=100000", "--set", "train.save_every=1"])
    wait_for_checkpoint(tmp_path / "exp", process)
    os.kill(rank_of(process.pid, 1), signal.SIGKILL)
    process.communicate(timeout=120)
    assert process.returncode == 137


@pytest.mark.slow
def test_two_machines_meet_by_a_rendezvous(corpus, tmp_path, alone):
    """Both of them are this one; each has one of the two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    both = []
    for node in (0, 1):
        words = command(corpus, tmp_path / "exp", processes=2)
        at = words.index("--nproc")
        words[at : at + 2] = [
            *("--nproc", "1", "--num_nodes", "2", "--node", str(node)),
            *("--rendezvous", f"127.0.0.1:{port}"),
        ]
        both.append(start(words))
    for process in both:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    assert_same_curve(alone, tmp_path / "exp")


@pytest.mark.slow
def test_a_clip_that_one_process_cannot_read_ends_both_with_one_line(corpus, tmp_path):
    broken = tmp_path / "train"
    shutil.copytree(corpus / "dump/train", broken)
    table = (broken / "wav.scp").read_text().replace(str(corpus / "dump/train"), str(broken))
    (broken / "wav.scp").write_text(table)
    (broken / "train5.wav").write_bytes(b"RIFF")
    words = [*command(corpus, tmp_path / "exp", processes=2), "--train_dirs", str(broken)]
    process = start(words)
    out, said = process.communicate(timeout=120)
    assert process.returncode == 2, said
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "utterance 'train5'" in lines[0], f"{out}\n{said}"
    assert "Traceback" not in said and "starting all again" not in out


@pytest.mark.parametrize(
    ("codes", "cause"),
    [
        ((-15, 2), 2),
        ((2, 2), 2),
        ((1, -9), -9),  # its connection to the killed one broke
        ((1, -15), 1),
        ((-15, -15), -15),
    ],
)
def test_of_processes_that_failed_within_a_second_the_cause_gives_the_code(codes, cause):
    failures = [failure(code, second=7) for code in codes]
    assert first_failure(failures) == first_failure(failures[::-1]) == cause


def test_the_process_that_failed_a_second_before_the_others_gives_the_code():
    assert first_failure([failure(-9, second=130), failure(1, second=10)]) == 1


def test_a_mistake_that_was_told_gives_the_code_at_any_time():
    assert first_failure([failure(-6, second=7), failure(2, second=8)]) == 2


def test_a_mistake_is_told_once_even_where_another_process_crashes_as_it_ends(tmp_path):
    """A crash is a kill, after which all begin again; not after a mistake."""
    rank = """
import os, time
from espnet_lite.errors import InputError, reports_input_errors
from espnet_lite.train.distributed import joined_processes

@reports_input_errors
def main():
    with joined_processes() as processes:
        if processes.rank == 1:
            os.abort()
        raise InputError("a mistake")

code = main()
time.sleep(2)  # as long as an interpreter may take to end
raise SystemExit(code)
"""
    launch = f"""
import sys
from espnet_lite.train.launch import run_together
sys.exit(run_together([sys.executable, "-c", {rank!r}], processes=2, restarts=1))
"""
    done = subprocess.run(
        [sys.executable, "-c", launch], capture_output=True, text=True, timeout=120
    )
    told = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert (done.returncode, done.stdout, told) == (2, "", ["error: a mistake"]), done.stderr


def failure(code: int, *, second: int) -> ProcessFailure:
    """Return what the agent notes of a process that ended with `code`."""
    noted = ProcessFailure(local_rank=0, pid=1, exitcode=code, error_file="")
    noted.timestamp = second
    return noted


@pytest.mark.slow
def test_batches_that_cannot_be_shared_are_refused_once(corpus, tmp_path):
    code, said = train(corpus, tmp_path / "exp", processes=2, options=["train.accumulate=3"])
    assert code == 2
    [line] = said.splitlines()
    assert line.startswith(
        "error: train.accumulate: 3 batches per update cannot be shared by 2 processes"
    )
    assert not (tmp_path / "exp").exists()


SHARDED = "train.sharding=fsdp"


@pytest.mark.slow
def test_two_processes_with_a_share_of_the_parameters_each_train_the_same(
    corpus, tmp_path, together
):
    folder = tmp_path / "exp"
    code, said = train(corpus, folder, processes=2, options=[SHARDED])
    assert code == 0, said
    assert_same_curve(together[0], folder, relative=1e-5)
    ours, theirs = (load_file(path / "model.safetensors") for path in (folder, together[0]))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        # A key's bias moves no loss: its gradient is rounding, which Adam makes steps of.
        close = 1e-3 if name.endswith("key.bias") else 1e-5
        assert torch.allclose(tensor, theirs[name], atol=close), name


@pytest.mark.slow
def test_frozen_parts_thawed_ones_clipping_and_batch_norm_with_shares(corpus, tmp_path):
    conformer = "{name: conformer, dim: 16, layers: 2, heads: 2, feed_forward: 16, kernel: 3}"
    options = [
        *("train.accumulate=4", "train.clip=0.5", f"model.encoder={conformer}"),
        *("train.frozen_parts=[front_end]", "train.freeze_parts=[encoder]"),
        "train.freeze_updates=4",
    ]
    for name, more in (("ddp", []), ("fsdp", [SHARDED])):
        code, said = train(corpus, tmp_path / name, processes=2, options=[*options, *more])
        assert code == 0, said
    assert_same_curve(tmp_path / "ddp", tmp_path / "fsdp")


@pytest.mark.slow
def test_shares_of_two_go_on_with_two_or_one_and_merge_to_one_file(corpus, tmp_path):
    """The encoder has a parameter with an axis of one: the second process has no share of it."""
    encoder = "name: hubert_large, dim: 16, layers: 2, heads: 2, feed_forward: 16"
    encoder = f"{{{encoder}, position_kernel: 4, position_groups: 2}}"
    options = [SHARDED, f"model.encoder={encoder}"]
    code, said = train(corpus, tmp_path / "straight", processes=1, options=options)
    assert code == 0, said
    folder = tmp_path / "two"
    code, said = train(corpus, folder, processes=2, options=[*options, "train.updates=5"])
    assert code == 0, said
    newest = folder / "checkpoints" / "update_00000005"
    assert is_sharded(newest)
    words = ["--checkpoint", str(newest), "--output", str(tmp_path / "merged.safetensors")]
    assert merge_checkpoint.main(words) == 0
    merged = load_file(tmp_path / "merged.safetensors")
    gathered = load_file(folder / "checkpoints" / "best_00000005.safetensors")
    assert merged.keys() == gathered.keys()
    assert all(torch.equal(tensor, gathered[name]) for name, tensor in merged.items())
    shutil.copytree(folder, tmp_path / "one")
    for name, processes in (("two", 2), ("one", 1)):
        code, said = train(corpus, tmp_path / name, processes=processes, options=options)
        assert code == 0, said
        assert_same_losses(tmp_path / "straight", tmp_path / name)
    assert not is_sharded(tmp_path / "one" / "checkpoints" / "update_00000009")


@pytest.mark.slow
def test_one_begins_and_two_with_shares_go_on(corpus, tmp_path, alone):
    folder = tmp_path / "exp"
    options = [SHARDED, "train.updates=5"]
    assert train(corpus, folder, processes=1, options=options)[0] == 0
    code, said = train(corpus, folder, processes=2, options=[SHARDED])
    assert code == 0, said
    assert_same_losses(alone, folder)
    assert is_sharded(folder / "checkpoints" / "update_00000009")


@pytest.mark.slow
def test_shares_that_cannot_be_written_or_read_end_both_with_one_line(corpus, tmp_path):
    folder = tmp_path / "exp"
    words = command(corpus, folder, processes=2, options=[SHARDED])
    limits = (resource.RLIMIT_FSIZE, (8192, 8192))  # bytes of a file: less than a share takes
    process = start(words, preexec_fn=lambda: resource.setrlimit(*limits))
    _, said = process.communicate(timeout=300)
    assert process.returncode == 2, said
    [line] = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "update_00000002: cannot write: File too large" in line and "Traceback" not in said
    assert os.listdir(folder / "checkpoints") == []
    options = [SHARDED, "train.updates=2"]
    assert train(corpus, folder, processes=2, options=options)[0] == 0
    next((folder / "checkpoints" / "update_00000002").glob("shard-00002*")).unlink()
    code, said = train(corpus, folder, processes=2, options=[SHARDED])
    assert code == 2, said
    [line] = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "update_00000002: 1 shards, expected 2; rm -r " in line


def assert_same_losses(one, two) -> None:
    first, second = ([e for e in curve(x) if e["kind"] == "train"] for x in (one, two))
    assert [entry["update"] for entry in second] == list(range(1, 10))
    assert [e["loss"] for e in second] == pytest.approx([e["loss"] for e in first], rel=1e-4)


def test_a_senseless_count_and_an_unknown_program_are_refused(capsys):
    for words, message in (
        (["--nproc", "0", "train_asr"], "argument --nproc: 0, expected a whole number from 1"),
        (["--nproc", "2", "train_art"], "unknown program 'train_art' (did you mean 'train_asr'?)"),
    ):
        try:
            code = run_processes.main(words)
        except SystemExit as end:
            code = end.code
        assert code == 2
        assert message in capsys.readouterr().err


def test_the_meeting_of_a_job_step_of_slurm():
    told = {
        "SLURM_JOB_ID": "40123",
        "SLURM_STEP_ID": "0",
        "SLURM_NODEID": "1",
        "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.7",
        "SLURM_STEP_NUM_NODES": "2",
    }
    assert meeting_of_slurm(2, told) == Meeting("40123.0", "10.0.0.7", 20123, False, 2)
    with pytest.raises(InputError, match="--num_nodes: 3, but this job step has 2 nodes"):
        meeting_of_slurm(3, told)
    del told["SLURM_NODEID"]
    with pytest.raises(InputError, match="2 machines, but SLURM_NODEID is not set"):
        meeting_of_slurm(2, told)


def rank_of(pid: int, rank: int) -> int:
    """Return the process of that rank below the launcher."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            told = (entry / "environ").read_bytes().split(b"\0") if parent == str(pid) else []
            if f"RANK={rank}".encode() in told:
                return int(entry.name)
    raise AssertionError(f"no rank {rank} below {pid}")


def wait_for_checkpoint(expdir, process) -> None:
    end = time.monotonic() + 300
    while not list((expdir / "checkpoints").glob("update_*")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)
