"""Every way to decode, chosen by name: encoded utterances → n-best of each."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from espnet_lite.decode.config import CtcBeamConfig, DecodeConfig
from espnet_lite.decode.greedy import ctc_greedy_hypotheses
from espnet_lite.decode.hypothesis import Hypothesis
from espnet_lite.decode.joint import JointSearch
from espnet_lite.decode.language_model import LanguageModel
from espnet_lite.decode.lexicon_beam import LexiconBeam
from espnet_lite.decode.ngram_scorer import TokenNgram
from espnet_lite.decode.prefix_beam import ctc_prefix_beam
from espnet_lite.encoders.output import EncoderOutput
from espnet_lite.errors import InputError
from espnet_lite.nn.decoder import TransformerDecoder


@runtime_checkable
class Recognizer(Protocol):
    """What decoding asks of a model before the search."""

    def encode(self, waveform: Tensor, waveform_lengths: Tensor) -> EncoderOutput: ...

    def ctc_log_probs(self, encoded: Tensor) -> Tensor: ...


@runtime_checkable
class Search(Protocol):
    """Returns the hypotheses of each utterance, best first."""

    def __call__(
        self,
        encoded: Float[Tensor, "batch time dim"],
        log_probs: Float[Tensor, "batch time vocab"],
        lengths: Int[Tensor, "batch"],
    ) -> list[list[Hypothesis]]: ...


class CtcGreedy:
    """The best token of every frame."""

    def __init__(
        self,
        config: DecodeConfig,
        decoder: TransformerDecoder | None = None,
        lm: LanguageModel | None = None,
    ):
        """Nothing of these is needed."""

    def __call__(
        self,
        encoded: Float[Tensor, "batch time dim"],
        log_probs: Float[Tensor, "batch time vocab"],
        lengths: Int[Tensor, "batch"],
    ) -> list[list[Hypothesis]]:
        """Return one hypothesis of each utterance."""
        return [[best] for best in ctc_greedy_hypotheses(log_probs, lengths)]


class CtcBeam:
    """The most probable readings by CTC and an n-gram."""

    def __init__(
        self,
        config: CtcBeamConfig,
        decoder: TransformerDecoder | None = None,
        lm: LanguageModel | None = None,
    ):
        """Take `lm`, an n-gram, where the config gives it a weight.

        Raises:
            InputError: a language model that is no n-gram.
        """
        self.config = config
        self.ngram = None
        if config.needs_lm:
            if not isinstance(lm, TokenNgram):
                raise InputError(
                    "method ctc_beam takes an n-gram, and this language model is none",
                    fix="decode with method joint_beam; ctc_weight 1.0 needs no attention decoder",
                )
            self.ngram = lm

    def __call__(
        self,
        encoded: Float[Tensor, "batch time dim"],
        log_probs: Float[Tensor, "batch time vocab"],
        lengths: Int[Tensor, "batch"],
    ) -> list[list[Hypothesis]]:
        """Return up to `nbest` hypotheses of each utterance."""
        return ctc_prefix_beam(
            log_probs,
            lengths,
            beam=self.config.beam_size,
            token_beam=self.config.token_beam,
            token_margin=self.config.token_margin,
            penalty=self.config.penalty,
            nbest=self.config.nbest,
            ngram=self.ngram,
            lm_weight=self.config.lm_weight,
        )


SEARCHES = {
    "ctc_greedy": CtcGreedy,
    "ctc_beam": CtcBeam,
    "joint_beam": JointSearch,
    "lexicon_beam": LexiconBeam,
}


def build_search(
    config: DecodeConfig,
    decoder: TransformerDecoder | None = None,
    lm: LanguageModel | None = None,
) -> Search:
    """Return the search of a config; `decoder` and `lm` only where the config needs them."""
    return SEARCHES[config.method](config, decoder, lm)
