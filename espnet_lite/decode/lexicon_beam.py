"""CTC beam search over the words of a language model, by flashlight-text (the extra `lexicon`).

Its decoder goes through a tree of the words' spellings and asks a word n-gram (KenLM) at each word's end.
Words that the n-gram has not seen are never read. The best path of a word sequence counts, or with
`log_add` the sum of its paths.
"""

import functools
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from espnet_lite.decode.config import LexiconBeamConfig
from espnet_lite.decode.greedy import BLANK
from espnet_lite.decode.hypothesis import Hypothesis
from espnet_lite.errors import InputError
from espnet_lite.lm.arpa import write_arpa
from espnet_lite.lm.ngram import SPECIAL_WORDS, UNKNOWN, NgramModel
from espnet_lite.text.special_tokens import SPACE
from espnet_lite.text.tokenizer import Tokenizer

WORD_BONUS = "word_bonus"  # the part that counts words; its weight is word_score
_NEVER = -1.0e4  # log-probability of what an added frame does not hold
_LOG_10 = math.log(10.0)  # KenLM counts in log10


class WordNgram:
    """A word n-gram and the spelling of each of its words in a recognizer's tokens."""

    def __init__(self, model: NgramModel, tokenizer: Tokenizer, *, where: object = None):
        """Spell the words.

        Args:
            model: an n-gram of words.
            tokenizer: of characters, where <space> ends a word, or of bpe, whose pieces tell of it.

        Raises:
            InputError: another kind of tokens, or words that cannot be spelled with them.
        """
        if tokenizer.kind not in ("char", "bpe"):
            raise InputError(
                f"method lexicon_beam spells words in char or bpe tokens, not in {tokenizer.kind}"
            )
        ends = [SPACE] if tokenizer.kind == "char" else []
        self.model = model
        self.space = tokenizer.tokens.index(SPACE) if SPACE in tokenizer.tokens else None
        if ends and self.space is None:
            raise InputError("a table of characters without <space>, expected one", where=where)
        self.words, self.spellings = [], []
        for word in model.words[len(SPECIAL_WORDS) :]:
            spelling = tokenizer.encode(word)
            if spelling and tokenizer.unknown_id not in spelling:
                self.words.append(word)
                self.spellings.append([*spelling, *([self.space] if ends else [])])
        if not self.words:
            raise InputError(
                "no word of the language model can be spelled in the recognizer's tokens",
                where=where,
                fix="give an n-gram of words: train_lm with unit: word",
            )

    @functools.cached_property
    def prepared(self) -> "_Prepared":
        """Return KenLM's model and the tree of spellings, made when they are first asked for.

        Raises:
            InputError: flashlight-text is not installed.
        """
        try:
            from flashlight.lib.text import decoder as flashlight
            from flashlight.lib.text.decoder.kenlm import KenLM
            from flashlight.lib.text.dictionary import Dictionary
        except ImportError as error:
            raise InputError(
                f"method lexicon_beam needs flashlight-text: {error}",
                fix="at the root of the repository: .venv/bin/python -m pip install -e '.[lexicon]'",
            ) from None
        dictionary = Dictionary()
        for word in (*self.words, UNKNOWN):
            dictionary.add_entry(word)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "lm.arpa"
            write_arpa(path, self.model)
            kenlm = KenLM(str(path), dictionary)
        tree = flashlight.Trie(max(map(max, self.spellings)) + 1, self.separator)
        start = kenlm.start(False)
        for number, spelling in enumerate(self.spellings):
            _, score = kenlm.score(start, number)
            tree.insert(spelling, number, score)
        tree.smear(flashlight.SmearingMode.MAX)
        return _Prepared(flashlight, kenlm, tree)

    @property
    def separator(self) -> int:
        """Return the token between words, −1 where there is none."""
        return -1 if self.space is None else self.space


@dataclass(frozen=True)
class _Prepared:
    flashlight: object  # the module of decoders
    kenlm: object
    tree: object


class LexiconBeam:
    """The most probable words by CTC and a word n-gram; `nbest` is flashlight's."""

    def __init__(self, config: LexiconBeamConfig, decoder: object, lm: object):
        """Take an n-gram of words.

        Raises:
            InputError: there is none, or flashlight-text is not installed.
        """
        if not isinstance(lm, WordNgram):
            raise InputError(
                "method lexicon_beam needs an n-gram of words",
                fix="make one: conf/lm_ngram_word.yaml",
            )
        self.config, self.lm = config, lm
        flashlight = lm.prepared.flashlight
        options = flashlight.LexiconDecoderOptions(
            beam_size=config.beam_size,
            beam_size_token=config.token_beam,
            beam_threshold=config.beam_threshold,
            lm_weight=config.lm_weight * _LOG_10,
            word_score=config.penalty,
            unk_score=-math.inf,
            sil_score=0.0,
            log_add=config.log_add,
            criterion_type=flashlight.CriterionType.CTC,
        )
        self._decoder = flashlight.LexiconDecoder(
            options,
            lm.prepared.tree,
            lm.prepared.kenlm,
            lm.separator,
            BLANK,
            len(lm.words),
            [],
            False,
        )

    def __call__(
        self,
        encoded: Float[Tensor, "batch time dim"],
        log_probs: Float[Tensor, "batch time vocab"],
        lengths: Int[Tensor, "batch"],
    ) -> list[list[Hypothesis]]:
        """Return up to `nbest` hypotheses of each utterance; none fits: the empty one."""
        return [
            self._search(frames[:length])
            for frames, length in zip(log_probs, lengths.tolist(), strict=True)
        ]

    def _search(self, frames: Float[Tensor, "time vocab"]) -> list[Hypothesis]:
        frames = self._with_last_space(frames.float()).contiguous()
        found = self._decoder.decode(frames.data_ptr(), *frames.shape)[: self.config.nbest]
        hypotheses = []
        for one in found:
            words = [number for number in one.words if 0 <= number < len(self.lm.words)]
            parts = {"ctc": one.emittingModelScore, "lm": one.lmScore * _LOG_10}
            if self.config.penalty:
                parts[WORD_BONUS] = float(len(words))
            hypotheses.append(Hypothesis(self._tokens(words), one.score, parts))
        return hypotheses or [Hypothesis([], 0.0)]

    def _with_last_space(self, frames: Tensor) -> Tensor:
        """Return the frames with one behind them that holds a space for sure: the tree's words end in
        one, an utterance need not."""
        if self.lm.space is None:
            return frames
        last = frames.new_full((1, frames.size(1)), _NEVER)
        last[0, self.lm.space] = 0.0
        return torch.cat([frames, last])

    def _tokens(self, words: Sequence[int]) -> list[int]:
        tokens = [token for word in words for token in self.lm.spellings[word]]
        return tokens[:-1] if self.lm.space is not None else tokens
