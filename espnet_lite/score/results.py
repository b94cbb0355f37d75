"""Rows of a recipe's RESULTS.md: one JSON for each packed model, in `results/<row>.json`.

The JSON is what is kept; RESULTS.md is drawn from all of them (`results_page.py`). A row joins what
three others wrote: the packed model's header (training record), `decode.json` of each decoded set
and `score/score.json` beside it.
"""

import filecmp
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from espnet_lite.errors import InputError
from espnet_lite.files import read_lines
from espnet_lite.score.bootstrap import interval_of_speakers

_ROW_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
SCORE_AGAIN = "score again: ./run.sh --stage score"
DECODE_AGAIN = "decode again: ./run.sh --stage decode"

COUNTS = ("utterances", "tokens", "corr", "sub", "del", "ins", "err", "s_err")

# What a row must have (`*`: any key of that mapping); everything else may be absent.
NEEDED: dict[str, tuple[type, ...]] = {
    "row": (str,),
    "title": (str,),
    "dev_sets": (list,),
    "model.file": (str,),
    "model.sha256": (str,),
    "model.bytes": (int,),
    "model.parameters": (int,),
    "record.parameters": (int,),
    "record.minutes": (int, float),
    "record.updates": (int,),
    "record.seed": (int,),
    "decode.rtf.*": (int, float),
    "environment": (dict,),
    "scores.*.utterances": (int,),
    "scores.*.wer": (dict, type(None)),
    "scores.*.cer": (dict, type(None)),
    "scores.*.ter": (dict, type(None)),
}


def read_json(path: Path | str, *, fix: str | None = None) -> dict:
    """Return the JSON object of a file.

    Raises:
        InputError: missing, not UTF-8, not JSON (with the line) or not an object.
    """
    text = "\n".join(read_lines(path, fix=fix))
    try:
        plain = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"not JSON: {error.msg}", where=f"{path}:{error.lineno}", fix=fix
        ) from None
    if not isinstance(plain, dict):
        raise InputError(f"a JSON {type(plain).__name__}, expected an object", where=path, fix=fix)
    return plain


def check_row(row: Mapping, *, where: object) -> None:
    """Check that a row has every key of `NEEDED`, with its type, and scores of its dev sets.

    Raises:
        InputError: naming the file and the first key that is missing or of another type.
    """
    check_needed(row, NEEDED, where=where)
    main, whole = headline_kind(row), headline_unit(row)
    for name, score in row["scores"].items():
        _check(score, [whole], (int,), where=where, above=f"scores.{name}")
        for kind in dict.fromkeys((main, "wer", "cer", "ter")):
            for key in COUNTS if kind == main or score[kind] is not None else ():
                _check(score, [kind, "counts", key], (int,), where=where, above=f"scores.{name}")
    for name in row["dev_sets"]:
        if name not in row["scores"]:
            raise InputError(f"missing key 'scores.{name}', a dev set", where=where)
    for name in row["scores"]:
        if name not in row["decode"]["rtf"]:
            raise InputError(f"missing key 'decode.rtf.{name}'", where=where)
    if not row["dev_sets"]:
        raise InputError("key 'dev_sets' is empty; the headline is chosen on one", where=where)


def check_needed(plain: Mapping, needed: Mapping[str, tuple[type, ...]], *, where: object) -> None:
    """Check that `plain` has every key of `needed` (`a.b.c`; `*`: any key), with its type.

    Raises:
        InputError: naming the file and the first key that is missing or of another type.
    """
    for key, types in needed.items():
        _check(plain, key.split("."), types, where=where, above="")


def headline_kind(row: Mapping) -> str:
    """Return what a row is chosen by: "wer", or "per" where any of its sets is scored in phones."""
    return "per" if any("per" in score for score in row["scores"].values()) else "wer"


def interval_of(score: Mapping, kind: str) -> dict | None:
    """Return the 95 % interval of a rate in the scores of a set of a row, None where unknown.

    A row that was written before rows had intervals has the errors of the speakers still.
    """
    known = score[kind].get("interval")
    if known is None and score[kind].get("speakers"):
        return interval_of_speakers(score[kind]["speakers"])
    return known


def headline_unit(row: Mapping) -> str:
    """Return what that rate counts: the key of `words` or `phones` in the scores of a set."""
    return {"wer": "words", "per": "phones"}[headline_kind(row)]


