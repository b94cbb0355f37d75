"""NIST sclite as the oracle of the scorer: trn files for it, and its alignments read back.

Nothing on the main path needs sclite; tests and `tools/benchmarks/sclite_parity.py` do, and
`score_asr --trn` writes the files for who wants to see sclite's own report.
"""

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
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


def trn_line(tokens: Sequence[str], *, speaker: str, utterance: str) -> str:
    """Return one line of a trn file: tokens and `(speaker-utterance)`, markup written as %XX."""
    words = [_MARKUP.sub(_escape, token) for token in tokens]
    return " ".join([*words, f"({trn_id(speaker, utterance)})"])


def trn_id(speaker: str, utterance: str) -> str:
    return f"{_ID_MARKUP.sub(_escape, speaker)}-{_ID_MARKUP.sub(_escape, utterance)}"


def write_trn(
    path: Path | str, transcripts: Mapping[str, Sequence[str]], *, speakers: Mapping[str, str]
) -> None:
    """Write `{utterance: tokens}` as a trn file for `sclite -i rm`, in the mapping's order."""
    lines = [
        trn_line(tokens, speaker=speakers[utterance], utterance=utterance) + "\n"
        for utterance, tokens in transcripts.items()
    ]
    write_text(path, "".join(lines))


def run_sclite(reference: Path, hypothesis: Path, *, output_dir: Path) -> None:
    """Write sclite's `sclite.{sys,raw,pra,sgml}` of two trn files into `output_dir`.

    Raises:
        InputError: sclite is not installed, or it failed.
    """
    command = find_sclite()
    if command is None:
        raise InputError("sclite is not installed", fix="apt-get install sctk")
    command += ["-s", "-i", "rm", "-r", str(reference), "trn", "-h", str(hypothesis), "trn"]
    command += ["-o", "sum", "rsum", "pra", "sgml", "-O", str(output_dir), "-n", "sclite"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode or not (output_dir / "sclite.sgml").is_file():
        raise InputError(f"sclite failed: {(done.stderr or done.stdout)[-300:]}", where=reference)


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
