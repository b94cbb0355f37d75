"""Transcripts as NIST sclite reads them (`.trn`), and sclite itself as the oracle of the scorer.

Nothing on the main path needs sclite; tests and `tools/benchmarks/sclite_parity.py` do.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from espnet_lite.errors import InputError
from espnet_lite.files import read_lines, write_text

# What sclite reads as markup somewhere: { a / b } alternatives, a lone @ (empty word), ( ) around
# the utterance id and optional words, `;;` and `**` comments, `;` word attributes, `\` escape,
# & and " in its SGML output. % is in the list so that the escape is one-to-one: equal tokens stay
# equal, different ones different, and so do all counts.
_MARKUP = re.compile(r'[{}/@();*\\&"%]')
_ID_MARKUP = re.compile(r'[{}/@();*\\&"%_-]')  # sclite's speaker ends at the first - or _


def find_sclite() -> list[str] | None:
    """Return the command that runs sclite (`sclite`, or Debian's `sctk sclite`), or None."""
    if shutil.which("sclite"):
        return ["sclite"]
    if shutil.which("sctk"):
        return ["sctk", "sclite"]
    return None


def _escape(match: re.Match) -> str:
    return f"%{ord(match[0]):02X}"


@lru_cache(maxsize=1 << 17)
def escape_token(token: str) -> str:
    """Return a token that sclite reads literally: its markup written as %XX."""
    return _MARKUP.sub(_escape, token)


def escape_tokens(tokens: Sequence[str]) -> Sequence[str]:
    """Return the tokens of a line, each as escape_token returns it."""
    return [*map(escape_token, tokens)] if _MARKUP.search("".join(tokens)) else tokens


def escape_speaker(speaker: str) -> str:
    """Return a speaker's name that sclite takes whole out of `trn_id`."""
    return _ID_MARKUP.sub(_escape, speaker)


def trn_id(speaker: str, utterance: str) -> str:
    """Return `speaker-utterance`, as ESPnet names utterances in its trn files."""
    return f"{escape_speaker(speaker)}-{escape_token(utterance)}"


def trn_line(tokens: Sequence[str], *, speaker: str, utterance: str) -> str:
    """Return one line of a trn file: tokens and `(speaker-utterance)`."""
    return " ".join([*escape_tokens(tokens), f"({trn_id(speaker, utterance)})"])


def write_trn(
    path: Path | str, transcripts: Mapping[str, Sequence[str]], *, speakers: Mapping[str, str]
) -> None:
    """Write `{utterance: tokens}` as a trn file for `sclite -i rm`, in the mapping's order."""
    lines = [
        trn_line(tokens, speaker=speakers[utterance], utterance=utterance) + "\n"
        for utterance, tokens in transcripts.items()
    ]
    write_text(path, "".join(lines))


def sclite_report(
    reference: Path, hypothesis: Path, *, reports: Sequence[str] = ("all", "dtl")
) -> str:
    """Return what `sclite -s -i rm -o <reports> stdout` prints of two trn files.

    Raises:
        InputError: sclite is not installed, or it failed.
    """
    return _run(["-o", *reports, "stdout"], reference, hypothesis)


def run_sclite(reference: Path, hypothesis: Path, *, output_dir: Path) -> None:
    """Write sclite's `sclite.{sys,raw,pra,sgml}` of two trn files into `output_dir`.

    Raises:
        InputError: sclite is not installed, or it failed.
    """
    reports = ["-o", "sum", "rsum", "pra", "sgml", "-O", str(output_dir.resolve()), "-n", "sclite"]
    said = _run(reports, reference, hypothesis)
    if not (output_dir / "sclite.sgml").is_file():
        raise InputError(f"sclite failed: {said[-300:]}", where=reference)


def _run(reports: list[str], reference: Path, hypothesis: Path) -> str:
    command = find_sclite()
    if command is None:
        raise InputError("sclite is not installed", fix="apt-get install sctk")
    folder = reference.parent
    command += ["-s", "-i", "rm", "-r", reference.name, "trn"]
    command += ["-h", os.path.relpath(hypothesis, folder), "trn", *reports]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise InputError(f"sclite failed: {(done.stderr or done.stdout)[-300:]}", where=reference)
    return done.stdout


_PATH = re.compile(r'<PATH id="\((.*)\)" word_cnt=')
_STEP = re.compile(r'([CSDI]),("[^"]*")?,("[^"]*")?(?::|$)')


def read_sgml_steps(path: Path | str) -> dict[str, str]:
    """Return `{trn id: steps}` of sclite's SGML alignments, steps as letters of `CSDI`.

    Raises:
        InputError: a line that is not sclite's, with file and line.
    """
    steps: dict[str, str] = {}
    lines = read_lines(path)
    for number, line in enumerate(lines):
        if (found := _PATH.match(line)) is None:
            continue
        alignment, position, letters = lines[number + 1], 0, []
        while position < len(alignment):
            step = _STEP.match(alignment, position)
            if step is None:
                text = alignment[position : position + 40]
                raise InputError(
                    f"not a step of an alignment: {text}", where=f"{path}:{number + 2}"
                )
            letters.append(step[1])
            position = step.end()
        steps[found[1]] = "".join(letters)
    return steps
