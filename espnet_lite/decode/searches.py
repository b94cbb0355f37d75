"""Every way to decode, chosen by name: a batch of waveforms → n-best of each utterance."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from espnet_lite.decode.config import CtcBeamConfig, DecodeConfig, JointBeamConfig
from espnet_lite.decode.greedy import ctc_greedy_hypotheses
from espnet_lite.decode.hypothesis import Hypothesis
from espnet_lite.decode.joint import JointSearch
from espnet_lite.decode.language_model import LanguageModel
from espnet_lite.decode.ngram_scorer import TokenNgram
from espnet_lite.decode.prefix_beam import ctc_prefix_beam
from espnet_lite.encoders.output import EncoderOutput
from espnet_lite.errors import InputError
from espnet_lite.nn.decoder import TransformerDecoder


@runtime_checkable
class Recognizer(Protocol):
    """What a search asks of a model."""

    def encode(self, waveform: Tensor, waveform_lengths: Tensor) -> EncoderOutput: ...

    def ctc_log_probs(self, encoded: Tensor) -> Tensor: ...


class CtcGreedy:
    """The best token of every frame."""

    def __init__(
        self,
        config: DecodeConfig,
        model: Recognizer,
        decoder: TransformerDecoder | None = None,
        lm: LanguageModel | None = None,
    ):
        self.model = model

    def __call__(
        self, waveform: Float[Tensor, "batch samples"], lengths: Int[Tensor, "batch"]
    ) -> list[list[Hypothesis]]:
        """Return one hypothesis of each utterance."""
        output = self.model.encode(waveform, lengths)
        log_probs = self.model.ctc_log_probs(output.encoded)
        return [[best] for best in ctc_greedy_hypotheses(log_probs, output.lengths)]


class CtcBeam:
    """The most probable readings by CTC."""

    def __init__(
        self,
        config: CtcBeamConfig,
        model: Recognizer,
        decoder: TransformerDecoder | None = None,
        lm: LanguageModel | None = None,
    ):
        """Take `lm`, an n-gram, where the config gives it a weight.

        Raises:
            InputError: a language model that is no n-gram.
        """
        self.config = config
        self.model = model
        self.ngram = None
        if config.needs_lm:
            if not isinstance(lm, TokenNgram):
                raise InputError(
                    "method ctc_beam takes an n-gram, and this language model is none",
                    fix="decode with method joint_beam; ctc_weight 1.0 needs no attention decoder",
                )
            self.ngram = lm

    def __call__(
        self, waveform: Float[Tensor, "batch samples"], lengths: Int[Tensor, "batch"]
    ) -> list[list[Hypothesis]]:
        """Return up to `nbest` hypotheses of each utterance."""
        output = self.model.encode(waveform, lengths)
        return ctc_prefix_beam(
            self.model.ctc_log_probs(output.encoded),
            output.lengths,
            beam=self.config.beam_size,
            token_beam=self.config.token_beam,
            token_margin=self.config.token_margin,
            penalty=self.config.penalty,
            nbest=self.config.nbest,
            ngram=self.ngram,
            lm_weight=self.config.lm_weight,
        )


class JointBeam:
    """CTC prefix scores, attention decoder and language model."""

    def __init__(
        self,
        config: JointBeamConfig,
        model: Recognizer,
        decoder: TransformerDecoder | None = None,
        lm: LanguageModel | None = None,
    ):
        self.model = model
        self.search = JointSearch(config, decoder, lm)

    def __call__(
        self, waveform: Float[Tensor, "batch samples"], lengths: Int[Tensor, "batch"]
    ) -> list[list[Hypothesis]]:
        """Return up to `nbest` hypotheses of each utterance."""
        output = self.model.encode(waveform, lengths)
        log_probs = self.model.ctc_log_probs(output.encoded)
        return self.search(output.encoded, log_probs, output.lengths)


Search = CtcGreedy | CtcBeam | JointBeam
SEARCHES = {"ctc_greedy": CtcGreedy, "ctc_beam": CtcBeam, "joint_beam": JointBeam}


def build_search(
    config: DecodeConfig,
    model: Recognizer,
    decoder: TransformerDecoder | None = None,
    lm: LanguageModel | None = None,
) -> Search:
    """Return the search of a config; `decoder` and `lm` only where the config needs them."""
    return SEARCHES[config.method](config, model, decoder, lm)
