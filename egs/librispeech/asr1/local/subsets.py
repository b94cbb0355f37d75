"""Sets that are parts of others: a table of lines `NAME WHOLE keep|drop LIST`.

LIST, a file beside the table, names utterances or speakers, one a line.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from espnet_lite.data.data_dir import Utterance
from espnet_lite.errors import InputError
from espnet_lite.files import read_lines


@dataclass(frozen=True)
class Subset:
    """The utterances of `whole` that stand in `listed`, or those that do not."""

    name: str
    whole: str
    keep: bool
    listed: Path

    def of(self, utterances: Sequence[Utterance]) -> list[Utterance]:
        """Return the subset of a whole set.

        Raises:
            InputError: the list names what the set does not have.
        """
        names = [line.strip() for line in read_lines(self.listed) if line.strip()]
        known = {utterance.id for utterance in utterances} | {u.speaker for u in utterances}
        for number, name in enumerate(names, start=1):
            if name not in known:
                raise InputError(
                    f"'{name}' is no utterance and no speaker of {self.whole}",
                    where=f"{self.listed}:{number}",
                )
        found = set(names)
        return [u for u in utterances if (u.id in found or u.speaker in found) == self.keep]


def read_subsets(path: Path | None) -> dict[str, Subset]:
    """Return the subsets of a table by name; none without a table.

    Raises:
        InputError: a line that is not `NAME WHOLE keep|drop LIST`, with its number.
    """
    subsets = {}
    for number, line in enumerate(read_lines(path) if path else [], start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 4 or words[2] not in ("keep", "drop"):
            raise InputError(
                f"'{line.strip()}' is not NAME WHOLE keep|drop LIST", where=f"{path}:{number}"
            )
        name, whole, rule, listed = words
        subsets[name] = Subset(name, whole, rule == "keep", path.parent / listed)
    return subsets
