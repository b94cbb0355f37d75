"""Quantization-aware training of a recognizer: a trained one and a policy → a quantized one.

A plan has one or several steps (`training.steps`). Each is a training like any other, in an experiment
folder of its own, of a student that begins with its teacher's weights; the student of a step is the
teacher of the next. The last step's folder has the name that was asked for, those before it have
`_step_1`, `_step_2`, … behind it.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from espnet_lite.config import from_plain, load_config, read_yaml, to_plain
from espnet_lite.data.loader import Loader
from espnet_lite.data.utterance_table import UtteranceTable
from espnet_lite.errors import InputError
from espnet_lite.models.asr import AsrConfig, AsrModel
from espnet_lite.quantize.calibration import cropped, start_activations
from espnet_lite.quantize.config import (
    DistillationOptions,
    QuantizeConfig,
    StepOptions,
    TrainingPlan,
)
from espnet_lite.quantize.policy import Rule, policy_table, quantize_modules
from espnet_lite.score.results import read_json
from espnet_lite.tasks.asr import DataOptions, TrainAsrConfig, build_loaders
from espnet_lite.tasks.student import StudentAsr
from espnet_lite.tasks.training import Training, data_fingerprints, read_sets, run_training
from espnet_lite.text.tokenizer import Tokenizer
from espnet_lite.train.checkpoint import read_weights
from espnet_lite.train.experiment import fingerprint
from espnet_lite.train.options import TrainOptions

DONE = 0


@dataclass(frozen=True)
class TrainQuantizedConfig:
    """The resolved configuration of one step, as its experiment folder keeps it."""

    rules: tuple[Rule, ...]
    model: AsrConfig = field(default_factory=AsrConfig)
    data: DataOptions = field(default_factory=DataOptions)
    distillation: DistillationOptions | None = None
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
    config = load_config(config_file, QuantizeConfig, overrides)
    if config.training is None:
        raise InputError(
            "has no training", where=config_file, fix="pack_model packs it without training"
        )
    folders = step_folders(expdir, config.training)
    teachers = [teacher_dir, *folders[:-1]]
    for number, (teacher, folder) in enumerate(zip(teachers, folders, strict=True), start=1):
        prepare = _step(
            config,
            config.training.steps[number - 1] if config.training.steps else None,
            config_file=config_file,
            reference_dir=teacher_dir,
            teacher_dir=teacher,
            earlier=folders[: number - 1],
            train_dirs=train_dirs,
            dev_dirs=dev_dirs,
        )
        code = run_training(
            prepare,
            expdir=folder,
            config_file=config_file,
            fresh=fresh,
            device_name=device_name,
            command=command,
        )
        if code != DONE:
            return code
    return DONE


def step_folders(expdir: Path, plan: TrainingPlan) -> list[Path]:
    """Return the experiment folders of a plan's steps; the last is `expdir`."""
    before = range(1, max(1, len(plan.steps)))
    return [*(expdir.with_name(f"{expdir.name}_step_{number}") for number in before), expdir]


def _step(
    config: QuantizeConfig,
    step: StepOptions | None,
    *,
    config_file: Path,
    reference_dir: Path,
    teacher_dir: Path,
    earlier: list[Path],
    train_dirs: list[Path],
    dev_dirs: list[Path],
) -> Callable[[], Training]:
    """Return what prepares the training of one step; None: the only one, of train.updates."""

    def prepare() -> Training:
        resolved = _resolved(config, step, read_trained(teacher_dir))
        tokenizer = Tokenizer.load(teacher_dir / "tokenizer")
        train, dev = read_sets(train_dirs), read_sets(dev_dirs)
        teacher = load_recognizer(teacher_dir)
        reference = teacher if teacher_dir == reference_dir else load_recognizer(reference_dir)
        student, table = build_student(
            resolved,
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
    """Return the configuration of one step: the plan's, on the teacher's model and data."""
    plan, rules, train = config.training, config.rules, config.training.train
    data = dataclasses.replace(trained.data, short_first_epochs=0, short_only_epochs=0)
    if plan.batch_seconds is not None:
        data = dataclasses.replace(data, batch_seconds=plan.batch_seconds)
    if step is not None:
        train = dataclasses.replace(train, updates=step.updates)
        rules = tuple(
            rule.at_least(weight_bits=step.weight_bits, activation_bits=step.activation_bits)
            for rule in rules
        )
    return TrainQuantizedConfig(
        rules=rules,
        model=trained.model,
        data=data,
        distillation=plan.distillation,
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
        InputError: not an experiment of a recognizer, or one that is not done.
    """
    trained = read_trained(folder)
    model = AsrModel(trained.model, vocab=Tokenizer.load(folder / "tokenizer").vocab)
    quantize_modules(model, trained.rules, where=folder / "config.yaml")
    model.load_state_dict(read_weights(folder / "model.safetensors"))
    return model.eval()


def build_student(
    config: TrainQuantizedConfig,
    *,
    teacher: AsrModel,
    reference: AsrModel,
    vocab: int,
    waveforms: Float[Tensor, "batch samples"],
    where: Path,
) -> tuple[StudentAsr, str]:
    """Return the student with its teacher's weights and measured scales, and the policy as a table.

    Raises:
        InputError: what the policy says does not fit the model.
    """
    torch.manual_seed(config.train.seed)
    student = StudentAsr(config.model, vocab=vocab)
    latent = teacher.state_dict()
    student.load_state_dict({name: latent[name] for name in student.state_dict()})
    placements = quantize_modules(student, config.rules, where=where)
    calibrate(student, waveforms, where=where)
    student.prepare(
        teacher=teacher,
        reference=reference,
        distillation=config.distillation,
        dropout=config.dropout,
    )
    return student, policy_table(student, placements)


def calibrate(model: AsrModel, waveforms: Float[Tensor, "batch samples"], *, where: Path) -> None:
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
