"""Quantization-aware training of a recognizer: a trained one and a policy → a quantized one.

A plan has one or several steps (`training.steps`). Each is a training like any other, in an experiment
folder of its own, of a student that begins with its teacher's weights; the student of a step is the
teacher of the next. The last step's folder has the name that was asked for, those before it have
`_step_1`, `_step_2`, … behind it.
"""

import dataclasses
from collections.abc import Callable, Sequence
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
from espnet_lite.models.pretrained import load_pretrained_weights, read_pretrained
from espnet_lite.quantize.calibration import cropped, start_activations
from espnet_lite.quantize.config import (
    DistillationOptions,
    PrecisionOptions,
    QuantizeConfig,
    StepOptions,
    TrainingPlan,
)
from espnet_lite.quantize.policy import Rule, policy_table, quantize_modules
from espnet_lite.quantize.switches import choose, of_last_precision
from espnet_lite.runtime.packed_model import PackedModel
from espnet_lite.score.results import read_json
from espnet_lite.tasks.asr import DataOptions, TrainAsrConfig, build_loaders
from espnet_lite.tasks.student import StudentAsr
from espnet_lite.tasks.training import (
    Training,
    data_fingerprints,
    pretraining_record,
    read_sets,
    run_training,
    weights_file,
)
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


def rules_of_step(rules: Sequence[Rule], step: StepOptions | None) -> tuple[Rule, ...]:
    """Return the rules with the bits of a step; None: as they are."""
    if step is None:
        return tuple(rules)
    bits = {"weight_bits": step.weight_bits, "activation_bits": step.activation_bits}
    return tuple(rule.at_least(**bits) for rule in rules)


def finetune_quantized(
    *,
    config_file: Path,
    overrides: list[str],
    asr_config_file: Path,
    asr_overrides: list[str],
    pretrained: Path,
    tokenizer_dir: Path,
    train_dirs: list[Path],
    dev_dirs: list[Path],
    expdir: Path,
    fresh: bool,
    device_name: str,
    command: list[str],
) -> int:
    """Fine-tune a recognizer in few bits on a pre-trained encoder; return the exit code (0 or 75).

    There is no teacher: no recognizer has been trained before. What the quantizers of an encoder that
    `quantize_encoder` trained have learned is kept.

    Args:
        config_file: conf/quantize_*.yaml; of it rules and dropout count.
        overrides: key=value of it.
        asr_config_file: conf/train_asr*.yaml: model, data and training.
        asr_overrides: key=value of it.
        pretrained: what `quantize_encoder` made, or a pre-training in floating point.
        tokenizer_dir: made by make_tokens.
        train_dirs: dump folders to train on.
        dev_dirs: dump folders to validate on.
        expdir: experiment folder.
        fresh: move an experiment aside and start anew.
        device_name: auto, cpu or cuda.
        command: the program and its arguments, kept in the record.

    Raises:
        InputError: anything the user can mend, each with its file or key.
    """

    def prepare() -> Training:
        config = load_config(config_file, QuantizeConfig, overrides)
        asr = load_config(asr_config_file, TrainAsrConfig, asr_overrides)
        trained_rules = rules_of_encoder(pretrained)
        if trained_rules not in ((), config.rules):
            raise InputError(
                f"its rules are not those that {pretrained} was trained with", where=config_file
            )
        resolved = TrainQuantizedConfig(
            rules=config.rules,
            model=asr.model,
            data=asr.data,
            dropout=None if config.training is None else config.training.dropout,
            calibration_utterances=config.calibration_utterances,
            train=asr.train,
        )
        tokenizer = Tokenizer.load(tokenizer_dir)
        train, dev = read_sets(train_dirs), read_sets(dev_dirs)
        rate = asr.model.front_end.sample_rate
        student, table = _student_on(
            resolved,
            pretrained,
            vocab=tokenizer.vocab,
            waveforms=calibration_waveforms(
                train, count=resolved.calibration_utterances, sample_rate=rate
            ),
            where=config_file,
        )
        print(table)
        train_loader, dev_loader = build_loaders(asr, train, dev, tokenizer)
        inputs = data_fingerprints(train_dirs, dev_dirs, tables=("wav.scp", "text"))
        inputs["pretrained"] = fingerprint([weights_file(pretrained)])
        return Training(
            config=resolved,
            model=student,
            train_loader=train_loader,
            dev_loader=dev_loader,
            inputs=inputs,
            save_beside=lambda folder: tokenizer.save(folder / "tokenizer"),
            facts={
                "pretrained": pretraining_record(pretrained),
                "quantization": {"rules": to_plain(resolved.rules), "distillation": None},
            },
            tag_option="--expdir",
        )

    return run_training(
        prepare,
        expdir=expdir,
        config_file=config_file,
        fresh=fresh,
        device_name=device_name,
        command=command,
    )


def rules_of_encoder(path: Path) -> tuple[Rule, ...]:
    """Return the rules that a pre-trained encoder was quantized by; none of one in floating point."""
    if not path.is_dir():
        return ()
    plain = read_yaml(path / "config.yaml").get("rules", [])
    return from_plain(QuantizeConfig, {"rules": plain}, where=path / "config.yaml").rules


def _student_on(
    config: TrainQuantizedConfig,
    pretrained: Path,
    *,
    vocab: int,
    waveforms: Float[Tensor, "batch samples"],
    where: Path,
) -> tuple[StudentAsr, str]:
    """Return a recognizer with the front end and encoder of a pre-training, and the policy as a table."""
    torch.manual_seed(config.train.seed)
    student = StudentAsr(config.model, vocab=vocab)
    weights, plain = read_pretrained(pretrained)
    latent = {name: weights[name] for name in student.state_dict() if name in weights}
    load_pretrained_weights(student, latent, where=pretrained, pretrained_config=plain)
    placements = quantize_modules(student, config.rules, where=where)
    calibrate(student, waveforms, where=where)
    if rules_of_encoder(pretrained):
        own = student.state_dict()
        student.load_state_dict({name: weights.get(name, own[name]) for name in own})
    student.prepare(teacher=None, reference=None, distillation=None, dropout=config.dropout)
    return student, policy_table(student, placements)


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
        InputError: not an experiment of a recognizer, or one that is not done.
    """
    trained = read_trained(folder)
    model = AsrModel(trained.model, vocab=Tokenizer.load(folder / "tokenizer").vocab)
    quantize_modules(model, trained.rules, where=folder / "config.yaml")
    weights = read_weights(folder / "model.safetensors")
    model.load_state_dict(of_last_precision(weights, model))
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
    others = [
        [
            rule.at_least(weight_bits=p.weight_bits, activation_bits=p.activation_bits)
            for rule in config.rules
        ]
        for p in config.precisions
    ]
    placements = quantize_modules(student, config.rules, where=where, others=others)
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
