"""Joint CTC/attention decoding (Watanabe et al. 2017) with a language model beside them (shallow fusion,
Gulcehre et al. 2015, eq. 6): from encoded utterances to their n-best."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from espnet_lite.decode.beam import BeamLimits, beam_search
from espnet_lite.decode.config import JointBeamConfig
from espnet_lite.decode.ctc_prefix import ctc_prefix_scorer
from espnet_lite.decode.fused_decoder import step_decoder
from espnet_lite.decode.hypothesis import LENGTH_BONUS, Hypothesis
from espnet_lite.decode.language_model import LanguageModel, lm_scorer
from espnet_lite.nn.decoder import TransformerDecoder

RETRY_STEP = 0.1  # minlenratio falls by it until an utterance has a hypothesis (ESPnet)


class JointSearch:
    """The beam search of a config with a decoder's weights, laid out once for all batches."""

    def __init__(
        self,
        config: JointBeamConfig,
        decoder: TransformerDecoder | None = None,
        lm: LanguageModel | None = None,
    ):
        """`decoder` and `lm` may be None where the config gives them no weight."""
        self.config = config
        self.lm = lm if config.needs_lm else None
        self.decoder = step_decoder(decoder) if config.needs_decoder else None

    @torch.inference_mode()
    def __call__(
        self,
        encoded: Float[Tensor, "batch time dim"],
        log_probs: Float[Tensor, "batch time vocab"],
        lengths: Int[Tensor, "batch"],
    ) -> list[list[Hypothesis]]:
        """Return the n-best of encoded utterances; no frames give the empty one with the score 0.

        Where all hypotheses ended before the smallest length, that is lowered (as in ESPnet). An
        utterance whose scores are not finite has none.
        """
        found = [[Hypothesis([], 0.0)]] * len(lengths)
        todo, min_ratio = lengths.nonzero()[:, 0], self.config.minlenratio
        while len(todo):
            frames = int(lengths[todo].max())
            results = self._search(
                encoded[todo, :frames], log_probs[todo, :frames], lengths[todo], min_ratio
            )
            missing = []
            for place, result in zip(todo.tolist(), results, strict=True):
                found[place] = result
                if not result:
                    missing.append(place)
            if min_ratio == 0:
                break
            todo, min_ratio = torch.tensor(missing), max(0.0, min_ratio - RETRY_STEP)
        return found

    def _search(self, encoded, log_probs, lengths, min_ratio: float) -> list[list[Hypothesis]]:
        config, vocab = self.config, log_probs.size(2)
        beam, eos = config.beam_size, vocab - 1
        weights = {"decoder": 1 - config.ctc_weight, "ctc": config.ctc_weight}
        scorers, candidate_scorers = {}, {}
        if self.decoder is not None:
            scorers["decoder"] = self.decoder.start(encoded, lengths, beam=beam, sos=eos)
        if self.lm is not None:
            scorers["lm"] = lm_scorer(self.lm, utterances=len(lengths), beam=beam)
            weights["lm"] = config.lm_weight
        if config.ctc_weight > 0:
            candidate_scorers["ctc"] = ctc_prefix_scorer(log_probs, lengths, beam=beam, eos=eos)
        if config.penalty:
            weights[LENGTH_BONUS] = config.penalty
        return beam_search(
            scorers,
            candidate_scorers,
            weights=weights,
            frames=lengths.tolist(),
            vocab=vocab,
            eos=eos,
            limits=BeamLimits(beam, config.nbest, config.maxlenratio, min_ratio),
            # A language model alone knows nothing of the utterance (ESPnet does the same).
            choose_candidates=self.decoder is not None,
        )
