"""A full disk at every writer: one line that names the file, and what was there before is whole.

The disk is a tmpfs of 2 MiB, which root may mount.
"""

import contextlib
import hashlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import distributed

from espnet_lite.data.data_dir import write_data_dir
from espnet_lite.data.download import fetch
from espnet_lite.data.dump import dump_data_dir
from espnet_lite.data.utterance_table import Utterance
from espnet_lite.decode import shards
from espnet_lite.errors import InputError
from espnet_lite.features.cmvn import CmvnStatistics, save_cmvn
from espnet_lite.features.frame_grid import FrameGrid
from espnet_lite.files import write_text
from espnet_lite.jobs.array import Array, Word, words
from espnet_lite.jobs.cluster import load_cluster
from espnet_lite.jobs.launcher import Launcher
from espnet_lite.jobs.processes import Local
from espnet_lite.locks import acquire
from espnet_lite.models.pretrained import write_encoder
from espnet_lite.runtime.format import write_packed
from espnet_lite.stamps import Stage, begin
from espnet_lite.text.tokenizer import train_tokenizer
from espnet_lite.train.checkpoint import save_checkpoint, save_weights
from espnet_lite.train.distributed import ALONE
from espnet_lite.train.log import TrainLog
from espnet_lite.train.sharded_checkpoint import save_sharded
from espnet_lite.train.sharding import shard
from espnet_lite.units.store import write_store

DISK_BYTES = 2 << 20
FREE_BYTES = 24 << 10
LARGE = 60_000  # numbers, words or samples of what does not fit; 1 of what does


@pytest.fixture
def disk(tmp_path):
    """An empty file system of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def utterances(folder: Path, count: int) -> list[Utterance]:
    audio = str(folder.parent / "a.wav")
    if not os.path.exists(audio):
        soundfile.write(audio, np.zeros(4000), 16000)
    return [Utterance(f"s-{n}", audio, None, None, "a b c d", "s", None) for n in range(count)]


def write_units(folder: Path, size: int) -> None:
    grid = FrameGrid(16000, 400, 160)
    samples = 1600 + 160 * size
    frames = int(grid.num_frames(torch.tensor(samples)))
    part = ([b"a"], np.array([samples]), np.array([frames]), np.zeros(frames, np.int16))
    write_store(folder / "units", [part], centroids=torch.zeros(2, 2), grid=grid, description={})


def write_checkpoint(folder: Path, size: int) -> None:
    model = torch.nn.Linear(size, 1)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(size)).sum().backward()
    optimizer.step()
    save_checkpoint(folder / "update_00000001", model, optimizer, {"update": 1})


def write_shares(folder: Path, size: int) -> None:
    """Write the checkpoint of a sharded training, by a group of this process alone."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        model = torch.nn.Linear(size, 2)
        shard(model, torch.device("cpu"))
        optimizer = torch.optim.AdamW(model.parameters())
        save_sharded(folder / "update_00000001", model, optimizer, {"update": 1}, ALONE)
    finally:
        distributed.destroy_process_group()


def write_tokens(folder: Path, size: int) -> None:
    tokenizer = train_tokenizer("word", ["a", " ".join(f"word{n}" for n in range(size))])
    tokenizer.save(folder / "tokens")


