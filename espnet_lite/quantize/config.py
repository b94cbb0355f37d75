"""Schema of conf/quantize_*.yaml: bits, and how a model gets used to them.

weights: bf16            of all that no rule takes, in the packed file
rules: [...]             none: the model is packed as it is
training: {...}          none: post-training, activations measured on a few utterances
"""

from dataclasses import dataclass, field

from espnet_lite.config import check_numbers
from espnet_lite.quantize.policy import ACTIVATION_BITS, WEIGHT_BITS, Rule
from espnet_lite.train.options import TrainOptions

STORED = ("fp32", "bf16")


def _check_bits(options: "StepOptions | PrecisionOptions") -> None:
    if options.weight_bits not in WEIGHT_BITS:
        raise ValueError(f"weight_bits {options.weight_bits:g} is not one of {WEIGHT_BITS}")
    if options.activation_bits not in ACTIVATION_BITS:
        raise ValueError(
            f"activation_bits {options.activation_bits} is not one of {ACTIVATION_BITS}"
        )


@dataclass(frozen=True)
class StepOptions:
    """One training on the way to the policy, or to it; its student is the next one's teacher.

    Every rule keeps its bits where it has more.
    """

    updates: int  # length of this training; takes the place of train.updates
    weight_bits: float | int = 1  # at least so many
    activation_bits: int = 1  # at least so many

    def __post_init__(self):
        check_numbers(self, "updates", at_least=1)
        _check_bits(self)


@dataclass(frozen=True)
class PrecisionOptions:
    """A further precision that the same weights are trained for; bits as in StepOptions."""

    weight_bits: float | int = 1  # at least so many
    activation_bits: int = 1  # at least so many

    def __post_init__(self):
        _check_bits(self)


@dataclass(frozen=True)
class DistillationOptions:
    """What a student learns from its teacher, beside the loss of the transcripts."""

    labels: float = 1.0  # weight of the recognizer's own loss
    logits: float = (
        1.0  # of the divergence of CTC (and decoder) outputs, summed over frames (tokens)
    )
    hidden: float = 1.0  # of the relative squared error of each layer's frames, summed over layers

    def __post_init__(self):
        check_numbers(self, "labels logits hidden", at_least=0)
        if self.labels + self.logits + self.hidden == 0:
            raise ValueError("labels, logits and hidden are all 0: nothing would be learned")


@dataclass(frozen=True)
class TrainingPlan:
    """Quantization-aware training from a trained recognizer."""

    steps: tuple[StepOptions, ...] = ()  # none: one, of train.updates
    distillation: DistillationOptions | None = field(default_factory=DistillationOptions)
    precisions: tuple[PrecisionOptions, ...] = ()  # trained together with the policy's, at random
    dropout: float | None = 0.0  # everywhere in the student; null: the teacher's
    batch_seconds: float | None = None  # padded seconds in a batch; null: the teacher's
    train: TrainOptions = field(default_factory=TrainOptions)

    def __post_init__(self):
        check_numbers(self, "dropout", at_least=0, below=1)
        check_numbers(self, "batch_seconds", above=0)
        if self.steps and self.steps[-1].weight_bits != 1:
            raise ValueError("the last of steps has weight_bits, but it is the policy itself")
        if self.steps and self.steps[-1].activation_bits != 1:
            raise ValueError("the last of steps has activation_bits, but it is the policy itself")


@dataclass(frozen=True)
class QuantizeConfig:
    """Schema of conf/quantize_*.yaml."""

    weights: str = "bf16"  # of what no rule takes: fp32 | bf16 (matrices and kernels)
    decoder: bool = False  # keep the attention decoder's section, where the model has one
    rules: tuple[Rule, ...] = ()
    calibration_utterances: int = 16  # that first scales of activations are measured on
    training: TrainingPlan | None = None  # null: post-training

    def __post_init__(self):
        check_numbers(self, "calibration_utterances", at_least=1)
        if self.weights not in STORED:
            raise ValueError(f"weights '{self.weights}' is not one of {', '.join(STORED)}")
        if self.training is not None and not self.rules:
            raise ValueError("training without rules: nothing would be quantized")
