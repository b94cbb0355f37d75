"""What a decoding YAML may say (conf/decode_*.yaml). No torch here: the parent process reads it.

`method` names the search and so the schema of the whole file: a key of another search is refused.
"""

from dataclasses import dataclass
from pathlib import Path

from espnet_lite.config import check_numbers, from_plain, read_overridden
from espnet_lite.errors import unknown_name

MAX_BEAM = 1000  # a larger one is a slip: memory and time grow with it
MAX_LM_WEIGHT = 10  # ten times what anyone reports


@dataclass(frozen=True)
class DecodeConfig:
    """ctc_greedy: the best token of every frame. What every other search has too.

    The hypothesis of an utterance does not depend on `batch_seconds`.
    """

    method: str = "ctc_greedy"  # ctc_greedy | ctc_beam | joint_beam | lexicon_beam
    batch_seconds: float = 60.0  # audio in a batch, padding included; a longer utterance goes alone

    def __post_init__(self):
        check_numbers(self, "batch_seconds", above=0)

    @property
    def needs_decoder(self) -> bool:
        """Return whether the model must have an attention decoder."""
        return False

    @property
    def needs_lm(self) -> bool:
        """Return whether a language model has a weight."""
        return False


@dataclass(frozen=True)
class CtcBeamConfig(DecodeConfig):
    """ctc_beam: the most probable reading by CTC, summed over its paths."""

    method: str = "ctc_beam"
    beam_size: int = 10  # prefixes kept at each frame
    nbest: int = 1  # hypotheses written of each utterance
    token_beam: int = 10  # best tokens of a frame that are looked at, the blank not counted
    token_margin: float = 12.0  # of these, the ones so near to the frame's best (nats)
    penalty: float = 0.0  # added to the score for each token (nats); below 0: fewer tokens
    lm_weight: float = 0.0  # of the language model, an n-gram of tokens; 0: none

    def __post_init__(self):
        super().__post_init__()
        _check_beam(self)
        check_numbers(self, "token_beam", at_least=1)
        check_numbers(self, "token_margin", above=0)

    @property
    def needs_lm(self) -> bool:
        """Return whether a language model has a weight."""
        return self.lm_weight > 0


@dataclass(frozen=True)
class JointBeamConfig(DecodeConfig):
    """joint_beam: CTC prefix scores and attention decoder; names and meaning are ESPnet's."""

    method: str = "joint_beam"
    beam_size: int = 10  # hypotheses kept at each token
    nbest: int = 1  # hypotheses written of each utterance
    ctc_weight: float = 0.3  # of the CTC score; the decoder's is 1 − ctc_weight
    penalty: float = 0.0  # added to the score for each token (nats); below 0: fewer tokens
    lm_weight: float = 0.0  # of the language model's score; 0: none
    maxlenratio: float = 0.0  # most tokens for an encoder frame; 0: ends by itself; −n: n tokens
    minlenratio: float = 0.0  # fewest tokens for an encoder frame; −n: n tokens

    def __post_init__(self):
        super().__post_init__()
        _check_beam(self)
        check_numbers(self, "ctc_weight", at_least=0, at_most=1)
        check_numbers(self, "maxlenratio minlenratio", at_least=-10_000, at_most=10)
        for name in ("maxlenratio", "minlenratio"):
            value = getattr(self, name)
            if -1 < value < 0:
                raise ValueError(f"{name} {value} is a number of tokens, expected −1 or below")
        ratios = (self.maxlenratio, self.minlenratio)
        if (
            0 not in ratios
            and (ratios[0] > 0) == (ratios[1] > 0)
            and abs(ratios[1]) > abs(ratios[0])
        ):
            raise ValueError(
                f"minlenratio {ratios[1]} asks for more than maxlenratio {ratios[0]} allows"
            )

    @property
    def needs_decoder(self) -> bool:
        """Return whether the decoder has a weight."""
        return self.ctc_weight < 1

    @property
    def needs_lm(self) -> bool:
        """Return whether a language model has a weight."""
        return self.lm_weight > 0


@dataclass(frozen=True)
class LexiconBeamConfig(DecodeConfig):
    """lexicon_beam: the most probable words by CTC and an n-gram of words; needs flashlight-text."""

    method: str = "lexicon_beam"
    beam_size: int = 50  # hypotheses kept at each frame
    nbest: int = 1  # hypotheses written of each utterance, at most
    token_beam: int = 20  # best tokens of a frame that are looked at
    beam_threshold: float = 50.0  # hypotheses further below the best one are dropped
    lm_weight: float = 1.0  # of the word n-gram (natural logarithms)
    penalty: float = 0.0  # added to the score for each word (nats); below 0: fewer words
    log_add: bool = False  # sum over the paths of a hypothesis in place of the best one

    def __post_init__(self):
        super().__post_init__()
        _check_beam(self)
        check_numbers(self, "token_beam", at_least=1)
        check_numbers(self, "beam_threshold", above=0)

    @property
    def needs_lm(self) -> bool:
        """Return True: the words are the language model's."""
        return True


METHODS = {
    "ctc_greedy": DecodeConfig,
    "ctc_beam": CtcBeamConfig,
    "joint_beam": JointBeamConfig,
    "lexicon_beam": LexiconBeamConfig,
}


def load_decode_config(path: Path | str, overrides: list[str] | None = None) -> DecodeConfig:
    """Return the config of the method that a YAML file and `key=value` overrides name.

    Raises:
        InputError: an unknown method, a key that the method does not have, a value out of range.
    """
    plain = read_overridden(path, overrides)
    method = plain.get("method", DecodeConfig.method)
    if not isinstance(method, str) or method not in METHODS:
        raise unknown_name("method", str(method), METHODS, where=path)
    return from_plain(METHODS[method], plain, where=path)


def _check_beam(config: CtcBeamConfig | JointBeamConfig | LexiconBeamConfig) -> None:
    check_numbers(config, "beam_size", at_least=1, at_most=MAX_BEAM)
    check_numbers(config, "nbest", at_least=1, at_most=config.beam_size)
    check_numbers(config, "penalty", at_least=-100, at_most=100)
    check_numbers(config, "lm_weight", at_least=0, at_most=MAX_LM_WEIGHT)
