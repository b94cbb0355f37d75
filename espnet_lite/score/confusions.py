"""Which tokens a recognizer mistakes for which, leaves out and makes up."""

import itertools
from collections import Counter
from dataclasses import dataclass, field

from espnet_lite.score.alignment import DELETED, INSERTED
from espnet_lite.score.scoring import SetScore


@dataclass(frozen=True)
class Confusions:
    """Counts over the errors of a set.

    Attributes:
        pairs: `{(reference token, hypothesis token): count}` of the substitutions.
        deleted, inserted: `{token: count}`.
    """

    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    deleted: Counter[str] = field(default_factory=Counter)
    inserted: Counter[str] = field(default_factory=Counter)

    @property
    def substituted(self) -> Counter[str]:
        """Return the reference tokens that another one stands for."""
        return self._of_pairs(0)

    @property
    def falsely(self) -> Counter[str]:
        """Return the hypothesis tokens that stand for another one."""
        return self._of_pairs(1)

    def _of_pairs(self, side: int) -> Counter[str]:
        counts: Counter[str] = Counter()
        for pair, count in self.pairs.items():
            counts[pair[side]] += count
        return counts


def count_confusions(score: SetScore) -> Confusions:
    """Return the confusions of all alignments of a set."""
    found = Confusions()
    columns = itertools.chain.from_iterable(a.error_columns() for a in score.alignments.values())
    for (step, reference, hypothesis), count in Counter(columns).items():
        if step == DELETED:
            found.deleted[reference] = count
        elif step == INSERTED:
            found.inserted[hypothesis] = count
        else:
            found.pairs[reference, hypothesis] = count
    return found
