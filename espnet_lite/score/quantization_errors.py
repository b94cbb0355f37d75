"""Tables and figures of error analyses: results/quantization_errors/<name>.json, as
bin/analyze_quantization writes them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from espnet_lite.errors import InputError
from espnet_lite.files import atomic_path
from espnet_lite.score.results import check_needed, read_json
from espnet_lite.score.results_page import markdown_table

PARTS = ("own", "propagated", "interaction")
KINDS = ("attention", "feed_forward", "convolution")
_NEEDED: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "encoder": (str,),
    "policy": (str,),
    "rule": (str,),
    "set": (str,),
    "utterances": (int,),
    "speakers": (int,),
    "units": (list,),
    "layers_sqnr_db": (list,),
    "disturbance.*.*": (int, float),
    "ablation.*.loss_ctc.value": (int, float),
    "synergy": (dict,),
    "verdict": (str,),
}


def read_analyses(paths: Sequence[Path]) -> list[dict]:
    """Return analyses, each one checked.

    Raises:
        InputError: a file that is none, naming the first key that is missing.
    """
    found = []
    for path in paths:
        analysis = read_json(path)
        check_needed(analysis, _NEEDED, where=path)
        found.append(analysis)
    return found


def kind_rows(analysis: Mapping) -> tuple[list[str], list[list[str]]]:
    """Return header and cells: mean over the units of a kind of each error, in percent."""
    rows = []
    for kind in [kind for kind in KINDS if _units(analysis, kind)]:
        units = _units(analysis, kind)
        means = [100 * sum(unit[part] for unit in units) / len(units) for part in (*PARTS, "total")]
        rows.append([_words(kind), str(len(units)), *(f"{mean:.1f}" for mean in means)])
    return ["units", "number", *PARTS, "total"], rows


def disturbance_rows(analysis: Mapping) -> tuple[list[str], list[list[str]]]:
    """Return header and cells: kind that is quantized alone × kind whose outputs change, in percent."""
    table = analysis["disturbance"]
    kinds = [kind for kind in KINDS if kind in table]
    rows = [
        [_words(kind), *(f"{100 * table[kind][other]:.1f}" for other in kinds)] for kind in kinds
    ]
    return ["quantized", *map(_words, kinds)], rows


def ablation_rows(analysis: Mapping) -> tuple[list[str], list[list[str]]]:
    """Return header and cells: each hybrid with WER, frames that disagree, CTC loss, and intervals."""
    rows = []
    for name, measures in sorted(analysis["ablation"].items(), key=_by_kinds):
        rows.append([_words(name), *(_shown(measures[key]) for key in _MEASURES)])
    return ["quantized", *_MEASURES.values()], rows


def synergy_rows(analysis: Mapping) -> tuple[list[str], list[list[str]]]:
    """Return header and cells: of each pair what both lose together beyond what each loses alone."""
    rows = [
        [_words(pair), *(_shown(measures[key]) for key in _MEASURES)]
        for pair, measures in sorted(analysis["synergy"].items(), key=_by_kinds)
    ]
    return ["pair", *_MEASURES.values()], rows


def _by_kinds(named: tuple[str, object]) -> tuple:
    """Order the reference first, then one kind, pairs, all kinds, the whole network, and differences."""
    name, _ = named
    kinds = [KINDS.index(kind) for kind in name.split("+") if kind in KINDS]
    place = {"reference": 0, "quantized": 8}.get(name, 9 if " - " in name else len(kinds))
    return place, kinds


_MEASURES = {
    "wer": "WER, %",
    "disagreement": "other frames, %",
    "loss_ctc": "CTC loss, nats",
}


def _units(analysis: Mapping, kind: str) -> list[Mapping]:
    return [unit for unit in analysis["units"] if unit["kind"] == kind]


def _words(name: str) -> str:
    """Return the name of kinds, of a pair, or of a difference of pairs as it is shown."""
    parts = [part.replace("_", "-").replace("+", " + ") for part in name.split(" - ")]
    return parts[0] if len(parts) == 1 else " − ".join(f"({part})" for part in parts)


def _shown(interval: Mapping) -> str:
    return f"{interval['value']:.2f} [{interval['low']:.2f}, {interval['high']:.2f}]"


def draw_heat_map(analyses: Sequence[Mapping], path: Path) -> None:
    """Write a figure: for each analysis a row of three maps (own, propagated and interaction errors;
    kinds of units × blocks), and the SQNR of the layers.

    The same analyses give the same bytes with the same matplotlib: no date, no settings of the user.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    with matplotlib.rc_context(matplotlib.rcParamsDefault):
        figure = Figure(figsize=(13.0, 1.0 + 2.0 * len(analyses)), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(len(analyses), 4, squeeze=False)
        for row, analysis in zip(axes, analyses, strict=True):
            lines = _lines(analysis)
            largest = max(max(values) for values in lines["total"].values())
            for part, place in zip(PARTS, row, strict=False):
                names = list(lines[part])
                image = place.imshow(
                    [lines[part][name] for name in names],
                    aspect="auto",
                    cmap="viridis",
                    vmin=0.0,
                    vmax=largest,
                    interpolation="nearest",
                )
                place.set_yticks(range(len(names)), names, fontsize=7)
                place.set_title(f"{analysis['name']}: {part}", fontsize=8)
                place.set_xlabel("block", fontsize=7)
                place.tick_params(axis="x", labelsize=7)
            percent = PercentFormatter(xmax=1.0, decimals=0)
            figure.colorbar(image, ax=list(row[:3]), format=percent).ax.tick_params(labelsize=7)
            noise = row[3]
            noise.plot(
                range(len(analysis["layers_sqnr_db"])), analysis["layers_sqnr_db"], "o-", ms=3
            )
            noise.set_title("SQNR of layers, dB", fontsize=8)
            noise.set_xlabel("layer (0: input)", fontsize=7)
            noise.tick_params(labelsize=7)
            noise.grid(alpha=0.3)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})


