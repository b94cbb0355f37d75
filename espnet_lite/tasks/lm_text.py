"""What a language model is made of and measured on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from espnet_lite.errors import InputError
from espnet_lite.lm.text import Line, Separated, read_text, without_held_out

# A sentence that shares so many words in a row with a dev or test set is left out of the text. By chance
# two books share six now and then, eight hardly ever.
RUN_WORDS = 8


@dataclass(frozen=True)
class LmText:
    """Sentences to learn from, and those of the dev sets by their names, to measure on."""

    separated: Separated
    dev_sets: dict[str, list[Line]]
    files: list[str]  # names of the files of text

    @property
    def lines(self) -> list[Line]:
        """Return the sentences to learn from."""
        return self.separated.lines

    def record(self) -> dict[str, object]:
        """Return what a record says of it."""
        return {
            "files": self.files,
            "sentences": len(self.lines),
            "words": sum(len(line.text.split()) for line in self.lines),
            "left_out_sentences": self.separated.left_out,  # they share RUN_WORDS with dev or test
            "left_out_words": self.separated.left_out_words,
        }

    def __str__(self) -> str:
        words = sum(len(line.text.split()) for line in self.lines)
        found = self.separated
        left_out = (
            f"; {found.left_out} more ({found.left_out_words} words) share {RUN_WORDS} words in a row"
            " with a dev or test set and are left out"
        )
        return f"text of {len(self.lines):,} sentences, {words:,} words{left_out * bool(found.left_out)}"


def read_lm_text(
    *,
    text: Sequence[Path],
    plain_text: Sequence[Path],
    dev_text: Sequence[Path],
    held_out_text: Sequence[Path],
) -> LmText:
    """Return the text of files.

    Args:
        text: Kaldi `text` files, gzip or not.
        plain_text: files of sentences without ids.
        dev_text, held_out_text: Kaldi `text` files that the text is kept apart from.

    Raises:
        InputError: no text, and what read_text and without_held_out find.
    """
    if not text and not plain_text:
        raise InputError("no text to learn from", fix="give --text or --plain_text")
    lines = [*read_text(text), *read_text(plain_text, with_ids=False)]
    dev_sets = {_name(path): list(read_text([path])) for path in dev_text}
    held_out = [line for path in held_out_text for line in read_text([path])]
    for dev_lines in dev_sets.values():
        held_out += dev_lines
    where = ", ".join(str(path) for path in (*text, *plain_text))
    separated = without_held_out(lines, held_out, run_words=RUN_WORDS, where=where)
    files = [_name(path) for path in (*text, *plain_text)]
    return LmText(separated, dev_sets, files)


def _name(path: Path) -> str:
    """Return the name of a set: of dump/dev/text the folder's, else the file's."""
    return path.parent.name if path.name == "text" and path.parent.name else path.name