def write_hypotheses(folder: Path, size: int) -> None:
    decoded = [
        shards.Decoded(f"u{n}", [shards.Reading("a b", ["a"], 0.0, {})])
        for n in range(1 + size // 50)
    ]
    result = shards.BatchResult(0, 1.0, 1.0, decoded)
    shards.write_output(folder / "decoded", [result], {"rtf": 0.1})


def dump(folder: Path, size: int, *, audio_format: str) -> None:
    source = folder.parent / f"source.{size}"
    if not source.exists():
        soundfile.write(
            folder.parent / "stereo.wav",
            np.random.default_rng(0).normal(0, 0.1, (2000 + size, 2)),
            16000,
        )
        row = Utterance("s-1", str(folder.parent / "stereo.wav"), None, None, "a", "s", None)
        write_data_dir(source, [row])
    dump_data_dir(
        source, folder / "dump", sample_rate=16000, audio_format=audio_format, channel="mix"
    )


def add_log(folder: Path, size: int) -> None:
    log = TrainLog(folder / "exp", update=0)
    with contextlib.closing(log):
        log.write("train", 1, {"note": "x" * size})


def add_result(folder: Path, size: int) -> None:
    reading = shards.Reading("a " * size, [], 0.0, {})
    result = shards.BatchResult(0, 1.0, 1.0, [shards.Decoded("u", [reading])])
    shards.append_result(folder / "results.0.1.2.jsonl", result)


def lay_down(folder: Path, size: int) -> None:
    stage = Stage(1, "data", stamp=folder / "s.json", options={"x": "y" * size})
    begin(stage)


def run_job(folder: Path, size: int) -> None:
    cluster = load_cluster("local")
    command = words(
        "bash", "-c", "head -c $1 /dev/zero | tr '\\0' x; exit ${PIPESTATUS[1]}", "x", str(size)
    )
    array = Array("job", command, Word((f"{folder}/log",)), folder / "state")
    failure = Launcher(Local(cluster), cluster).run(array)
    if failure is not None:
        raise InputError(failure.message)


Writer = Callable[[Path, int], object]
# What replaces a file or a folder as a whole.
WHOLE: dict[str, Writer] = {
    "a text": lambda folder, size: write_text(folder / "file.txt", "x" * size),
    "a data directory": lambda folder, size: write_data_dir(
        folder / "data", utterances(folder, 1 + size // 10)
    ),
    "a dump, FLAC files": lambda folder, size: dump(folder, size, audio_format="flac"),
    "a dump, archives": lambda folder, size: dump(folder, size, audio_format="ark"),
    "statistics": lambda folder, size: save_cmvn(
        folder / "cmvn.safetensors", CmvnStatistics(1, torch.ones(size), torch.ones(size)), {}
    ),
    "tokens": write_tokens,
    "units": write_units,
    "weights": lambda folder, size: save_weights(folder / "w.safetensors", {"w": torch.ones(size)}),
    "a checkpoint": write_checkpoint,
    "a checkpoint in shares": write_shares,
    "an encoder": lambda folder, size: write_encoder(
        folder / "e.safetensors", {"encoder.w": torch.ones(size)}, {"encoder": {}, "front_end": {}}
    ),
    "a packed model": lambda folder, size: write_packed(
        folder / "m.esp", {"w": torch.ones(size)}, {"architecture": {}}
    ),
    "hypotheses": write_hypotheses,
    "a stamp": lay_down,
}
# What grows line by line, and what is written beside.
GROWING: dict[str, Writer] = {
    "train.jsonl": add_log,
    "a batch of hypotheses": add_result,
}


def fill(folder: Path, *, free: int) -> None:
    """Leave so many bytes."""
    room = os.statvfs(folder)
    (folder / "filler").write_bytes(b"\0" * max(0, room.f_bavail * room.f_frsize - free))


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "filler"
    }


@pytest.mark.parametrize("name", WHOLE)
def test_what_was_there_stays_whole(disk, name):
    WHOLE[name](disk, 1)
    before = digests(disk)
    assert before
    fill(disk, free=FREE_BYTES)
    with pytest.raises(InputError, match="No space left on device") as caught:
        WHOLE[name](disk, LARGE)
    assert str(disk) in str(caught.value)
    assert digests(disk) == before
    (disk / "filler").unlink()
    WHOLE[name](disk, LARGE)
    assert digests(disk) != before


@pytest.mark.parametrize("name", GROWING)
def test_what_grows_line_by_line_tells_it(disk, name):
    GROWING[name](disk, 1)
    fill(disk, free=FREE_BYTES)
    with pytest.raises(InputError, match="No space left on device") as caught:
        GROWING[name](disk, LARGE)
    assert str(disk) in str(caught.value)


def test_a_batch_that_was_cut_short_is_not_read(disk):
    add_result(disk, 1)
    fill(disk, free=FREE_BYTES)
    with pytest.raises(InputError):
        add_result(disk, LARGE)
    (disk / "filler").unlink()
    assert list(shards.read_results(disk, "0")) == [0]
    assert shards.read_results(disk, "0")[0].decoded[0].hyps[0].text == "a "


def test_a_lock(disk):
    fill(disk, free=0)
    with pytest.raises(InputError, match="No space left on device"):
        acquire(disk / "exp")


def test_a_download_goes_on_once_there_is_room(disk, file_server):
    content = np.random.default_rng(0).bytes(200_000)
    file_server.files["a.bin"] = content
    fill(disk, free=FREE_BYTES)
    url = f"{file_server.url}/a.bin"
    with pytest.raises(InputError, match="free"):
        fetch(url, disk / "a.bin", otherwise="copy it", pause_seconds=0)
    (disk / "filler").unlink()
    digest = hashlib.sha256(content).hexdigest()
    fetch(url, disk / "a.bin", otherwise="copy it", sha256=digest, pause_seconds=0)
    assert (disk / "a.bin").read_bytes() == content


def test_the_log_of_a_job(disk):
    """The job itself fails by it, and is told as one that failed."""
    run_job(disk, 1)
    fill(disk, free=FREE_BYTES)
    with pytest.raises(InputError, match="task 1 of 1 ended with code 1"):
        run_job(disk, LARGE)
