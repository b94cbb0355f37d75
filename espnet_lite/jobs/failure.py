"""What the user is told of a task that failed: its log's end, and the data line that caused it."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

TAIL_LINES = 15
_TAIL_BYTES = 1 << 20
_LONGEST = 300
_NAMES_SHOWN = 5
_TABLES = ("segments", "wav.scp", "text")


@dataclass(frozen=True, slots=True)
class Failure:
    """A task that did not end well: `message` has its log's tail, `exit_code` is what to pass on."""

    message: str
    exit_code: int


def describe_failure(
    *,
    task: int,
    tasks: int,
    exit_code: int,
    log: Path,
    data_dirs: Sequence[Path] = (),
    notes: Sequence[str] = (),
) -> Failure:
    """Return what to tell of a failed task.

    Args:
        tasks: how many tasks there are.
        log: of this task. A line `batch NUMBER: ID ID …` in it says which utterances came next, a
            line with `utterance 'ID'` which one is at fault.
        data_dirs: where the lines of those utterances are looked up.
        notes: what else is known, such as what the scheduler said.
    """
    lines = _last_run(log)
    names = _batch(lines)
    during = f" while working on {_listed(names)}" if names else ""
    blamed = _blamed(lines) or names
    message = [
        f"error: task {task} of {tasks} ended with code {exit_code}{during}; the end of {log}:",
        *(f"  {_cut(line)}" for line in lines[-TAIL_LINES:]),
        *(f"  scheduler: {_cut(line)}" for line in notes),
        *(f"  data: {_cut(line)}" for line in _data_lines(blamed[:_NAMES_SHOWN], data_dirs)),
    ]
    return Failure("\n".join(message), exit_code)


def _last_run(log: Path) -> list[str]:
    """Return the end of what the task printed when it was run last, without the launcher's lines."""
    if not log.is_file():
        return []
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        lines = file.read().decode("utf-8", "replace").splitlines()
    begun = max(
        (n for n, line in enumerate(lines) if re.match(r"# task \d+ on ", line)), default=-1
    )
    lines = lines[begun + 2 :] if begun >= 0 else lines  # the command stands in the second line
    return [line for line in lines if not re.match(r"# task \d+ ended with code ", line)]


def _batch(lines: Sequence[str]) -> list[str]:
    """Return the utterances of the last batch that was begun."""
    batches = [line for line in lines if re.match(r"batch \d+: ", line)]
    return batches[-1].split()[2:] if batches else []


def _blamed(lines: Sequence[str]) -> list[str]:
    """Return the utterance that the last message names."""
    for line in reversed(lines):
        found = re.findall(r"utterance '(\S+)'", line)
        if found:
            return list(dict.fromkeys(found))
    return []


def _data_lines(names: Sequence[str], data_dirs: Sequence[Path]) -> Iterator[str]:
    """Yield `file:line: text` for the lines of the tables that begin with these utterances."""
    wanted = {f"{name} " for name in names}
    for folder in data_dirs if wanted else ():
        for path in (folder / table for table in _TABLES):
            if not path.is_file():
                continue
            with path.open(encoding="utf-8", errors="replace") as file:
                for number, line in enumerate(file, start=1):
                    if line[: line.find(" ") + 1] in wanted:
                        yield f"{path}:{number}: {line.rstrip()}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more


def _cut(line: str) -> str:
    return line if len(line) <= _LONGEST else line[:_LONGEST] + "…"
