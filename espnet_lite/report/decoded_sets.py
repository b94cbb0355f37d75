"""Decoded and scored sets in a folder of experiments, matched with the rows of results."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from espnet_lite.score.results import headline_kind, read_json
from espnet_lite.score.score_folder import SCORES, UTTERANCES


def find_decoded_sets(expdir: Path, rows: Sequence[Mapping]) -> dict[str, dict[str, Path]]:
    """Return `{row name: {set: folder}}` of the folders that the rows' numbers came from.

    A folder belongs to a row where model, decoding and counts agree; of several the youngest is
    taken. A row whose folders are gone, or were decoded again since, has none.
    """
    folders: dict[str, dict[str, Path]] = {row["row"]: {} for row in rows}
    by_age = sorted(
        expdir.glob("[!.]*/decode_*/*/decode.json"), key=lambda path: path.stat().st_mtime
    )
    for path in by_age:
        folder = path.parent
        score_path = folder / "score" / SCORES
        if not (score_path.is_file() and (folder / "score" / UTTERANCES).is_file()):
            continue
        decoded, scored = read_json(path), read_json(score_path)
        for row in rows:
            if _is_of(row, folder.name, decoded, scored):
                folders[row["row"]][folder.name] = folder
    return folders


def _is_of(row: Mapping, set_name: str, decoded: Mapping, scored: Mapping) -> bool:
    if set_name not in row["scores"]:
        return False
    kind = headline_kind(row)
    return (
        decoded.get("model", {}).get("sha256") == row["model"]["sha256"]
        and decoded.get("config") == row["decode"]["config"]
        and (scored.get(kind) or {}).get("counts") == row["scores"][set_name][kind]["counts"]
    )
