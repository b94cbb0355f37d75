"""Learning curves of the trainings in a folder of experiments, read from their train.jsonl."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

MOST_POINTS = 300  # of a curve: more than a plot has pixels for its detail

# Group of trainings → a value that only their logs have. The first that fits is taken.
GROUPS = {
    "Pre-training": "accuracy_unmasked",
    "Recognizers": "loss_ctc",
}
OTHERS = "Other trainings"


def read_trainings(expdir: Path) -> list[dict[str, object]]:
    """Return the trainings under a folder by name, JSON-able.

    Each has `name`, `group` and `curves`: `{kind: {value: [[update, minutes, number], ...]}}` with
    kind `train` or `dev`. Folders that `--fresh` moved aside are left out.
    """
    trainings = []
    for path in sorted(expdir.glob("[!.]*/train.jsonl")):
        if ".old-" in path.parent.name:
            continue
        curves = _curves(_entries(path))
        if curves:
            trainings.append({"name": path.parent.name, "group": _group(curves), "curves": curves})
    return trainings


def _entries(path: Path) -> list[dict]:
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:  # the half line of a training that was killed, or runs now
            break
    return entries


def _curves(entries: Sequence[dict]) -> dict[str, dict[str, list]]:
    curves: dict[str, dict[str, list]] = {}
    for entry in entries:
        for name, value in entry.items():
            if name in ("kind", "update", "minutes", "core_minutes", "epoch"):
                continue
            if isinstance(value, (int, float)) and math.isfinite(value):
                point = [entry["update"], entry.get("minutes"), _rounded(value)]
                curves.setdefault(entry["kind"], {}).setdefault(name, []).append(point)
    return {
        kind: {name: _thinned(points) for name, points in values.items()}
        for kind, values in curves.items()
    }


def _rounded(value: float | int) -> float:
    """Return the value with six digits: what a plot can show, in a third of the bytes."""
    return float(f"{value:.6g}")


def _thinned(points: list) -> list:
    """Return at most `MOST_POINTS` of the points, evenly, with the last one."""
    step = math.ceil(len(points) / MOST_POINTS)
    return points if step <= 1 else points[(len(points) - 1) % step :: step]


def _group(curves: dict[str, dict[str, list]]) -> str:
    for group, needed in GROUPS.items():
        if any(needed in values for values in curves.values()):
            return group
    return OTHERS
