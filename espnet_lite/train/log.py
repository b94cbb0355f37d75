"""train.jsonl, TensorBoard and the progress line."""

import json
import os
import sys
from pathlib import Path

from espnet_lite.files import write_faults_named, write_text


def cut_log(path: Path, update: int) -> None:
    """Drop lines of train.jsonl beyond `update`: what a killed run wrote after its last checkpoint."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:  # the half line of a kill -9
            break
        if entry["update"] > update:
            break
        kept.append(line)
    write_text(path, "".join(f"{line}\n" for line in kept))


class TrainLog:
    """Writes each entry to train.jsonl, TensorBoard and the screen."""

    def __init__(self, folder: Path, *, update: int):
        """Continue the logs in `folder` after `update`."""
        from torch.utils.tensorboard import SummaryWriter

        self.path = folder / "train.jsonl"
        cut_log(self.path, update)
        with write_faults_named(self.path):
            self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=update + 1)
        self.on_terminal = sys.stderr.isatty()

    def write(self, kind: str, update: int, values: dict[str, object]) -> None:
        """Append one entry; `kind` is train or dev."""
        with write_faults_named(self.path), open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, "update": update, **values}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        for name, value in values.items():
            if isinstance(value, (int, float)):
                self.writer.add_scalar(f"{kind}/{name}", value, update)

    def show(self, line: str, *, stays: bool = False) -> None:
        """Print the progress line: in place on a terminal, a line each in a log file."""
        if self.on_terminal:
            end = "\n" if stays else ""
            print(f"\r\033[K{line}", end=end, file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Flush what TensorBoard holds."""
        self.writer.close()


class NoLog:
    """The log of all processes but the first: says nothing."""

    def write(self, kind: str, update: int, values: dict[str, object]) -> None:
        """Leave the entry to the first process."""

    def show(self, line: str, *, stays: bool = False) -> None:
        """Leave the line to the first process."""

    def close(self) -> None:
        """Have nothing to close."""


def duration(seconds: float) -> str:
    """Return seconds as `1:02:03` or `02:03`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes:02}:{seconds:02}"
