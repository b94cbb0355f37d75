"""What a decoding YAML may say (conf/decode_*.yaml). No torch here: the parent process reads it."""

import math
from dataclasses import dataclass

METHODS = ("ctc_greedy",)


@dataclass(frozen=True)
class DecodeConfig:
    """How hypotheses are made. That of an utterance does not depend on `batch_seconds`."""

    method: str = "ctc_greedy"  # ctc_greedy: best token of every frame
    batch_seconds: float = 60.0  # audio in a batch, padding included; a longer utterance goes alone

    def __post_init__(self):
        if self.method not in METHODS:
            raise ValueError(f"method '{self.method}' is not one of {', '.join(METHODS)}")
        if not (math.isfinite(self.batch_seconds) and self.batch_seconds > 0):
            raise ValueError(f"batch_seconds {self.batch_seconds} is not a number above 0")
