"""Files are whole or absent; text is read with the line of its fault."""

import errno
import json
import os
import socket
import subprocess
import sys

import pytest
import safetensors.torch
import torch

from espnet_lite.errors import InputError
from espnet_lite.files import atomic_folder, atomic_path, in_key_order, read_lines, write_text


def fails_with(number: int):
    """Return a stand-in of os.fsync for a disk that answers `number`."""

    def fsync(descriptor):
        raise OSError(number, os.strerror(number))

    return fsync


def test_text_appears_whole_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    write_text(path, "ä\nb\n")
    assert path.read_bytes() == "ä\nb\n".encode()
    write_text(path, "new\n")
    assert path.read_text() == "new\n"
    assert os.listdir(path.parent) == ["a.txt"]


def test_temporary_name_keeps_the_suffix(tmp_path):
    with atomic_path(tmp_path / "a.wav") as temporary:
        assert temporary.suffix == ".wav" and temporary.parent == tmp_path
        temporary.write_text("x")


def test_an_exception_inside_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old\n")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old\n"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path, monkeypatch, number):
    path = tmp_path / "a.txt"
    write_text(path, "old\n")
    monkeypatch.setattr(os, "fsync", fails_with(number))
    with pytest.raises(InputError) as raised:
        write_text(path, "new\n")
    assert str(path) in str(raised.value) and os.strerror(number) in str(raised.value)
    assert path.read_text() == "old\n"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_fault_of_the_disk_itself_stays_an_os_error(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", fails_with(errno.EIO))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        write_text(tmp_path / "a.txt", "x")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("write", [atomic_path, atomic_folder])
def test_a_folder_that_cannot_be_made_is_one_line(write):
    for path in ("/proc/no_such/a.json", "/proc/no/such/a.json"):
        with pytest.raises(InputError) as raised, write(path):
            raise AssertionError("nothing is written")
        assert f"{path}: cannot write: {os.strerror(errno.ENOENT)};" in str(raised.value)


def test_a_folder_in_the_place_of_a_file_is_one_line_and_stays(tmp_path):
    (tmp_path / "a.txt" / "b").mkdir(parents=True)
    with pytest.raises(InputError, match=r"a\.txt: cannot write: Is a directory;"):
        write_text(tmp_path / "a.txt", "x")
    assert os.listdir(tmp_path) == ["a.txt"] and os.listdir(tmp_path / "a.txt") == ["b"]


def test_a_missing_file_that_was_to_be_read_is_no_fault_of_writing(tmp_path):
    with pytest.raises(FileNotFoundError, match="input"), atomic_path(tmp_path / "a.txt"):
        (tmp_path / "input").read_bytes()


def test_a_folder_replaces_the_old_one_whole(tmp_path):
    folder = tmp_path / "f"
    for name in ("one", "two"):
        with atomic_folder(folder) as temporary:
            (temporary / name).write_text(name)
    assert os.listdir(folder) == ["two"]
    with pytest.raises(RuntimeError), atomic_folder(folder) as temporary:
        (temporary / "three").write_text("half")
        raise RuntimeError
    assert os.listdir(folder) == ["two"]
    assert os.listdir(tmp_path) == ["f"]


def test_a_full_disk_keeps_the_old_folder(tmp_path, monkeypatch):
    with atomic_folder(tmp_path / "f") as temporary:
        (temporary / "one").write_text("1")
    monkeypatch.setattr(os, "fsync", fails_with(errno.ENOSPC))
    with (
        pytest.raises(InputError, match=os.strerror(errno.ENOSPC)),
        atomic_folder(tmp_path / "f") as temporary,
    ):
        (temporary / "two").write_text("2")
    assert os.listdir(tmp_path / "f") == ["one"] and os.listdir(tmp_path) == ["f"]


KILLED = """
import os, signal, sys
from espnet_lite.files import atomic_folder, atomic_path
what, where, path = sys.argv[1:]
if where == "between the renames":
    replace = os.replace
    def replace_once(source, target):
        replace(source, target)
        os.kill(os.getpid(), signal.SIGKILL)
    os.replace = replace_once
with (atomic_folder if what == "folder" else atomic_path)(path) as temporary:
    (temporary / "half" if what == "folder" else temporary).write_text("half")
    if where == "inside":
        os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_while_writing(what: str, where: str, path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, what, where, str(path)])
    assert done.returncode == -9


def test_the_half_folder_of_a_killed_run_is_removed_by_the_next(tmp_path):
    kill_while_writing("folder", "inside", tmp_path / "f")
    assert len(os.listdir(tmp_path)) == 1
    with atomic_folder(tmp_path / "f") as temporary:
        (temporary / "one").write_text("1")
    assert os.listdir(tmp_path) == ["f"]


def test_the_half_file_of_a_killed_run_is_removed_by_the_next(tmp_path):
    kill_while_writing("file", "inside", tmp_path / "a.wav")
    (name,) = os.listdir(tmp_path)
    assert name.endswith(".tmp.wav")
    write_text(tmp_path / "a.wav", "whole")
    assert os.listdir(tmp_path) == ["a.wav"]


def test_a_folder_set_aside_by_a_killed_run_is_put_back(tmp_path):
    with atomic_folder(tmp_path / "f") as temporary:
        (temporary / "one").write_text("1")
    kill_while_writing("folder", "between the renames", tmp_path / "f")
    assert not (tmp_path / "f").exists()
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "f"):
        raise RuntimeError
    assert os.listdir(tmp_path) == ["f"] and os.listdir(tmp_path / "f") == ["one"]


def test_temporaries_of_live_processes_and_of_other_hosts_stay(tmp_path):
    host, alive = socket.gethostname(), os.getppid()
    names = [
        f".f.{host}-{alive}.tmp",  # it runs
        ".f.elsewhere.example-1.tmp",  # nothing is known of it
        f".g.{host}-999999999.tmp",  # of another folder
        f".f.{host}-{alive}.old",
    ]
    for name in names:
        (tmp_path / name).mkdir()
    (tmp_path / f".f.{host}-{os.getpid()}.old").mkdir()  # of an earlier process of this number
    (tmp_path / f".f.{host}-{os.getpid()}.old" / "x").write_text("x")
    for _ in range(2):
        with atomic_folder(tmp_path / "f") as temporary:
            (temporary / "one").write_text("1")
    assert sorted(os.listdir(tmp_path)) == sorted(["f", *names])


@pytest.mark.parametrize(
    ("raw", "lines"),
    [(b"", []), (b"\n", [""]), (b"a\nb", ["a", "b"]), (b"a\n\nb\n", ["a", "", "b"])],
)
def test_lines_of_a_file(tmp_path, raw, lines):
    (tmp_path / "a").write_bytes(raw)
    assert read_lines(tmp_path / "a") == lines


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"a\n\xe4\n", "a:2: byte 0xe4 is not UTF-8"),
        (b"a\nb\nc\r\n", "a:3: carriage return"),
    ],
)
def test_faults_of_a_text_file_have_their_line(tmp_path, raw, message):
    (tmp_path / "a").write_bytes(raw)
    with pytest.raises(InputError) as raised:
        read_lines(tmp_path / "a")
    assert message in str(raised.value)


def test_a_missing_file_names_the_mending_command(tmp_path):
    with pytest.raises(InputError, match="none: no such file; run stage 2"):
        read_lines(tmp_path / "none", fix="run stage 2")


def test_the_same_tensors_make_the_same_file():
    """safetensors alone orders its metadata by chance."""
    metadata = {f"key{n}": "é" * n for n in range(8)}
    tensors = {"b": torch.arange(3), "a": torch.ones(2, 2)}
    made = {in_key_order(safetensors.torch.save(tensors, metadata=metadata)) for _ in range(20)}
    [content] = made
    assert safetensors.torch.load(content).keys() == tensors.keys()
    assert torch.equal(safetensors.torch.load(content)["b"], tensors["b"])
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert header["__metadata__"] == metadata
