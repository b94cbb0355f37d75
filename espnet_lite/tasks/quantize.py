"""Quantization-aware training of a recognizer: a trained one and a policy → a quantized one.

It has one or several steps (`training.steps`), see tasks.quantize_plan.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from espnet_lite.config import from_plain, read_yaml, to_plain
from espnet_lite.data.loader import Loader
from espnet_lite.data.utterance_table import UtteranceTable
from espnet_lite.errors import InputError
from espnet_lite.models.asr import AsrConfig, AsrModel
from espnet_lite.quantize.calibration import cropped, start_activations
from espnet_lite.quantize.config import (
    DistillationOptions,
    PrecisionOptions,
    QuantizeConfig,
    StepOptions,
)
from espnet_lite.quantize.policy import Rule, check_policy, policy_table, quantize_modules
from espnet_lite.quantize.switches import choose, of_last_precision
from espnet_lite.runtime.packed_model import PackedModel
from espnet_lite.score.results import read_json
from espnet_lite.tasks.asr import DataOptions, TrainAsrConfig, build_loaders
from espnet_lite.tasks.quantize_plan import (
    Step,
    load_quantize_config,
    rules_of_step,
    run_steps,
    step_folders,
)
from espnet_lite.tasks.student import StudentAsr
from espnet_lite.tasks.training import Training, data_fingerprints, read_sets
from espnet_lite.text.tokenizer import Tokenizer
from espnet_lite.train.checkpoint import read_weights
from espnet_lite.train.experiment import fingerprint
from espnet_lite.train.options import TrainOptions

NOT_OF_ITS_CONFIG = "put back the config.yaml it was trained with, or train again with --fresh"


@dataclass(frozen=True)
class TrainQuantizedConfig:
    """The resolved configuration of one step, as its experiment folder keeps it."""

    rules: tuple[Rule, ...]
    model: AsrConfig = field(default_factory=AsrConfig)
    data: DataOptions = field(default_factory=DataOptions)
    distillation: DistillationOptions | None = None
    precisions: tuple[PrecisionOptions, ...] = ()
    dropout: float | None = None
    calibration_utterances: int = 16
    train: TrainOptions = field(default_factory=TrainOptions)


def train_quantized(
    *,
    config_file: Path,
    overrides: list[str],
    teacher_dir: Path,
    train_dirs: list[Path],
    dev_dirs: list[Path],
    expdir: Path,
    fresh: bool,
    device_name: str,
    command: list[str],
) -> int:
    """Train, or go on training, all steps of a plan; return the exit code (0, or 75 to requeue).

    Args:
        config_file: conf/quantize_*.yaml with `training`.
        overrides: key=value of it.
        teacher_dir: experiment folder of the floating-point recognizer, or of a quantized one.
        train_dirs: dump folders to train on.
        dev_dirs: dump folders to validate on.
        expdir: experiment folder of the last step.
        fresh: move experiments aside and start anew.
        device_name: auto, cpu or cuda.
        command: the program and its arguments, kept in the record.

    Raises:
        InputError: anything the user can mend, each with its file or key.
    """
    config = load_quantize_config(config_file, overrides)
    if config.training is None:
        raise InputError(
            "has no training", where=config_file, fix="pack_model packs it without training"
        )
    trained = read_trained(teacher_dir)
    folders = step_folders(expdir, config.training)
    teachers = [teacher_dir, *folders[:-1]]
    steps = []
    for number, options in enumerate(config.training.steps or (None,)):
        resolved = _resolved(config, options, trained)
        prepare = _preparation(
            resolved,
            policy=config.rules,
            config_file=config_file,
            reference_dir=teacher_dir,
            teacher_dir=teachers[number],
            earlier=folders[:number],
            train_dirs=train_dirs,
            dev_dirs=dev_dirs,
        )
        steps.append(Step(folders[number], resolved, prepare))
    return run_steps(
        steps, config_file=config_file, fresh=fresh, device_name=device_name, command=command
    )


def _preparation(
    resolved: TrainQuantizedConfig,
    *,
    policy: Sequence[Rule],
    config_file: Path,
    reference_dir: Path,
    teacher_dir: Path,
    earlier: list[Path],
    train_dirs: list[Path],
    dev_dirs: list[Path],
) -> Callable[[], Training]:
    """Return what prepares the training of one step on the way to a policy."""

    def prepare() -> Training:
        tokenizer = Tokenizer.load(teacher_dir / "tokenizer")
        train, dev = read_sets(train_dirs), read_sets(dev_dirs)
        teacher = load_recognizer(teacher_dir)
        reference = teacher if teacher_dir == reference_dir else load_recognizer(reference_dir)
        student, table = build_student(
            resolved,
            policy=policy,
            teacher=teacher,
            reference=reference,
            vocab=tokenizer.vocab,
            waveforms=calibration_waveforms(
                train,
                count=resolved.calibration_utterances,
                sample_rate=resolved.model.front_end.sample_rate,
            ),
            where=config_file,
        )
        print(table)
        recipe = TrainAsrConfig(model=resolved.model, data=resolved.data, train=resolved.train)
        train_loader, dev_loader = build_loaders(recipe, train, dev, tokenizer)
        inputs = data_fingerprints(train_dirs, dev_dirs, tables=("wav.scp", "text"))
        inputs["teacher"] = fingerprint([teacher_dir / "model.safetensors"])
        return Training(
            config=resolved,
            model=student,
            train_loader=train_loader,
            dev_loader=dev_loader,
            inputs=inputs,
            save_beside=lambda folder: tokenizer.save(folder / "tokenizer"),
            facts={
                "teacher": teacher_dir.name,
                "quantization": {
                    "rules": to_plain(resolved.rules),
                    "distillation": to_plain(resolved.distillation),
                    "earlier_steps": [_summary(folder) for folder in earlier],
                },
            },
            tag_option="--quantize_tag",
        )

    return prepare


def _resolved(
    config: QuantizeConfig, step: StepOptions | None, trained: "Trained"
) -> TrainQuantizedConfig:
    """Return the configuration of one step: the plan's, on the model and data of the recognizer that the
    first step has as its teacher; None: the only step, of train.updates."""
    plan, train = config.training, config.training.train
    data = dataclasses.replace(trained.data, short_first_epochs=0, short_only_epochs=0)
    if plan.batch_seconds is not None:
        data = dataclasses.replace(data, batch_seconds=plan.batch_seconds)
    if step is not None:
        train = dataclasses.replace(train, updates=step.updates)
    return TrainQuantizedConfig(
        rules=rules_of_step(config.rules, step),
        model=trained.model,
        data=data,
        distillation=plan.distillation,
        precisions=plan.precisions,
        dropout=plan.dropout,
        calibration_utterances=config.calibration_utterances,
        train=train,
    )


@dataclass(frozen=True)
class Trained:
    """What the folder of a trained recognizer says of it; `rules` are none of a floating-point one."""

    model: AsrConfig
    data: DataOptions
    rules: tuple[Rule, ...]


def read_trained(folder: Path) -> Trained:
    """Return model, data and rules of an experiment folder.

    Raises:
        InputError: it is not one of a recognizer.
    """
    file = folder / "config.yaml"
    plain = read_yaml(file)
    if not isinstance(plain.get("model"), dict) or "encoder" not in plain["model"]:
        raise InputError(
            "no 'model' with an encoder, expected a trained recognizer's config",
            where=file,
            fix="train one: ./run.sh --stage finetune",
        )
    rules = plain.get("rules", [])
    read = from_plain(
        TrainQuantizedConfig,
        {"model": plain["model"], "data": plain.get("data", {}), "rules": rules},
        where=file,
    )
    return Trained(read.model, read.data, read.rules)


def load_recognizer(folder: Path) -> AsrModel:
    """Return the trained recognizer of an experiment folder in evaluation mode, quantized or not.

    Raises:
        InputError: not an experiment of a recognizer, one that is not done, or one whose weights are not
            those of its configuration.
    """
    trained = read_trained(folder)
    model = AsrModel(trained.model, vocab=Tokenizer.load(folder / "tokenizer").vocab)
    quantize_modules(model, trained.rules, where=folder / "config.yaml", strict=False)
    file = folder / "model.safetensors"
    weights = read_weights(file)
    kept = of_last_precision(weights, model)
    further = {name for name in weights if name not in kept and ".members." not in name}
    load_weights(model, kept, where=file)
    if further:
        raise InputError(
            f"has a weight '{min(further)}', which the model of config.yaml does not have",
            where=file,
            fix=NOT_OF_ITS_CONFIG,
        )
    return model.eval()


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], *, where: Path) -> None:
    """Put into `model` its weights out of `weights`, which may hold further ones.

    Raises:
        InputError: one is missing or has another shape.
    """
    own = model.state_dict()
    for name, tensor in own.items():
        what = None
        if name not in weights:
            what = f"has no weight '{name}', which its config.yaml asks for"
        elif weights[name].shape != tensor.shape:
            what = (
                f"weight '{name}' has the shape {list(weights[name].shape)}, "
                f"its config.yaml asks for {list(tensor.shape)}"
            )
        if what is not None:
            raise InputError(what, where=where, fix=NOT_OF_ITS_CONFIG)
    model.load_state_dict({name: weights[name] for name in own})


def build_student(
    config: TrainQuantizedConfig,
    *,
    policy: Sequence[Rule],
    teacher: AsrModel,
    reference: AsrModel,
    vocab: int,
    waveforms: Float[Tensor, "batch samples"],
    where: Path,
) -> tuple[StudentAsr, str]:
    """Return the student with its teacher's weights and measured scales, and its rules as a table.

    `policy` is what the last step trains for: it is checked at each.

    Raises:
        InputError: what the policy says does not fit the model.
    """
    torch.manual_seed(config.train.seed)
    student = StudentAsr(config.model, vocab=vocab)
    latent = teacher.state_dict()
    student.load_state_dict({name: latent[name] for name in student.state_dict()})
    others = [
        [
            rule.at_least(weight_bits=p.weight_bits, activation_bits=p.activation_bits)
            for rule in config.rules
        ]
        for p in config.precisions
    ]
    check_policy(student, policy, where=where)
    placements = quantize_modules(student, config.rules, where=where, others=others, strict=False)
    for precision in range(len(others) + 1):
        choose(student, precision)
        calibrate(student, waveforms, where=where)
    choose(student)
    student.prepare(
        teacher=teacher,
        reference=reference,
        distillation=config.distillation,
        dropout=config.dropout,
    )
    return student, policy_table(student, placements)


def calibrate(
    model: AsrModel | PackedModel, waveforms: Float[Tensor, "batch samples"], *, where: Path
) -> None:
    """Let the quantizers of activations measure their inputs on waveforms without padding.

    Raises:
        InputError: one of them saw nothing but zeros.
    """
    lengths = torch.full((len(waveforms),), waveforms.size(1), device=waveforms.device)
    try:
        start_activations(
            model, lambda: model.ctc_log_probs(model.encode(waveforms, lengths).encoded)
        )
    except ValueError as error:
        raise InputError(str(error), where=where, fix="give more calibration_utterances") from error


def calibration_waveforms(
    utterances: UtteranceTable, *, count: int, sample_rate: int
) -> Float[Tensor, "batch samples"]:
    """Return `count` utterances of middle length, cut to the shortest of them: no padding, little lost."""
    lengths = Loader(utterances, None, sample_rate=sample_rate, batch_seconds=1, seed=0).num_samples
    order = lengths.argsort(kind="stable")
    first = max(0, (len(order) - count) // 2)
    chosen = [utterances[int(index)] for index in order[first : first + count]]
    loader = Loader(
        chosen,
        None,
        sample_rate=sample_rate,
        batch_seconds=count * (int(lengths.max()) / sample_rate + 1),
        seed=0,
        shuffle=False,
        max_batch_utterances=count,
        prefetch_batches=0,
    )
    batch = next(loader.batches(0))
    rows = zip(batch.waveform, batch.waveform_lengths.tolist(), strict=True)
    return cropped([row[:length] for row, length in rows])


def _summary(folder: Path) -> dict[str, object]:
    """Return what the record of a training says of its length."""
    record = read_json(folder / "model.json")
    kept = ("updates", "minutes", "core_minutes", "audio_hours", "dev", "quantization")
    return {"name": folder.name, **{key: record[key] for key in kept if key in record}}
