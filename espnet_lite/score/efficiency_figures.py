"""Figures of the efficiency table: error rate against bytes, MACs and real-time factor."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from espnet_lite.files import atomic_path
from espnet_lite.score.efficiency import SHOWN_SECONDS, SHOWN_THREADS, shown_timing

FOLDER = Path("images")


def _shown_rtf(line: Mapping) -> float | None:
    timing = shown_timing(line)
    return None if timing is None else timing["rtf"]


# Name of the file → what its x axis says, and its value of a line (None: not known).
AXES: dict[str, tuple[str, Callable[[Mapping], float | None]]] = {
    "bytes": ("size of the model, MB", lambda line: line["bytes"] / 1e6),
    "macs": ("GMACs for a second of audio", lambda line: line["macs_per_second"] / 1e9),
    "rtf": (
        f"real-time factor ({SHOWN_SECONDS:g} s of audio, {SHOWN_THREADS} thread)",
        _shown_rtf,
    ),
}


@dataclass(frozen=True)
class FigurePlan:
    """One figure: its path from the recipe's folder, points (x, y, name), and what the axes say.

    Attributes:
        intervals: `{name: (low, high)}` of y, of the points that have one.
    """

    path: Path
    points: tuple[tuple[float, float, str], ...]
    intervals: Mapping[str, tuple[float, float]]
    x_label: str
    y_label: str


def plan_figures(lines: Sequence[Mapping], *, kind: str, set_name: str) -> list[FigurePlan]:
    """Return the figures that there are two points for.

    Args:
        lines: of `efficiency_lines`.
        kind: "wer" or "per".
        set_name: set whose error rate is drawn.
    """
    plans = []
    intervals = {
        line["model"]: tuple(line["intervals"][kind][set_name])
        for line in lines
        if set_name in line["intervals"].get(kind, {})
    }
    for axis, (label, value_of) in AXES.items():
        points = tuple(
            (value, line["rates"][kind][set_name], line["model"])
            for line in lines
            if set_name in line["rates"].get(kind, {}) and (value := value_of(line)) is not None
        )
        if len(points) >= 2:
            path = FOLDER / f"efficiency_{axis}.png"
            plans.append(
                FigurePlan(path, points, intervals, label, f"{kind.upper()} {set_name}, %")
            )
    return plans


def draw_figures(plans: Sequence[FigurePlan], results_dir: Path) -> None:
    """Write the figures into the recipe's folder, and remove those of models that are gone.

    The same plan gives the same bytes with the same matplotlib: no date, no settings of the user.
    """
    planned = {plan.path for plan in plans}
    for axis in AXES:
        path = FOLDER / f"efficiency_{axis}.png"
        if path not in planned:
            (results_dir / path).unlink(missing_ok=True)
    for plan in plans:
        _draw(plan, results_dir / plan.path)


def _draw(plan: FigurePlan, path: Path) -> None:
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(matplotlib.rcParamsDefault):
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        values = [value for value, _, _ in plan.points]
        low, high = min(values), max(values)
        is_wide = high > 4 * low > 0
        middle = math.sqrt(low * high) if is_wide else (low + high) / 2
        axes.scatter(values, [rate for _, rate, _ in plan.points], zorder=3)
        for value, _, name in plan.points:
            if name in plan.intervals:
                axes.vlines(value, *plan.intervals[name], alpha=0.5, linewidth=1)
        for value, rate, name in plan.points:  # names stand towards the middle
            side, shift = ("right", -5) if value > middle else ("left", 5)
            place = {"xytext": (shift, 4), "textcoords": "offset points", "ha": side}
            axes.annotate(name, (value, rate), fontsize=7, **place)
        if is_wide:
            axes.set_xscale("log")
        axes.margins(y=0.15)
        axes.set_xlabel(plan.x_label)
        axes.set_ylabel(plan.y_label)
        axes.grid(alpha=0.3)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None})
