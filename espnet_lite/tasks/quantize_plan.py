"""What conf/quantize_*.yaml asks a training for, and the steps that it is trained in.

Each step is a training like any other, in an experiment folder of its own, whose student begins with its
teacher's weights; the student of a step is the teacher of the next. The last step's folder has the name
that was asked for, those before it have `_step_1`, `_step_2`, … behind it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from espnet_lite.config import from_plain, read_overridden
from espnet_lite.errors import InputError
from espnet_lite.quantize.config import QuantizeConfig, StepOptions, TrainingPlan
from espnet_lite.quantize.policy import Rule
from espnet_lite.tasks.training import Training, run_training

DONE = 0


def load_quantize_config(path: Path, overrides: list[str]) -> QuantizeConfig:
    """Return the configuration after its overrides.

    Raises:
        InputError: what does not fit the schema, or a length beside steps, which have their own.
    """
    plain = read_overridden(path, overrides)
    config = from_plain(QuantizeConfig, plain, where=path)
    plan = config.training
    if plan is not None and plan.steps and "updates" in plain["training"].get("train", {}):
        raise InputError(
            f"training.train.updates {plan.train.updates} beside training.steps, which have updates "
            "of their own",
            where=path,
            fix="give the steps theirs and leave it out, or set training.steps=[]",
        )
    return config


def refuse_overrides(overrides: list[str], keys: Sequence[str], *, why: str, fix: str) -> None:
    """Raise for an override of one of `keys`, or of what is below it, which would change nothing.

    Raises:
        InputError: with the override, why it does not count and `fix`.
    """
    for text in overrides:
        given = text.partition("=")[0]
        if any(given == key or given.startswith(f"{key}.") for key in keys):
            raise InputError(f"'{text}' changes nothing: {why}", where="--set", fix=fix)


def step_folders(expdir: Path, plan: TrainingPlan) -> list[Path]:
    """Return the experiment folders of a plan's steps; the last is `expdir`."""
    before = range(1, max(1, len(plan.steps)))
    return [*(expdir.with_name(f"{expdir.name}_step_{number}") for number in before), expdir]


def rules_of_step(rules: Sequence[Rule], step: StepOptions | None) -> tuple[Rule, ...]:
    """Return the rules with the bits of a step; None: as they are."""
    if step is None:
        return tuple(rules)
    bits = {"weight_bits": step.weight_bits, "activation_bits": step.activation_bits}
    return tuple(rule.at_least(**bits) for rule in rules)


@dataclass(frozen=True)
class Step:
    """One training of a plan.

    Attributes:
        folder: its experiment folder.
        config: its resolved configuration.
        prepare: as `run_training` takes it; called once the steps before it are done.
    """

    folder: Path
    config: object
    prepare: Callable[[], Training]


def run_steps(
    steps: Sequence[Step],
    *,
    config_file: Path,
    fresh: bool,
    device_name: str,
    command: list[str],
) -> int:
    """Train, or go on training, all steps; return the exit code (0, or 75 to requeue).

    The first step's training looks into the folders of all; `fresh` moves all of them aside then.

    Raises:
        InputError: what a training raises, or a folder is of another plan.
    """
    for number, step in enumerate(steps):
        code = run_training(
            step.prepare,
            expdir=step.folder,
            later=[(other.folder, other.config) for other in steps[number + 1 :]],
            config_file=config_file,
            fresh=fresh and number == 0,
            device_name=device_name,
            command=command,
        )
        if code != DONE:
            return code
    return DONE
