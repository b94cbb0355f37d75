"""Stamps: what a recipe stage was made from, so that it runs again only when that changed.

A recipe describes its stages once (`parse_plan`): options, config files, input and output files, and
the stages whose results it uses. `check` compares that with the stamp of the stage's last complete
run. The toolkit's own code is never part of a stamp; the git commit is recorded for people.

Files up to 16 MiB (lists, configs, token tables) count by their hash, so a checkout or a copy that
changes only times changes nothing; larger ones count by size and modification time. Of a folder
the files directly in it count, not its subfolders.
"""

import hashlib
import json
import time
from dataclasses import dataclass, field
from pathlib import Path

from espnet_lite.config import read_yaml
from espnet_lite.environment import commit
from espnet_lite.errors import InputError
from espnet_lite.files import write_text

_HASHED_BYTES = 16 << 20
# Of a plan; class Stage says what they mean.
_KEYWORDS = (
    *("stage", "what", "stamp", "after", "option", "given_option"),
    *("config", "input", "output", "given", "always", "separate"),
)


@dataclass
class Stage:
    """One stage of a recipe, as its `describe` call gives it."""

    number: int
    name: str
    what: str = ""
    stamp: Path = Path()
    after: list[str] = field(default_factory=list)  # names of stages whose results it uses
    options: dict[str, str] = field(default_factory=dict)
    given_options: dict[str, str] = field(default_factory=dict)  # not given = as it was last time
    configs: list[str] = field(default_factory=list)  # FILE, or FILE#section.sub
    inputs: list[Path] = field(default_factory=list)
    outputs: list[Path] = field(default_factory=list)
    may_be_given: bool = False  # its outputs may be laid down by hand, without a run
    always: bool = False  # runs whenever it is asked for
    # Makes its outputs each from some of its inputs and options: where fewer are asked for than last
    # time, the rest stand. Else fewer inputs are a change.
    separate: bool = False

    def title(self) -> str:
        return f"stage {self.number} {self.name}"

    def pending(self) -> Path:
        """Return the file that stands while the stage runs, and after a run that was cut off."""
        return self.stamp.with_suffix(".pending")


@dataclass(frozen=True)
class Verdict:
    """Whether a stage must run, and why."""

    run: bool
    why: str


def parse_plan(raw: bytes) -> dict[str, Stage]:
    """Return the stages of a plan by name, in its order.

    The plan is a list of words, each ended by a NUL byte. A word `@keyword` rules the words after
    it: `@stage NUMBER NAME` begins a stage, `@input A B C` gives three inputs, `@option key=value`.
    """
    stages: dict[str, Stage] = {}
    words = raw.decode("utf-8", "surrogateescape").split("\0")[:-1]
    groups: list[tuple[str, list[str]]] = []
    for word in words:
        if word.startswith("@") and word[1:] in _KEYWORDS:
            groups.append((word[1:], []))
        elif groups:
            groups[-1][1].append(word)
        else:
            raise ValueError(f"a plan begins with @stage, found {word!r}")
    stage = Stage(0, "")
    for keyword, values in groups:
        if keyword == "stage":
            stage = Stage(int(values[0]), values[1])
            stages[stage.name] = stage
        elif keyword == "what":
            stage.what = " ".join(values)
        elif keyword == "stamp":
            stage.stamp = Path(values[0])
        elif keyword == "after":
            stage.after += values
        elif keyword == "option":
            stage.options.update(_key_value(word) for word in values)
        elif keyword == "given_option":
            pairs = (_key_value(word) for word in values)
            stage.given_options.update({key: value for key, value in pairs if value})
        elif keyword == "config":
            stage.configs += values
        elif keyword == "input":
            stage.inputs += map(Path, values)
        elif keyword == "output":
            stage.outputs += map(Path, values)
        elif keyword == "given":
            stage.may_be_given = True
        elif keyword == "always":
            stage.always = values == ["true"]
        elif keyword == "separate":
            stage.separate = True
    return stages


def _key_value(word: str) -> tuple[str, str]:
    key, _, value = word.partition("=")
    return key, value


