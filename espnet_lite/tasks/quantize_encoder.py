"""A pre-trained encoder in few bits, before it is fine-tuned: it learns its own hidden states anew from
speech without transcripts. `tasks.quantize_finetune` then trains a recognizer on it."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from espnet_lite.config import build_class, check_numbers, choice, from_plain, read_yaml, to_plain
from espnet_lite.data.loader import Loader
from espnet_lite.data.utterance import Batch
from espnet_lite.encoders.families import ENCODERS
from espnet_lite.encoders.front_end import FRONT_ENDS
from espnet_lite.encoders.output import EncoderOutput
from espnet_lite.errors import InputError
from espnet_lite.features.spec_augment import SpecAugment
from espnet_lite.models.loss import Loss
from espnet_lite.models.pretrained import PARTS, read_pretrained
from espnet_lite.nn.dropout import Dropout
from espnet_lite.quantize.calibration import ScaleWatch, start_activations
from espnet_lite.quantize.config import QuantizeConfig
from espnet_lite.quantize.distillation import hidden_error
from espnet_lite.quantize.policy import Rule, check_policy, policy_table, quantize_modules
from espnet_lite.tasks.quantize import calibration_waveforms, load_weights
from espnet_lite.tasks.quantize_plan import (
    Step,
    load_quantize_config,
    refuse_overrides,
    rules_of_step,
    run_steps,
    step_folders,
)
from espnet_lite.tasks.training import Training, data_fingerprints, read_sets, weights_file
from espnet_lite.train.experiment import fingerprint
from espnet_lite.train.options import TrainOptions

BATCH_SECONDS = (
    80.0  # where training.batch_seconds is null: there is no teacher's recipe to look into
)
CROP_SECONDS = 15.6  # as HuBERT's
MASK_EMBEDDING = "mask_embedding"  # its name in the weights of a pre-training


@dataclass(frozen=True)
class EncoderConfig:
    """What a pre-training leaves to others."""

    front_end: object = choice(FRONT_ENDS, "log_mel")
    encoder: object = choice(ENCODERS, "transformer")


@dataclass(frozen=True)
class SpeechOptions:
    """What a batch is made of."""

    batch_seconds: float = BATCH_SECONDS  # padded seconds
    crop_seconds: float = CROP_SECONDS  # of a longer utterance a part is taken

    def __post_init__(self):
        check_numbers(self, "batch_seconds crop_seconds", above=0)


@dataclass(frozen=True)
class TrainQuantizedEncoderConfig:
    """The resolved configuration of one step, as its experiment folder keeps it."""

    rules: tuple[Rule, ...]
    model: EncoderConfig = field(default_factory=EncoderConfig)
    data: SpeechOptions = field(default_factory=SpeechOptions)
    dropout: float | None = None
    calibration_utterances: int = 16
    train: TrainOptions = field(default_factory=TrainOptions)


class QuantizedEncoder(nn.Module):
    """Front end and encoder; as a student its loss is the distance of its layers from the teacher's.

    The vector that a pre-training puts on masked frames (`mask_embedding`) is kept for the fine-tuning,
    where there is one.
    """

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.config = config
        self.encoder = build_class(ENCODERS, config.encoder)(config.encoder)
        self.front_end = build_class(FRONT_ENDS, config.front_end)(
            config.front_end, dim=self.encoder.dim
        )
        self.register_buffer(MASK_EMBEDDING, None)
        self._teacher: tuple[
            QuantizedEncoder, ...
        ] = ()  # in a tuple, where nn.Module does not see it
        self._watch: ScaleWatch | None = None

    def learn_from(self, teacher: "QuantizedEncoder", *, dropout: float | None) -> None:
        """Take a teacher; to be called once all quantizers are in their places."""
        self._teacher = (teacher.eval().requires_grad_(False),)
        self._watch = ScaleWatch(self)
        for module in self.modules():
            if isinstance(module, Dropout) and dropout is not None:
                module.p = dropout

    def _apply(self, fn, recurse=True):
        """Take the teacher along to another device."""
        for teacher in self._teacher:
            teacher._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def encode(
        self,
        waveform: Float[Tensor, "batch samples"],
        lengths: Int[Tensor, "batch"],
        generator: torch.Generator | None = None,
    ) -> EncoderOutput:
        """Return the encoder's output with its layers."""
        features, frames = self.front_end(waveform, lengths, generator)
        return self.encoder(features, frames, return_layers=True)

    def forward(self, batch: Batch) -> Loss:
        """Return Σ over utterances of frames · mean over layers of the relative squared error."""
        (teacher,) = self._teacher
        self._watch.check()
        ours, theirs = (
            model.encode(
                batch.waveform,
                batch.waveform_lengths,
                torch.Generator(device=batch.waveform.device).manual_seed(batch.seed),
            )
            for model in (self, self._seeing_the_same(teacher))
        )
        targets = [layer.detach() for layer in theirs.layers]
        total = hidden_error(ours.layers, targets, ours.lengths)
        count, frames = len(batch.ids), ours.lengths.sum()
        metrics = {"loss": (total.detach(), count), "hidden_error": (total.detach(), frames)}
        return Loss(total, count, metrics)

    def _seeing_the_same(self, teacher: "QuantizedEncoder") -> "QuantizedEncoder":
        """Return the teacher with masks on its input where the student has them."""
        for module in teacher.modules():
            if isinstance(module, SpecAugment):
                module.train(self.training)
        return teacher