def _check(value, keys: Sequence[str], types: tuple, *, where: object, above: str) -> None:
    here = above or "the row"
    if not keys:
        # bool is an int to isinstance; no needed value is a truth value
        if not isinstance(value, types) or isinstance(value, bool):
            names = " or ".join("null" if t is type(None) else t.__name__ for t in types)
            raise InputError(f"key '{here}' is {json.dumps(value)}, expected {names}", where=where)
        return
    if not isinstance(value, Mapping):
        raise InputError(f"key '{here}' is {json.dumps(value)}, expected an object", where=where)
    wanted = list(value) if keys[0] == "*" else [keys[0]]
    if not wanted:
        raise InputError(f"key '{here}' is empty", where=where)
    for key in wanted:
        name = f"{above}.{key}" if above else key
        if key not in value:
            raise InputError(f"missing key '{name}'", where=where)
        _check(value[key], keys[1:], types, where=where, above=name)


def read_rows(results_dir: Path, *, but: Path | None = None) -> dict[str, dict]:
    """Return `{row name: row}` of all `results/*.json` except `but`, by name, each one checked."""
    rows = {}
    for path in sorted((results_dir / "results").glob("*.json")):
        if path == but:
            continue
        row = read_json(path)
        check_row(row, where=path)
        if row["row"] != path.stem:
            raise InputError(f"key 'row' is '{row['row']}', expected the file's name", where=path)
        rows[path.stem] = row
    return rows


