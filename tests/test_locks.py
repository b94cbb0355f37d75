"""Locks: one owner at a time, dead owners recognised, contenders never both win."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import threading
import time

import pytest

from espnet_lite import locks
from espnet_lite.errors import InputError
from espnet_lite.locks import acquire, folder_lock, lock_path, release, release_of

HOLD = """
import sys, time
from espnet_lite.locks import folder_lock
with folder_lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def holder_process(folder) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_lock_file_lives_beside_the_folder_and_only_while_held(tmp_path):
    folder = tmp_path / "exp" / "asr_x"
    with folder_lock(folder):
        written = json.loads((tmp_path / "exp" / ".asr_x.lock").read_text())
        assert written["pid"] == os.getpid()
        assert not folder.exists()
    assert not (tmp_path / "exp" / ".asr_x.lock").exists()


def test_released_after_an_exception(tmp_path):
    with pytest.raises(ZeroDivisionError), folder_lock(tmp_path / "x"):
        raise ZeroDivisionError
    with folder_lock(tmp_path / "x"):
        pass


def test_live_owner_is_named_and_killed_owner_is_taken_over(tmp_path):
    folder = tmp_path / "a folder with blanks"
    process = holder_process(folder)
    try:
        with pytest.raises(InputError) as caught, folder_lock(folder):
            pass
        for value in (str(folder), f"process {process.pid} on host", str(lock_path(folder))):
            assert value in str(caught.value)
        process.kill()
        deadline = time.monotonic() + 5  # a zombie until waited for: that is dead too
        while locks._is_running(process.pid):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with folder_lock(folder):
            assert json.loads(lock_path(folder).read_text())["pid"] == os.getpid()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert not lock_path(folder).exists()


def test_reused_pid_is_recognised_by_its_start_time(tmp_path):
    owner = acquire(tmp_path / "x")
    assert owner.is_dead() is False
    lock_path(tmp_path / "x").write_text(
        json.dumps(dataclasses.asdict(dataclasses.replace(owner, start="1")))
    )
    with folder_lock(tmp_path / "x"):
        pass


def test_restarted_machine_has_no_owners(tmp_path):
    owner = acquire(tmp_path / "x")
    assert dataclasses.replace(owner, boot="an earlier boot").is_dead() is True


@pytest.mark.parametrize("field", ["host", "namespace"])
def test_owner_elsewhere_is_refused_with_the_command_that_mends_it(tmp_path, field):
    owner = dataclasses.replace(acquire(tmp_path / "x"), **{field: "elsewhere"})
    path = lock_path(tmp_path / "x")
    path.write_text(json.dumps(dataclasses.asdict(owner)))
    with pytest.raises(InputError, match=f"rm {path}"), folder_lock(tmp_path / "x"):
        pass
    assert path.exists()


@pytest.mark.parametrize("text", ["", '{"host": "h', "[1]"])
def test_lock_cut_short_by_its_writers_death_is_free(tmp_path, text):
    lock_path(tmp_path / "x").write_text(text)
    with folder_lock(tmp_path / "x"):
        pass


def test_release_leaves_the_lock_of_another_owner(tmp_path):
    owner = acquire(tmp_path / "x")
    other = dataclasses.replace(owner, since="later")
    release(tmp_path / "x", other)
    assert lock_path(tmp_path / "x").exists()
    release(tmp_path / "x", owner)
    release(tmp_path / "x", owner)
    assert not lock_path(tmp_path / "x").exists()


def test_contenders_for_a_dead_owners_lock_never_both_win(tmp_path):
    folder = tmp_path / "x"
    dead = dataclasses.replace(acquire(folder), start="1")
    for _ in range(20):
        lock_path(folder).write_text(json.dumps(dataclasses.asdict(dead)))
        wins, barrier = [], threading.Barrier(8)

        def contend(wins=wins, barrier=barrier):
            barrier.wait()
            try:
                wins.append(acquire(folder))
            except InputError:
                return

        threads = [threading.Thread(target=contend) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(wins) == 1
        release(folder, wins[0])


def test_a_process_named_with_brackets_is_read(tmp_path):
    program = tmp_path / "a) b (c"
    shutil.copy(shutil.which("sleep"), program)
    process = subprocess.Popen([program, "60"])
    try:
        assert locks._describe(process.pid).start.isdigit()
        assert locks._is_running(process.pid)
    finally:
        process.kill()
        process.wait()
    assert not locks._is_running(process.pid)


def test_lock_taken_for_another_process_is_released_by_its_pid(tmp_path):
    process = subprocess.Popen(["sleep", "60"])
    try:
        acquire(tmp_path / "x", pid=process.pid)
        release_of(tmp_path / "x", pid=os.getpid())
        with pytest.raises(InputError, match=f"process {process.pid} "):
            acquire(tmp_path / "x")
        release_of(tmp_path / "x", pid=process.pid)
        assert not lock_path(tmp_path / "x").exists()
    finally:
        process.kill()
        process.wait()