def quantize_encoder(
    *,
    config_file: Path,
    overrides: list[str],
    pretrained: Path,
    train_dirs: list[Path],
    dev_dirs: list[Path],
    expdir: Path,
    fresh: bool,
    device_name: str,
    command: list[str],
) -> int:
    """Train, or go on training, all steps of a plan; return the exit code (0, or 75 to requeue).

    Args:
        config_file: conf/quantize_*.yaml with `training`; hidden states are all there is to learn
            from, so that `distillation` and `train.criterion` do not count; precisions are refused.
        overrides: key=value of it.
        pretrained: experiment folder or file of the pre-training.
        train_dirs: dump folders; texts are not read.
        dev_dirs: dump folders to validate on.
        expdir: experiment folder of the last step.
        fresh: move experiments aside and start anew.
        device_name: auto, cpu or cuda.
        command: the program and its arguments, kept in the record.

    Raises:
        InputError: anything the user can mend, each with its file or key.
    """
    config = load_quantize_config(config_file, overrides)
    plan = config.training
    if plan is None:
        raise InputError("has no training", where=config_file, fix="give one that has")
    if plan.precisions:
        raise InputError(
            f"has {len(plan.precisions)} training.precisions, but an encoder is trained in the policy's "
            "bits alone",
            where=config_file,
            fix="set training.precisions=[]",
        )
    refuse_overrides(
        overrides,
        ("training.distillation", "training.train.criterion"),
        why="an encoder learns from hidden states alone",
        fix="leave it out",
    )
    model = _encoder_config(read_pretrained(pretrained)[1], where=pretrained)
    folders = step_folders(expdir, plan)
    teachers = [pretrained, *folders[:-1]]
    steps = []
    for options, teacher, folder in zip(plan.steps or (None,), teachers, folders, strict=True):
        train = dataclasses.replace(plan.train, criterion="loss")  # the only metric there is
        if options is not None:
            train = dataclasses.replace(train, updates=options.updates)
        resolved = TrainQuantizedEncoderConfig(
            rules=rules_of_step(config.rules, options),
            model=model,
            data=SpeechOptions(batch_seconds=plan.batch_seconds or BATCH_SECONDS),
            dropout=plan.dropout,
            calibration_utterances=config.calibration_utterances,
            train=train,
        )
        prepare = _preparation(
            resolved, config.rules, teacher, train_dirs, dev_dirs, where=config_file
        )
        steps.append(Step(folder, resolved, prepare))
    return run_steps(
        steps, config_file=config_file, fresh=fresh, device_name=device_name, command=command
    )