def _lines(analysis: Mapping) -> dict[str, dict[str, list[float]]]:
    """Return {part: {place in the block: errors by block}}; a block with two feed-forward modules has
    two lines of them."""
    found: dict[str, dict[str, list[float]]] = {part: {} for part in (*PARTS, "total")}
    for unit in analysis["units"]:
        _, _, place = unit["name"].removeprefix("encoder.").partition(".")
        place = place.partition(".")[2].removesuffix(".module").replace("_", "-")
        for part, lines in found.items():
            lines.setdefault(place, []).append(unit[part])
    return found


BEGIN, END = "<!-- analyses -->", "<!-- /analyses -->"


def with_analyses(page: str, analyses: Sequence[Mapping], figure: str, *, where: object) -> str:
    """Return a page whose part between the marks is drawn from the analyses.

    Args:
        page: Markdown with both marks.
        analyses: in their order on the page.
        figure: path of the heat map, from the page.
        where: the page's file, for messages.

    Raises:
        InputError: the marks are not there.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise InputError(
            f"no {BEGIN} … {END}", where=where, fix="put both where the tables shall stand"
        )
    parts = [_overview(analyses), f"![errors of units by block, and SQNR of layers]({figure})"]
    for analysis in analyses:
        parts += [f"### {analysis['name']}", _introduction(analysis)]
        tables = (
            ("Errors of units, mean over blocks, percent of the output:", kind_rows),
            (
                "One kind quantized, the rest in floating point: change of the outputs of units, percent:",
                disturbance_rows,
            ),
            ("Kinds that are quantized, with 95 % intervals over speakers:", ablation_rows),
            ("What two kinds lose together beyond what each loses alone:", synergy_rows),
        )
        for title, rows in tables:
            header, cells = rows(analysis)
            parts += [title, markdown_table(header, cells)]
    return before + BEGIN + "\n" + "\n\n".join(parts) + "\n" + END + after


def _overview(analyses: Sequence[Mapping]) -> str:
    """Return the table with a line for each analysis."""
    rows = []
    for analysis in analyses:
        ablation, synergy = analysis["ablation"], analysis["synergy"]
        claim = synergy.get("attention+convolution", {}).get("loss_ctc")
        rows.append(
            [
                analysis["name"],
                analysis["encoder"],
                analysis["policy"],
                *(f"{ablation[name]['wer']['value']:.1f}" for name in ("reference", "quantized")),
                f"{analysis['layers_sqnr_db'][0]:.1f} → {analysis['layers_sqnr_db'][-1]:.1f}",
                "-" if claim is None else _shown(claim),
                analysis["verdict"],
            ]
        )
    header = ["analysis", "encoder", "policy", "WER reference", "WER quantized", "SQNR, dB"]
    return markdown_table([*header, "synergy attention + convolution, nats", "verdict"], rows)


def _introduction(analysis: Mapping) -> str:
    reference = {
        "own": "the recognizer's own weights in floating point",
        "teacher": "the teacher that it was distilled from",
    }[analysis["rule"]]
    return (
        f"Encoder {analysis['encoder']}, policy {analysis['policy']}, {analysis['utterances']} utterances "
        f"of {analysis['speakers']} speakers of `{analysis['set']}`; reference: {reference}."
    )