def row_text(row: Mapping) -> str:
    """Return the JSON text of a row: sorted keys, the same for the same row."""
    return json.dumps(row, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def build_row(
    name: str,
    *,
    title: str,
    model: Path,
    sha256: str,
    parameters: int | None,
    bits: str | None = None,
    record: Mapping,
    decode_dirs: Mapping[str, Path],
    dev_sets: Sequence[str],
    results_dir: Path,
) -> dict:
    """Return the row of a packed model from its training record and its decoded, scored sets.

    Args:
        sha256, parameters: of the model file; parameters are those stored in it, so that a
            decoder that only training used does not count.
        bits: name of the policy that it was packed by, where the file says it.
        record: the training record of the model's header.
        decode_dirs: `{set: folder}` with `decode.json` and `score/score.json`.
        dev_sets: names among those sets; the first one chooses the headline.

    Raises:
        InputError: a name that is no file name, a set that is not decoded or scored, one that
            was decoded with another model than this, sets decoded with different configs, a
            missing key (`check_row`).
    """
    if not _ROW_NAME.fullmatch(name):
        raise InputError(f"row name '{name}', expected letters, digits and . _ + - only")
    for dev_set in dev_sets:
        if dev_set not in decode_dirs:
            raise InputError(
                f"dev set '{dev_set}' is not among the decoded sets: {', '.join(decode_dirs)}",
                fix="the headline row is chosen on dev: decode it too, or name it with --dev_sets",
            )
    decodes = {set_name: _decoded(folder, sha256) for set_name, folder in decode_dirs.items()}
    first_set, first = next(iter(decodes.items()))
    for set_name, decoded in decodes.items():
        if decoded["config"] != first["config"] or _lm_sha256(decoded) != _lm_sha256(first):
            raise InputError(
                f"decoded with another config or language model than {first_set}",
                where=decode_dirs[set_name] / "decode.json",
                fix=DECODE_AGAIN,
            )
    row = {
        "row": name,
        "title": title,
        "dev_sets": list(dev_sets),
        "experiment": record.get("experiment"),
        "model": {
            "file": _model_name(model, results_dir),
            "sha256": sha256,
            "bytes": model.stat().st_size,
            "parameters": parameters,
            **({} if bits is None else {"bits": bits}),
        },
        "record": dict(record),
        "decode": {
            "config": first["config"],
            "config_file": _within_recipe(first.get("config_file")),
            "nj": first.get("nj"),
            "threads": first.get("threads"),
            "rtf": {set_name: decoded["rtf"] for set_name, decoded in decodes.items()},
        },
        "scores": {set_name: _scored(folder) for set_name, folder in decode_dirs.items()},
        "environment": first["environment"],
    }
    if first.get("lm"):
        lm = first["lm"]
        row["lm"] = {**lm, "file": _model_name(Path(lm["path"]), results_dir)}
        del row["lm"]["path"]
    roots = [results_dir.resolve(), Path(__file__).resolve().parents[2]]
    row = json.loads(_without_roots(row_text(row), roots))
    check_row(row, where=f"row '{name}' of {model}")
    return row


def with_earlier_sets(row: dict, path: Path) -> dict:
    """Return `row` with the sets that the same model was scored on before, in the same way.

    A model that is tried on further sets keeps its row, and the set that chose the headline. Of
    another model or decoding, or a file that is no row, nothing is kept.

    Args:
        row: the new row.
        path: the file of the earlier one, if there is one.
    """
    if not path.is_file():
        return row
    try:
        earlier = read_json(path)
        check_row(earlier, where=path)
    except InputError:  # what is replaced need not be whole
        return row
    is_same = earlier["model"]["sha256"] == row["model"]["sha256"]
    is_same = is_same and _lm_sha256(earlier) == _lm_sha256(row)
    if not (is_same and earlier["decode"]["config"] == row["decode"]["config"]):
        return row
    decode = {**row["decode"], "rtf": {**earlier["decode"]["rtf"], **row["decode"]["rtf"]}}
    return {
        **row,
        "dev_sets": earlier["dev_sets"],
        "decode": decode,
        "scores": {**earlier["scores"], **row["scores"]},
    }


def _without_roots(text: str, roots: Sequence[Path]) -> str:
    """Return `text` with paths under the recipe or the repository made relative to them.

    Rows are committed; where a checkout stood on one machine means nothing on another.
    """
    for root in roots:
        text = text.replace(json.dumps(str(root), ensure_ascii=False)[1:-1] + "/", "")
    return text


def _decoded(folder: Path, sha256: str) -> dict:
    path = folder / "decode.json"
    decoded = read_json(path, fix=DECODE_AGAIN)
    for key in ("rtf", "config", "environment"):
        if key not in decoded:
            raise InputError(f"missing key '{key}'", where=path, fix=DECODE_AGAIN)
    _check(decoded, ["model", "sha256"], (str,), where=path, above="")
    found = decoded["model"]["sha256"]
    if found != sha256:
        raise InputError(
            f"decoded with a model of sha256 {found[:12]}…, expected {sha256[:12]}…",
            where=path,
            fix=DECODE_AGAIN,
        )
    return decoded


def _lm_sha256(decoded: Mapping) -> str | None:
    """Return which language model a set or a row was decoded with."""
    lm = decoded.get("lm")
    return lm.get("sha256") if isinstance(lm, Mapping) else None


def _scored(folder: Path) -> dict:
    """Return the part of `score.json` that a row keeps: counts, percent and interval; of the
    speakers, errors and tokens by the row's main rate; how many hypotheses were missing."""
    path = folder / "score" / "score.json"
    scored = read_json(path, fix=SCORE_AGAIN)
    main, whole = ("per", "phones") if "per" in scored else ("wer", "words")
    kept = {}
    for key in ("utterances", whole, "missing", *dict.fromkeys((main, "wer", "cer", "ter"))):
        if key not in scored:
            raise InputError(f"missing key '{key}'", where=path, fix=SCORE_AGAIN)
        kept[key] = scored[key]
    kept["missing"] = len(kept["missing"])
    for kind in (main, "wer", "cer", "ter"):
        if isinstance(scored[kind], dict):
            kept[kind] = {key: scored[kind].get(key) for key in ("counts", "percent", "interval")}
    counts = {name: one["counts"] for name, one in scored[main].get("speakers", {}).items()}
    kept[main]["speakers"] = {name: [one["err"], one["tokens"]] for name, one in counts.items()}
    return kept


def _within_recipe(config_file: str | None) -> str | None:
    """Return the decoding config's path as `run.sh` takes it; None where it lies elsewhere."""
    return None if config_file is None or Path(config_file).is_absolute() else config_file


def _model_name(model: Path, results_dir: Path) -> str:
    """Return the model's path as `./run.sh --model` takes it from the recipe's folder.

    The committed copy under `models/` where it has these very bytes, else the path inside the
    recipe, else the bare file name.
    """
    for path in sorted((results_dir / "models").glob("*.esp")) if model.is_file() else ():
        if filecmp.cmp(path, model, shallow=False):
            return path.relative_to(results_dir).as_posix()
    if model.resolve().is_relative_to(results_dir.resolve()):
        return model.resolve().relative_to(results_dir.resolve()).as_posix()
    return model.name