def _encoder_config(plain: dict, *, where: Path) -> EncoderConfig:
    """Return of the plain configuration of a pre-training's model what of it is an encoder's."""
    return from_plain(EncoderConfig, {part: plain[part] for part in PARTS}, where=where)


def rules_of_encoder(path: Path) -> tuple[Rule, ...]:
    """Return the rules that a pre-trained encoder was quantized by; none of one in floating point."""
    if not path.is_dir():
        return ()
    plain = read_yaml(path / "config.yaml").get("rules", [])
    return from_plain(QuantizeConfig, {"rules": plain}, where=path / "config.yaml").rules


def load_encoder(path: Path) -> QuantizedEncoder:
    """Return the encoder of a pre-training, or of `quantize_encoder`, in evaluation mode.

    Raises:
        InputError: it is neither, or not done.
    """
    weights, plain = read_pretrained(path)
    model = QuantizedEncoder(_encoder_config(plain, where=path))
    model.mask_embedding = weights.get(MASK_EMBEDDING)
    quantize_modules(model, rules_of_encoder(path), where=path, strict=False)
    load_weights(model, weights, where=path)
    return model.eval()


def _preparation(
    resolved: TrainQuantizedEncoderConfig,
    policy: Sequence[Rule],
    teacher_path: Path,
    train_dirs: list[Path],
    dev_dirs: list[Path],
    *,
    where: Path,
) -> Callable[[], Training]:
    """Return what prepares the training of one step on the way to a policy."""

    def prepare() -> Training:
        teacher = load_encoder(teacher_path)
        train, dev = (read_sets(dirs, need_text=False) for dirs in (train_dirs, dev_dirs))
        rate = teacher.front_end.sample_rate
        waveforms = calibration_waveforms(
            train, count=resolved.calibration_utterances, sample_rate=rate
        )
        student = _student(resolved, policy, teacher, waveforms, where=where)
        loaders = [
            Loader(
                utterances,
                None,
                sample_rate=rate,
                batch_seconds=resolved.data.batch_seconds,
                seed=resolved.train.seed if is_train else 0,
                shuffle=is_train,
                crop_seconds=resolved.data.crop_seconds,
            )
            for utterances, is_train in ((train, True), (dev, False))
        ]
        inputs = data_fingerprints(train_dirs, dev_dirs, tables=("wav.scp",))
        inputs["teacher"] = fingerprint([weights_file(teacher_path)])
        return Training(
            config=resolved,
            model=student,
            train_loader=loaders[0],
            dev_loader=loaders[1],
            inputs=inputs,
            save_beside=None,
            facts={"teacher": teacher_path.name, "rules": to_plain(resolved.rules)},
            tag_option="--expdir",
        )

    return prepare


def _student(
    config: TrainQuantizedEncoderConfig,
    policy: Sequence[Rule],
    teacher: QuantizedEncoder,
    waveforms: Float[Tensor, "batch samples"],
    *,
    where: Path,
) -> QuantizedEncoder:
    """Return the student with its teacher's weights and measured scales; prints the policy."""
    student = QuantizedEncoder(config.model)
    check_policy(student, policy, where=where)
    latent = teacher.state_dict()
    student.mask_embedding = latent.get(MASK_EMBEDDING)
    student.load_state_dict({name: latent[name] for name in student.state_dict()})
    placements = quantize_modules(student, config.rules, where=where, strict=False)
    lengths = torch.full((len(waveforms),), waveforms.size(1))
    try:
        start_activations(student, lambda: student.encode(waveforms, lengths))
    except ValueError as error:
        raise InputError(str(error), where=where, fix="give more calibration_utterances") from error
    student.learn_from(teacher, dropout=config.dropout)
    print(policy_table(student, placements))
    return student
