"""Results of decoding jobs on disk: kept batch by batch, reused after a kill, merged at the end.

`<output_dir>.shards/` holds, while a set is being decoded,

    key.json                what the results belong to: model, config and utterances
    results.KEY.J.PID.jsonl one line per finished batch of job J; KEY: digest of key.json
    job.J.log               what job J printed

A job appends to a file of its own only, named by what it decodes. So one that outlives its killed
parent disturbs nobody, not even a run that meanwhile decodes with another model into this folder.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from espnet_lite.files import atomic_folder, write_faults_named, write_text


@dataclass(frozen=True, slots=True)
class Reading:
    """One hypothesis in words. `tokens` are the tokens' texts; natural-log score and parts."""

    text: str
    tokens: list[str]
    score: float
    parts: dict[str, float]  # unweighted score of each scorer


@dataclass(frozen=True, slots=True)
class Decoded:
    """The hypotheses of one utterance, best first."""

    id: str
    hyps: list[Reading]


@dataclass(frozen=True, slots=True)
class BatchResult:
    """One decoded batch; `wall_seconds` for waiting on audio, front end, encoder and search."""

    batch: int
    audio_seconds: float
    wall_seconds: float
    decoded: list[Decoded]


def shards_folder(output_dir: Path) -> Path:
    """Return the folder of unfinished results beside `output_dir`."""
    return output_dir.with_name(output_dir.name + ".shards")


def prepare(folder: Path, key: dict) -> str:
    """Make `folder` ready for results of `key` and return the key's digest, 12 hex digits.

    Results of another key are removed.
    """
    text = json.dumps(key, sort_keys=True, ensure_ascii=False) + "\n"
    key_path = folder / "key.json"
    if not key_path.is_file() or key_path.read_text(encoding="utf-8") != text:
        shutil.rmtree(folder, ignore_errors=True)
        write_text(key_path, text)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:12]


def results_path(folder: Path, digest: str, *, job: int) -> Path:
    """Return the file to which this process appends the results of `job`."""
    return folder / f"results.{digest}.{job}.{os.getpid()}.jsonl"


def remove(folder: Path) -> None:
    """Remove the folder of unfinished results once the output stands."""
    shutil.rmtree(folder, ignore_errors=True)


def append_result(path: Path, result: BatchResult) -> None:
    """Add one finished batch as one line, handed to the system before this returns.

    Raises:
        InputError: the disk is full; what was written of the line is passed over by `read_results`.
    """
    with write_faults_named(path), path.open("a", encoding="utf-8", newline="\n") as file:
        # The line end comes first: behind a line cut short (pids return, and with them file names)
        # the new one still stands alone.
        file.write("\n" + json.dumps(asdict(result), ensure_ascii=False))


def read_results(folder: Path, digest: str) -> dict[int, BatchResult]:
    """Return the finished batches of a key by number; a line cut short is decoded again."""
    results: dict[int, BatchResult] = {}
    for path in sorted(folder.glob(f"results.{digest}.*.jsonl")):
        for line in path.read_bytes().split(b"\n"):
            try:
                plain = json.loads(line)
            except ValueError:
                continue
            decoded = [
                Decoded(entry["id"], [Reading(**hyp) for hyp in entry["hyps"]])
                for entry in plain.pop("decoded")
            ]
            results.setdefault(plain["batch"], BatchResult(**plain, decoded=decoded))
    return results


def write_output(output_dir: Path, results: Sequence[BatchResult], summary: dict) -> None:
    """Write `text`, `nbest.jsonl` (both sorted by the bytes of the id) and `decode.json`.

    `text` has `<id> <words>` a line, of the best hypothesis (the id alone for an empty one),
    `nbest.jsonl` `{"id", "hyps": [{"text", "tokens", "score", "parts"}]}`. The folder appears whole; one that was there is
    replaced, scores in it too, as they were of the old text.
    """
    decoded = sorted(
        (entry for result in results for entry in result.decoded),
        key=lambda entry: entry.id.encode("utf-8"),
    )
    with atomic_folder(output_dir) as target:
        with (target / "text").open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{entry.id} {entry.hyps[0].text}".rstrip() + "\n" for entry in decoded)
        with (target / "nbest.jsonl").open("w", encoding="utf-8", newline="\n") as file:
            for entry in decoded:
                file.write(json.dumps(asdict(entry), ensure_ascii=False) + "\n")
        text = json.dumps(summary, indent=2, ensure_ascii=False) + "\n"
        (target / "decode.json").write_text(text, encoding="utf-8", newline="\n")
