"""The folder that stage score leaves beside a decoded set (docs/scoring.md has its formats).

score.json              counts, percent, intervals, speakers, where the errors are
utterances.jsonl        every utterance with its alignment
errors.txt              for people: worst speakers, confusions, worst utterances
wer/ cer/ ter/ (or per/)   ref.trn, hyp.trn and result.txt, sclite's report
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from espnet_lite.errors import InputError
from espnet_lite.files import atomic_path, read_lines, write_text
from espnet_lite.score.alignment import Alignment
from espnet_lite.score.error_analysis import analysis_to_plain
from espnet_lite.score.sclite import write_trn
from espnet_lite.score.sclite_report import result_text
from espnet_lite.score.scoring import SetScore, counts_to_plain
from espnet_lite.score.tables import errors_text

SCORES, UTTERANCES, ERRORS = "score.json", "utterances.jsonl", "errors.txt"
KINDS = ("wer", "cer", "ter", "per")
_FILES_OF_A_KIND = ("ref.trn", "hyp.trn", "result.txt")
_SYSTEM = "hyp.trn"  # the name that sclite gives the system, as in ESPnet


def main_kind(scores: Mapping[str, object]) -> str:
    """Return "per" where phones were scored, else "wer": what rows are chosen by."""
    return "per" if "per" in scores else "wer"


def scores_to_plain(scores: Mapping[str, SetScore], *, missing: Sequence[str] = ()) -> dict:
    """Return `score.json` of `{"wer": ..., "cer": ..., ["ter": ...]}` or of `{"per": ...}`.

    WER, CER and TER that are not given are null: a model of phones has the phone error rate alone,
    and then `phones` stands in the place of `words`.

    Args:
        missing: utterances without a hypothesis, counted as deleted.
    """
    main = main_kind(scores)
    total = scores[main].total
    plain = {"utterances": total.utterances, "wer": None, "cer": None, "ter": None}
    plain["words" if main == "wer" else "phones"] = total.tokens
    plain["missing"] = list(missing)
    for kind, score in scores.items():
        speakers = score.by_speaker.items()
        plain[kind] = counts_to_plain(score.total)
        plain[kind]["interval"] = score.interval
        plain[kind]["speakers"] = {name: counts_to_plain(counts) for name, counts in speakers}
    plain["analysis"] = analysis_to_plain(scores[main])
    return plain


def write_score_folder(
    folder: Path, scores: Mapping[str, SetScore], *, title: str, missing: Sequence[str] = ()
) -> None:
    """Write the folder; `score.json` is last and first removed: where it is, the rest is whole.

    Args:
        title: what was scored, for the head of `errors.txt`.
        missing: as `scores_to_plain` takes it.
    """
    (folder / SCORES).unlink(missing_ok=True)
    for kind in KINDS:
        if kind not in scores:  # of another tokenizer, scored here before
            _remove(folder / kind)
    for kind, score in scores.items():
        references = {name: one.reference for name, one in score.alignments.items()}
        hypotheses = {name: one.hypothesis for name, one in score.alignments.items()}
        write_trn(folder / kind / "ref.trn", references, speakers=score.speakers)
        write_trn(folder / kind / "hyp.trn", hypotheses, speakers=score.speakers)
        _write_pieces(folder / kind / "result.txt", result_text(score, title=_SYSTEM))
    main = main_kind(scores)
    _write_pieces(folder / ERRORS, errors_text(scores[main], title=f"{main.upper()} of {title}"))
    _write_pieces(folder / UTTERANCES, _utterance_lines(scores, set(missing)))
    plain = scores_to_plain(scores, missing=missing)
    write_text(
        folder / SCORES, json.dumps(plain, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    )


def _remove(folder: Path) -> None:
    for name in _FILES_OF_A_KIND:
        (folder / name).unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _write_pieces(path: Path, pieces) -> None:
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", encoding="utf-8", newline="\n") as file,
    ):
        file.writelines(pieces)


def _utterance_lines(scores: Mapping[str, SetScore], missing: set[str]):
    main = scores[main_kind(scores)]
    for utterance, alignment in main.alignments.items():
        line = {
            "id": utterance,
            "speaker": main.speakers[utterance],
            "reference": " ".join(alignment.reference),
            "hypothesis": " ".join(alignment.hypothesis),
            "steps": alignment.steps,
            "errors": {
                kind: [score.counts[utterance].errors, score.counts[utterance].tokens]
                for kind, score in scores.items()
            },
        }
        if utterance in missing:
            line["missing"] = True
        yield json.dumps(line, ensure_ascii=False) + "\n"


@dataclass(frozen=True)
class ScoredUtterance:
    """A line of `utterances.jsonl`.

    Attributes:
        alignment: of words, or of phones.
        errors: `{"wer": (errors, reference tokens), ...}`.
        missing: there was no hypothesis.
    """

    speaker: str
    alignment: Alignment
    errors: dict[str, tuple[int, int]]
    missing: bool


def read_utterances(path: Path) -> dict[str, ScoredUtterance]:
    """Return `{utterance: what it scored}` of an `utterances.jsonl`, in its order.

    Raises:
        InputError: no such file, or a line that is not one of it, with file and line.
    """
    again = "score again: ./run.sh --stage score"
    found: dict[str, ScoredUtterance] = {}
    for number, line in enumerate(read_lines(path, fix=again), start=1):
        try:
            plain = json.loads(line)
            alignment = Alignment(
                tuple(plain["reference"].split()),
                tuple(plain["hypothesis"].split()),
                plain["steps"],
            )
            errors = {kind: (int(one), int(of)) for kind, (one, of) in plain["errors"].items()}
            found[plain["id"]] = ScoredUtterance(
                plain["speaker"], alignment, errors, plain.get("missing", False)
            )
        except (json.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"not an utterance of a score ({error})", where=f"{path}:{number}", fix=again
            ) from None
    return found
