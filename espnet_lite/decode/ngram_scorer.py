"""An n-gram of a recognizer's tokens in a search: scores of all next tokens, state by number."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from espnet_lite.decode.scorers import take
from espnet_lite.errors import InputError
from espnet_lite.kernels.ctc_prefix_beam import NgramTree
from espnet_lite.lm.ngram import BEGIN, END, SPECIAL_WORDS, UNKNOWN, NgramModel
from espnet_lite.text.special_tokens import BLANK, SOS_EOS
from espnet_lite.text.special_tokens import UNKNOWN as UNKNOWN_TOKEN

CACHE_BYTES = 256 << 20  # of rows that are kept; a row is the scores and next states of one state
_FIRST_ROWS = 1024


class TokenNgram:
    """An n-gram whose words are a recognizer's tokens, <sos/eos> its end of a sentence.

    The row of a state is computed when it is first asked for, and kept.
    """

    def __init__(self, model: NgramModel, tokens: Sequence[str], *, where: object = None):
        """Match the model's words with a table of tokens.

        Raises:
            InputError: the model has words that are no tokens of the table.
        """
        self.model = model
        self.words = np.array([_word_number(model, token) for token in tokens], dtype=np.int64)
        unknown = set(model.words) - set(tokens) - set(SPECIAL_WORDS)
        if unknown:
            some = next(word for word in model.words if word in unknown)
            raise InputError(
                f"{len(unknown)} of the language model's {len(model.words) - len(SPECIAL_WORDS)} words,"
                f" '{some}' first, are not among the recognizer's {len(tokens)} tokens",
                where=where,
                fix="make one of this recognizer's tokens: train_lm --tokenizer MODEL",
            )
        self.start = model.start
        nodes = (model.first_child, model.word, model.log_prob, model.backoff, model.suffix)
        arrays = [torch.from_numpy(array) for array in (self.words, *nodes, model.state)]
        self.tree = NgramTree(*arrays, start=model.start)
        self._most_rows = max(_FIRST_ROWS, CACHE_BYTES // (8 * len(tokens)))
        self._forget()

    def rows(self, states: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape vocab"]:
        """Return the log-probability of every token after each state; <sos/eos>: of the end."""
        places = self._places(states)  # first: it may make the table anew
        return torch.from_numpy(self._scores[places])

    def after(
        self, states: Int[Tensor, "*shape"], tokens: Int[Tensor, "*shape"]
    ) -> Int[Tensor, "*shape"]:
        """Return the states after one token more."""
        places = self._places(states)
        return torch.from_numpy(self._next[places, tokens.numpy()]).long()

    def _places(self, states: Int[Tensor, "*shape"]) -> np.ndarray:
        """Return the row of each state, computed now where it is new."""
        numbers = states.numpy()
        places = self._place[numbers]
        if (places < 0).any():
            new = np.unique(numbers[places < 0])
            if self._used + len(new) > self._most_rows:
                self._forget()
                new = np.unique(numbers)
            self._add(new)
            places = self._place[numbers]
        return places

    def _add(self, states: np.ndarray) -> None:
        last = self._used + len(states)
        while last > len(self._scores):
            self._scores = np.concatenate([self._scores, np.empty_like(self._scores)])
            self._next = np.concatenate([self._next, np.empty_like(self._next)])
        scores, following = self.model.score(states[:, None], self.words)
        self._scores[self._used : last], self._next[self._used : last] = scores, following
        self._place[states] = np.arange(self._used, last)
        self._used = last

    def _forget(self) -> None:
        self._used = 0
        self._place = np.full(len(self.model), -1, dtype=np.int32)
        self._scores = np.empty((_FIRST_ROWS, len(self.words)), dtype=np.float32)
        self._next = np.empty((_FIRST_ROWS, len(self.words)), dtype=np.int32)


def _word_number(model: NgramModel, token: str) -> int:
    """Return the number of the word that stands for a token; one that the model lacks is unknown."""
    special = {BLANK: UNKNOWN, UNKNOWN_TOKEN: UNKNOWN, SOS_EOS: END, BEGIN: UNKNOWN, END: UNKNOWN}
    return model.ids.get(special.get(token, token), model.ids[UNKNOWN])


class NgramScorer:
    """A Scorer: the n-gram's log-probability of each next token."""

    def __init__(self, ngram: TokenNgram, *, utterances: int, beam: int):
        self.ngram = ngram
        self.states = torch.full((utterances, beam), ngram.start)

    def score(self) -> Float[Tensor, "utterances beam vocab"]:
        """Look up the rows."""
        return self.ngram.rows(self.states)

    def advance(
        self, parents: Int[Tensor, "utterances beam"], tokens: Int[Tensor, "utterances beam"]
    ) -> None:
        """Go on to the states of the kept hypotheses."""
        self.states = self.ngram.after(take(self.states, parents), tokens)

    def keep(self, utterances: Int[Tensor, "kept"]) -> None:
        """Drop all utterances but these."""
        self.states = self.states[utterances]
