"""A recognizer in few bits on a pre-trained encoder: fine-tuned without a teacher, for there was no recognizer
before. The encoder is in floating point or one that `tasks.quantize_encoder` has brought to these bits."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from espnet_lite.config import load_config, to_plain
from espnet_lite.errors import InputError
from espnet_lite.models.pretrained import load_pretrained_weights, read_pretrained
from espnet_lite.quantize.config import QuantizeConfig
from espnet_lite.quantize.policy import policy_table, quantize_modules
from espnet_lite.tasks.asr import TrainAsrConfig, build_loaders, start_input_mask, tokenizer_files
from espnet_lite.tasks.quantize import TrainQuantizedConfig, calibrate, calibration_waveforms
from espnet_lite.tasks.quantize_encoder import rules_of_encoder
from espnet_lite.tasks.quantize_plan import load_quantize_config, refuse_overrides
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
from espnet_lite.train.experiment import fingerprint

# Of `training`, what the recognizer's own configuration says where one is fine-tuned.
NOT_OF_A_FINE_TUNING = ("training.train", "training.batch_seconds", "training.distillation")


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
        config_file: conf/quantize_*.yaml; of it rules, calibration_utterances and training.dropout
            count. Steps and precisions are refused, and so is another part of `training` among the
            overrides.
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
        config = load_quantize_config(config_file, overrides)
        _check_fine_tuning(config, overrides, where=config_file)
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
        inputs["tokens"] = fingerprint(tokenizer_files(tokenizer_dir))
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


def _check_fine_tuning(config: QuantizeConfig, overrides: list[str], *, where: Path) -> None:
    """Raise for what a fine-tuning on a pre-trained encoder would leave out without a word."""
    plan = config.training
    several = {} if plan is None else {"steps": plan.steps, "precisions": plan.precisions}
    for key, given in several.items():
        if given:
            raise InputError(
                f"has {len(given)} training.{key}, but on a pre-trained encoder a recognizer is trained "
                "in the policy's bits alone",
                where=where,
                fix=f"set training.{key}=[]",
            )
    refuse_overrides(
        overrides,
        NOT_OF_A_FINE_TUNING,
        why="with --pretrained the training is that of --asr_config, without a teacher",
        fix="leave it out, or change that one with --asr_set",
    )


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
    start_input_mask(student, weights)
    placements = quantize_modules(student, config.rules, where=where)
    calibrate(student, waveforms, where=where)
    if rules_of_encoder(pretrained):
        own = student.state_dict()
        student.load_state_dict({name: weights.get(name, own[name]) for name in own})
    student.prepare(teacher=None, reference=None, distillation=None, dropout=config.dropout)
    return student, policy_table(student, placements)
