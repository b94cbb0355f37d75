"""The experiment folder: what it was started with, and whether a run may go on in it."""

import hashlib
import json
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from espnet_lite.config import dump_yaml, from_plain, read_yaml, to_plain
from espnet_lite.errors import InputError
from espnet_lite.files import write_text
from espnet_lite.train.checkpoint import checkpoints, remove_leftovers

LENGTH = "train.updates"
_BLOCK_BYTES = 1 << 20


def flatten(plain: object, prefix: str = "") -> dict[str, object]:
    """Return nested mappings as {"a.b": value}."""
    if not isinstance(plain, dict):
        return {prefix: plain}
    flat = {}
    for key, value in plain.items():
        flat.update(flatten(value, f"{prefix}.{key}" if prefix else str(key)))
    return flat


def fingerprint(paths: list[Path]) -> str:
    """Return a hash over the contents of input files, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        if not path.is_file():
            raise InputError("no such file", where=path, fix="run the stages before training")
        of_file = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                of_file.update(block)
        digest.update(of_file.digest())
    return digest.hexdigest()[:16]


def refuse_changes(
    folder: Path,
    started: dict,
    asked: dict,
    *,
    tag_option: str = "--exp_tag",
    successor: Path | None = None,
) -> None:
    """Raise unless `asked` equals what the folder was started with, or is only longer.

    Args:
        folder: the experiment folder.
        started: configuration or inputs that it was started with, plain.
        asked: the same that are asked for now.
        tag_option: named in the message, as what gives another configuration another name.
        successor: of a training that began with this one's weights: this one then may not be longer.

    Raises:
        InputError: names each changed key with both values, `tag_option` and --fresh.
    """
    old, new = flatten(started), flatten(asked)
    changed = [
        f"{key} {old.get(key)!r} -> {new.get(key)!r}"
        for key in dict.fromkeys([*old, *new])
        if old.get(key) != new.get(key) and not (successor is None and _only_longer(key, old, new))
    ]
    if changed:
        use = "" if successor is None else f", and {successor.name} goes on from it"
        raise InputError(
            f"was trained with another configuration{use}: {', '.join(changed)}",
            where=folder,
            fix=_ways_out(tag_option),
        )


def refuse_changed_steps(
    steps: Sequence[tuple[Path, dict]], *, schema: type | None, tag_option: str = "--exp_tag"
) -> None:
    """Raise unless all steps of a schedule can go on in their folders, before one of them does.

    Each begins with the weights of the one before it, so that a step with a later one behind it may not
    be trained any further.

    Args:
        steps: folder and resolved configuration of each, plain, in their order.
        schema: dataclass of the configurations, as `open_experiment` takes it.
        tag_option: named in messages.

    Raises:
        InputError: names the folder and each changed key, or the step that is gone.
    """
    successor = None
    for folder, config in reversed(steps):
        if checkpoints(folder / "checkpoints"):
            started = _with_defaults(read_yaml(folder / "config.yaml"), schema)
            refuse_changes(folder, started, config, tag_option=tag_option, successor=successor)
            successor = folder
        elif successor is not None:
            raise InputError(
                f"has no checkpoints, and {successor.name} goes on from it",
                where=folder,
                fix=_ways_out(tag_option),
            )


def _ways_out(tag_option: str) -> str:
    return f"give the new one a name with {tag_option} NAME, or start anew with --fresh"


def _only_longer(key: str, old: dict, new: dict) -> bool:
    return key == LENGTH and key in old and key in new and new[key] > old[key]


def _with_defaults(plain: dict, schema: type | None) -> dict:
    """Return a configuration with the defaults of keys that are newer than it.

    One that the schema does not take is returned as it is: it has keys that no longer are.
    """
    if schema is None:
        return plain
    try:
        return to_plain(from_plain(schema, plain))
    except InputError:
        return plain


def move_aside(folder: Path) -> None:
    """Rename an experiment folder to `<folder>.old-<date>[-<n>]` so that a new one can start."""
    if folder.exists():
        name = f"{folder.name}.old-{time.strftime('%Y%m%d-%H%M%S')}"
        names = (name, *(f"{name}-{n}" for n in range(2, 1000)))  # several within a second
        aside = next(path for path in map(folder.with_name, names) if not path.exists())
        folder.rename(aside)
        print(f"{folder}: moved aside to {aside.name}")


def open_experiment(
    folder: Path,
    config: dict,
    inputs: dict,
    command: list[str],
    *,
    schema: type | None = None,
    tag_option: str = "--exp_tag",
) -> None:
    """Make the folder ready for a run: refuse a changed config, write config.yaml and run.sh.

    Args:
        folder: the experiment folder; the caller holds its lock.
        config: the resolved configuration, plain.
        inputs: names and hashes of what is read, plain.
        command: the program and its arguments, kept in run.sh.
        schema: dataclass of the configuration: a key that is newer than the experiment then counts
            as its default. None: every key must be there.
        tag_option: named in the message about a changed config, as what gives it another name.
    """
    config_file, inputs_file = folder / "config.yaml", folder / "inputs.json"
    if checkpoints(folder / "checkpoints"):
        started = _with_defaults(read_yaml(config_file), schema)
        refuse_changes(folder, started, config, tag_option=tag_option)
        read = json.loads(inputs_file.read_text(encoding="utf-8"))
        refuse_changes(folder, read, inputs, tag_option=tag_option)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "checkpoints").mkdir(exist_ok=True)
    remove_leftovers(folder)
    remove_leftovers(folder / "checkpoints")
    write_text(config_file, dump_yaml(config))
    write_text(inputs_file, json.dumps(inputs, indent=1) + "\n")
    script = f"#!/usr/bin/env bash\ncd {shlex.quote(str(Path.cwd()))}\n{shlex.join(command)}\n"
    write_text(folder / "run.sh", script)
    (folder / "run.sh").chmod(0o755)
