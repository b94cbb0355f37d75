"""What is to be run: a command whose words may hold the number of a task."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from espnet_lite.errors import InputError


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a command in which the task's number stands between each two `pieces`."""

    pieces: tuple[str, ...]

    def at(self, task: int) -> str:
        """Return the word of one task."""
        return str(task).join(self.pieces)

    def in_bash(self) -> str:
        """Return the word for a bash script in which $JOB is the task's number."""
        return '"$JOB"'.join(shlex.quote(piece) if piece else "" for piece in self.pieces) or "''"


TASK = Word(("", ""))  # the number itself


def words(*parts: str | Word) -> tuple[Word, ...]:
    """Return the words of a command; plain ones are the same for every task."""
    return tuple(part if isinstance(part, Word) else Word((part,)) for part in parts)


@dataclass(frozen=True)
class Array:
    """A command to run once for each task.

    Attributes:
        name: of the jobs, as a queue shows it; letters, digits, `_`, `.` and `-`.
        command: program and arguments.
        log: path of the log file of each task.
        folder: for the script and what it leaves, such as exit codes; used by one launcher at a time
            and removed by it once all ended well.
        tasks: numbers from 1, rising.
        resources: of each task, as Cluster.resources_of returns them.
        threads: of each task, for OpenMP and MKL.
        data_dirs: where data lines are looked up that a log names when a task fails.
        after: ids of jobs in the queue that must end well before these begin.
    """

    name: str
    command: tuple[Word, ...]
    log: Word
    folder: Path
    tasks: Sequence[int] = (1,)
    resources: Mapping[str, str] = field(default_factory=dict)
    threads: int = 1
    data_dirs: tuple[Path, ...] = ()
    after: tuple[str, ...] = ()

    def __post_init__(self):
        if not re.fullmatch(r"[A-Za-z_][\w.-]*", self.name):
            raise InputError(
                f"'{self.name}' is no name of a job, expected a letter and then letters, digits, _.-"
            )

    def log_of(self, task: int) -> Path:
        """Return the log file of a task."""
        return Path(self.log.at(task))

    def command_of(self, task: int) -> list[str]:
        """Return program and arguments of a task."""
        return [word.at(task) for word in self.command]


def parse_tasks(text: str) -> tuple[str, range] | None:
    """Return name and numbers of `JOB=1:8` (a name of capitals, as Kaldi's), None for another text.

    Raises:
        InputError: numbers that fall, or begin below 1.
    """
    match = re.fullmatch(r"([A-Z]+)=(\d+)(?::(\d+))?", text)
    if match is None:
        return None
    first, last = int(match[2]), int(match[3] or match[2])
    if not 1 <= first <= last:
        raise InputError(f"{text}: expected rising numbers from 1, as JOB=1:8")
    return match[1], range(first, last + 1)


def numbered(text: str, name: str | None) -> Word:
    """Return `text` in which every `name` stands for the task's number."""
    return Word(tuple(text.split(name))) if name else Word((text,))


def in_one_line(command: Sequence[str]) -> str:
    """Return a command as bash reads it, without a line end even where a word has one."""
    return " ".join(
        shlex.quote(word)
        if "\n" not in word
        else "$'" + word.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"
        for word in command
    )
