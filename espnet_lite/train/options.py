"""How a model is trained, whatever the model."""

from dataclasses import dataclass

from espnet_lite.config import check_numbers, choice
from espnet_lite.train.optimizers import OPTIMIZERS
from espnet_lite.train.schedules import SCHEDULES

SHARDINGS = ("none", "fsdp")
PRECISIONS = ("auto", "bf16", "fp32")


@dataclass(frozen=True)
class TrainOptions:
    """Options of the training loop; lengths are counted in updates, never in minutes."""

    updates: int = 10000  # length of the training; the one key that may grow later
    seed: int = 1
    accumulate: int = 1  # batches per update
    clip: float = 5.0  # largest norm of the gradient
    freeze_parts: tuple[
        str, ...
    ] = ()  # of the model (encoder, encoder.blocks.0), left as they are …
    freeze_updates: int = 0  # … in so many first updates
    frozen_parts: tuple[
        str, ...
    ] = ()  # left as they are to the end; still in training mode (dropout)
    threads: int | None = None  # of torch on a CPU; null: as many as cores
    precision: str = "auto"  # bf16 (autocast, no scaler) | fp32 | auto: bf16 where it is fast
    sharding: str = "none"  # fsdp: each of several processes keeps a share of weights and moments
    optimizer: object = choice(OPTIMIZERS, "adamw")
    schedule: object = choice(SCHEDULES, "warmup_cosine")
    log_every: int = 50  # updates between lines of train.jsonl
    validate_every: int = 500  # updates between validations
    save_every: int = 500  # updates between checkpoints to resume from
    criterion: str = "loss"  # metric of validation that ranks checkpoints; lower is better
    average_best: int = 5  # checkpoints whose mean is the final model
    patience: int | None = None  # validations without a new best before stopping; null: never

    def __post_init__(self):
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision '{self.precision}' is not one of {', '.join(PRECISIONS)}")
        if self.sharding not in SHARDINGS:
            raise ValueError(f"sharding '{self.sharding}' is not one of {', '.join(SHARDINGS)}")
        counts = "updates accumulate log_every validate_every save_every average_best"
        check_numbers(self, f"{counts} threads patience", at_least=1)
        check_numbers(self, "freeze_updates", at_least=0)
        if self.freeze_updates and not self.freeze_parts:
            raise ValueError(f"freeze_updates {self.freeze_updates}, but freeze_parts names none")
        check_numbers(self, "seed", at_least=0, below=2**63)  # what torch's generators take
        if not self.clip > 0:  # infinity is fine: nothing is clipped
            raise ValueError(f"clip {self.clip} is not above 0")
