"""Error analyses of quantized encoders, results/quantization_errors/*.json, as maps of place × block."""

from collections.abc import Mapping
from pathlib import Path

from espnet_lite.errors import InputError
from espnet_lite.score.results import check_needed, read_json

FOLDER = Path("results") / "quantization_errors"
PARTS = ("own", "propagated", "interaction")
_NEEDED: dict[str, tuple[type, ...]] = {"name": (str,), "encoder": (str,), "units": (list,)}
_NEEDED_OF_UNIT: dict[str, tuple[type, ...]] = {
    "name": (str,),
    **dict.fromkeys(PARTS, (int, float)),
}


def read_quantization_maps(results_dir: Path) -> list[dict[str, object]]:
    """Return the analyses of a recipe by name, JSON-able: `name`, `encoder`, `blocks`, and `parts`:
    for each of own, propagated and interaction `{place in the block: errors by block}`, of the size of
    the unit's output; null where a block has no such unit.

    Raises:
        InputError: a file that is no analysis, naming the first key that is missing, or a unit
            outside of the blocks.
    """
    found = []
    for path in sorted((results_dir / FOLDER).glob("*.json")):
        analysis = read_json(path)
        check_needed(analysis, _NEEDED, where=path)
        for unit in analysis["units"]:
            check_needed(unit, _NEEDED_OF_UNIT, where=path)
        places = [_place(unit, where=path) for unit in analysis["units"]]
        blocks = 1 + max((block for block, _ in places), default=-1)
        parts = {
            part: {place: [None] * blocks for place in dict.fromkeys(p for _, p in places)}
            for part in PARTS
        }
        for (block, place), unit in zip(places, analysis["units"], strict=True):
            for part in PARTS:
                parts[part][place][block] = unit[part]
        known = {"name": analysis["name"], "encoder": analysis["encoder"]}
        found.append({**known, "blocks": blocks, "parts": parts})
    return found


def _place(unit: Mapping, *, where: Path) -> tuple[int, str]:
    """Return block and place of `encoder.blocks.<block>.<place>[.module]`."""
    name = unit["name"].removeprefix("encoder.blocks.").removesuffix(".module")
    block, _, place = name.partition(".")
    if not (block.isdigit() and place):
        raise InputError(
            f"unit '{unit['name']}', expected encoder.blocks.<number>.<place>", where=where
        )
    return int(block), place.replace("_", " ")
