"""A recipe's results folder: everything that is drawn from its JSONs, written together."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from espnet_lite.files import read_lines, write_text
from espnet_lite.score.efficiency import TABLE, efficiency_lines, read_profiles, table_text
from espnet_lite.score.efficiency_figures import FigurePlan, draw_figures, plan_figures
from espnet_lite.score.pretraining import read_pretrainings
from espnet_lite.score.results import headline_kind
from espnet_lite.score.results_page import by_dev_rate, efficiency_parts, results_page


@dataclass(frozen=True)
class Drawn:
    """What is to be written: RESULTS.md, the efficiency table and its figures.

    Attributes:
        page: None where no row was scored yet.
        lines: of the efficiency table; empty where nothing was profiled.
    """

    page: str | None
    lines: list[dict]
    figures: list[FigurePlan]

    def efficiency(self) -> str:
        """Return the efficiency tables as Markdown, for a program to print."""
        rates = [
            (kind, name)
            for line in self.lines
            for kind, sets in line["rates"].items()
            for name in sets
        ]
        return "\n\n".join(efficiency_parts(self.lines, list(dict.fromkeys(rates)))) + "\n"


def draw(results_dir: Path, rows: Mapping[str, Mapping]) -> Drawn:
    """Return what the folder's rows, profiles, pre-trainings and notes give; nothing is written.

    Args:
        results_dir: the recipe's folder.
        rows: `{row name: row}`, by name, checked; may be empty.

    Raises:
        InputError: a file that is not what it should be, or rows with different dev sets.
    """
    profiles = read_profiles(results_dir)
    if not rows:
        return Drawn(None, efficiency_lines([], profiles), [])
    ordered = by_dev_rate(rows)
    lines = efficiency_lines(ordered, profiles)
    figures = plan_figures(
        lines, kind=headline_kind(ordered[0]), set_name=ordered[0]["dev_sets"][0]
    )
    notes_path = results_dir / "results" / "notes.md"
    page = results_page(
        _with_kept_files(rows, results_dir),
        pretrainings=read_pretrainings(results_dir),
        efficiency=lines,
        figures=figures,
        notes="\n".join(read_lines(notes_path)) if notes_path.is_file() else None,
    )
    return Drawn(page, lines, figures)


def _with_kept_files(rows: Mapping[str, Mapping], results_dir: Path) -> dict[str, dict]:
    """Return the rows with the bare name of each model that is no longer where the row says.

    A row names where its model and its language model lay when it was written. They may have been
    removed since, or others written in their place.
    """
    found: dict[str, str | None] = {}  # file -> its SHA-256, None where it is not there

    def now(model: Mapping) -> dict:
        name = model["file"]
        if name not in found:
            path = results_dir / name
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
        return {**model, "file": name if found[name] == model["sha256"] else Path(name).name}

    return {
        name: {**row, **{key: now(row[key]) for key in ("model", "lm") if row.get(key)}}
        for name, row in rows.items()
    }


def write(results_dir: Path, drawn: Drawn) -> None:
    """Write what was drawn; RESULTS.md last."""
    if drawn.lines:
        write_text(results_dir / TABLE, table_text(drawn.lines))
        draw_figures(drawn.figures, results_dir)
    if drawn.page is not None:
        write_text(results_dir / "RESULTS.md", drawn.page)