def _fingerprint(path: Path, known: dict | None) -> dict:
    """Return size, time and (of small files) hash; with `known` equal in size and time, `known`."""
    stat = path.stat()
    mark = {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    if known and all(known.get(key) == value for key, value in mark.items()):
        return known
    if stat.st_size <= _HASHED_BYTES:
        mark["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return mark


def _is_same_file(old: dict, new: dict) -> bool:
    if "sha256" in old and "sha256" in new:
        return old["sha256"] == new["sha256"]
    return old == new


def _fingerprints(paths: list[Path], known: dict) -> dict[str, dict]:
    """Return the fingerprint of every file named, and of every file in a folder named."""
    marks = {}
    for path in paths:
        if path.is_dir():
            files = [item for item in sorted(path.iterdir()) if not item.name.startswith(".")]
            files = [item for item in files if item.is_file()]
        else:
            files = [path] if path.exists() else []
        for item in files:
            marks[str(item)] = _fingerprint(item, known.get(str(item)))
    return marks


def _config_values(spec: str) -> dict[str, object]:
    """Return the values of FILE or FILE#section under flat keys `a.b.c`."""
    path, _, section = spec.partition("#")
    value: object = read_yaml(path)
    for part in section.split(".") if section else ():
        value = value.get(part) if isinstance(value, dict) else None
    flat: dict[str, object] = {}

    def walk(prefix: str, node: object) -> None:
        if isinstance(node, dict):
            for key, item in node.items():
                walk(f"{prefix}.{key}" if prefix else str(key), item)
        else:
            flat[prefix] = node

    walk(section, {} if value is None else value)
    return flat


def _config_name(spec: str) -> str:
    """Return the section of FILE#section, else FILE: two files that agree in a section are alike to
    a stage that depends on no more than that."""
    path, _, section = spec.partition("#")
    return section or path


def _configs(stage: Stage) -> dict[str, dict[str, object]]:
    """Return the values of the stage's configs by name; of two files that disagree in a section the
    second one's stand under FILE#section."""
    configs: dict[str, dict[str, object]] = {}
    for spec in stage.configs:
        name, values = _config_name(spec), _config_values(spec)
        configs[name if configs.get(name, values) == values else spec] = values
    return configs


def _missing(paths: list[Path]) -> list[Path]:
    return [path for path in paths if not path.exists()]


def resolve(stage: Stage, last: dict) -> dict:
    """Return what the stage's results depend on now; `last` is its stamp, {} without one."""
    given = {**last.get("given_options", {}), **stage.given_options}
    return {
        "options": stage.options,
        "given_options": given,
        "configs": _configs(stage),
        "inputs": _fingerprints(stage.inputs, last.get("inputs", {})),
    }


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _changes(title: str, old: dict, new: dict) -> list[str]:
    """Return `key old → new` for every key whose value differs."""
    changes = []
    for key in sorted({*old, *new}):
        if key not in new:
            changes.append(f"{title}{key} {_shown(old[key])} → not given")
        elif key not in old:
            changes.append(f"{title}{key} not given → {_shown(new[key])}")
        elif old[key] != new[key]:
            changes.append(f"{title}{key} {_shown(old[key])} → {_shown(new[key])}")
    return changes


def _file_changes(old: dict, new: dict) -> list[str]:
    changes = []
    for path in sorted({*old, *new}):
        if path not in new:
            changes.append(f"{path} is gone")
        elif path not in old:
            changes.append(f"{path} is new")
        elif not _is_same_file(old[path], new[path]):
            changes.append(f"{path} changed")
    return changes


def _asked_for(stage: Stage, last: dict) -> dict:
    """Return the stamp of a separate stage without what is not asked for now; others' as it is."""
    if not stage.separate:
        return last
    configs = _configs(stage)
    kept = {
        "options": {key: last["options"][key] for key in last["options"] if key in stage.options},
        "configs": {key: last["configs"][key] for key in last["configs"] if key in configs},
    }
    for kind, paths in (("inputs", stage.inputs), ("outputs", stage.outputs)):
        asked = {str(path) for path in paths}
        kept[kind] = {
            path: mark
            for path, mark in last[kind].items()
            if path in asked or str(Path(path).parent) in asked
        }
    return {**last, **kept}


def differences(stage: Stage, last: dict, now: dict) -> list[str]:
    """Return in words what changed since the stamp `last` was written."""
    last = _asked_for(stage, last)
    changes = _changes("--", last["options"], now["options"])
    changes += _changes("--", last["given_options"], now["given_options"])
    files = {_config_name(spec): spec.partition("#")[0] for spec in reversed(stage.configs)}
    files.update({spec: spec.partition("#")[0] for spec in stage.configs})
    for name in sorted({*last["configs"], *now["configs"]}):
        old, new = last["configs"].get(name), now["configs"].get(name)
        if not old and not new:
            continue  # newly a section of its config, and not set in it
        if old is None or new is None:
            changes.append(f"{name} is {'no longer' if new is None else 'newly'} its config")
        else:
            changes += _changes(f"{files[name]}: ", old, new)
    return changes + _file_changes(last["inputs"], now["inputs"])


def read_stamp(path: Path) -> dict:
    """Return the stamp, {} where there is none."""
    if not path.exists():
        return {}
    try:
        stamp = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        stamp = None
    parts = ("options", "given_options", "configs", "inputs", "outputs")
    if not isinstance(stamp, dict) or not all(isinstance(stamp.get(x), dict) for x in parts):
        raise InputError("not a stamp", where=path, fix=f"remove it: rm {path}")
    return stamp


def _few(changes: list[str]) -> str:
    more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
    return "; ".join(changes[:3]) + more


def staleness(stage: Stage, *, trust_outputs: bool) -> str:
    """Return why the results of `stage` are not those of its options, config and inputs; "" if they are.

    Args:
        trust_outputs: let outputs stand that were edited after a complete run, as long as they exist.
    """
    last = read_stamp(stage.stamp)
    gone = _missing(stage.outputs)
    cut_off = stage.pending().exists()
    if not last:
        if stage.may_be_given and not gone and not cut_off:
            return ""
        return "runs now, or was cut off before its end" if cut_off else "has not run"
    if gone:
        return f"{gone[0]} is missing"
    changes = differences(stage, last, resolve(stage, last))
    if changes:
        return _few(changes)
    if not trust_outputs or cut_off:
        written = _asked_for(stage, last)["outputs"]
        edited = _file_changes(written, _fingerprints(stage.outputs, written))
        if edited:
            return f"{_few(edited)} after the stage had written it"
    return ""


def _upstream(stages: dict[str, Stage], name: str) -> list[str]:
    """Return all stages that `name` builds on, in the plan's order."""
    wanted, todo = set(), list(stages[name].after)
    while todo:
        item = todo.pop()
        if item not in wanted:
            wanted.add(item)
            todo += stages[item].after
    return [item for item in stages if item in wanted]


def check(stages: dict[str, Stage], name: str, *, command: str = "./run.sh") -> Verdict:
    """Return whether stage `name` must run, after making sure that it can.

    Args:
        command: the recipe's command line without its choice of stages, for the mending command.

    Raises:
        InputError: a stage it builds on is stale or has not run, or an input is missing.
    """
    stage = stages[name]
    for item in _upstream(stages, name):
        why = staleness(stages[item], trust_outputs=True)
        if why:
            raise InputError(
                f"needs {stages[item].title()}, which is stale: {why}"
                if why != "has not run"
                else f"needs {stages[item].title()}, which has not run",
                where=stage.title(),
                fix=f"run it: {command} --stage {item} --stop_stage {name}",
            )
    missing = _missing(stage.inputs)
    if missing:
        raise InputError(f"no such file or folder: {missing[0]}", where=stage.title())
    if stage.always:
        return Verdict(True, "asked to run in any case")
    last = read_stamp(stage.stamp)
    if not last and not stage.pending().exists():
        return Verdict(True, "has not run yet")
    why = staleness(stage, trust_outputs=False)
    if why:
        return Verdict(True, why)
    return Verdict(
        False, f"up to date: options, config, inputs and outputs are those of {last['written']}"
    )


def foresee(stages: dict[str, Stage], name: str, rerun: set[str]) -> Verdict:
    """Return what `check` would say in a dry run in which the stages `rerun` would run before."""
    before = [item for item in _upstream(stages, name) if item in rerun]
    if before:
        return Verdict(True, f"if {stages[before[-1]].title()} changes what it reads")
    stage = stages[name]
    why = "asked to run in any case" if stage.always else staleness(stage, trust_outputs=False)
    if why:
        return Verdict(True, why)
    return Verdict(False, "up to date")


def begin(stage: Stage) -> None:
    """Record what the stage is about to read; what changes meanwhile makes it stale again."""
    record = resolve(stage, read_stamp(stage.stamp))
    write_text(stage.pending(), json.dumps(record) + "\n")


def withdraw(stage: Stage) -> None:
    """Forget a begun run that refused its input before it wrote anything.

    The stage is then what it was before: it has not run, or it ran with what its stamp says.
    """
    pending = stage.pending()
    if not pending.exists():
        return
    begun = pending.stat().st_mtime_ns
    written = [path for output in stage.outputs for path in (output, *_files_in(output))]
    if not any(path.stat().st_mtime_ns >= begun for path in written if path.exists()):
        pending.unlink()


def _files_in(path: Path) -> list[Path]:
    return list(path.iterdir()) if path.is_dir() else []


def finish(stage: Stage) -> None:
    """Write the stamp of a complete run.

    Raises:
        InputError: an output that the stage was to write is not there.
    """
    missing = _missing(stage.outputs)
    if missing:
        raise InputError(f"ended without writing {missing[0]}", where=stage.title())
    record = {
        "stage": f"{stage.number} {stage.name}",
        "written": time.strftime("%Y-%m-%d %H:%M:%S"),
        "commit": commit(),
        **json.loads(stage.pending().read_text(encoding="utf-8")),
        "outputs": _fingerprints(stage.outputs, {}),
    }
    write_text(stage.stamp, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    stage.pending().unlink()
