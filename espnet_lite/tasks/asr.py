"""The training of a recognizer: joins configuration, data, model and trainer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from espnet_lite.config import check_numbers, load_config
from espnet_lite.data.loader import Loader
from espnet_lite.data.noise import NoiseMixer
from espnet_lite.data.utterance_table import Utterance
from espnet_lite.models.asr import AsrConfig, AsrModel
from espnet_lite.models.pretrained import load_pretrained_weights, read_pretrained
from espnet_lite.tasks.training import (
    Training,
    data_fingerprints,
    pretraining_record,
    read_sets,
    run_training,
    set_cmvn,
    weights_file,
)
from espnet_lite.text.tokenizer import TOKENIZER_FILES, Tokenizer
from espnet_lite.train.experiment import fingerprint
from espnet_lite.train.options import TrainOptions


@dataclass(frozen=True)
class DataOptions:
    """What a batch is made of."""

    batch_seconds: float = 80.0  # padded seconds in a batch
    speed_factors: tuple[float, ...] = (0.9, 1.0, 1.1)  # drawn for each utterance and epoch
    short_first_epochs: int = 0  # first epochs from short to long utterances
    short_only_epochs: int = 0  # epochs before them, of utterances up to short_only_seconds alone
    short_only_seconds: float = 8.0
    max_batch_utterances: int = 256
    noise_dir: str | None = None  # folder of noise recordings to add on the fly; null: none
    noise_probability: float = 0.5  # of an utterance to get noise
    noise_snr_db: tuple[float, float] = (5.0, 25.0)  # signal-to-noise ratio is drawn between

    def __post_init__(self):
        check_numbers(self, "batch_seconds", above=0)
        check_numbers(self, "speed_factors", at_least=0.1, at_most=10)
        if not self.speed_factors:
            raise ValueError("speed_factors are none, expected [1.0] for audio as it is")
        check_numbers(self, "short_first_epochs short_only_epochs", at_least=0)
        check_numbers(self, "short_only_seconds", above=0)
        check_numbers(self, "max_batch_utterances", at_least=1)
        check_numbers(self, "noise_probability", at_least=0, at_most=1)
        check_numbers(self, "noise_snr_db", at_least=-50, at_most=100)


@dataclass(frozen=True)
class TrainAsrConfig:
    """Schema of conf/train_asr*.yaml."""

    model: AsrConfig = field(default_factory=AsrConfig)
    data: DataOptions = field(default_factory=DataOptions)
    train: TrainOptions = field(default_factory=TrainOptions)


def build_model(
    config: TrainAsrConfig, *, vocab: int, cmvn_file: Path | None, pretrained: Path | None = None
) -> AsrModel:
    """Return the model with weights drawn from `config.train.seed` and its CMVN statistics, or with
    front end (statistics included) and encoder of a pre-training.

    Raises:
        InputError: no statistics; a pre-trained encoder of another architecture or front end.
    """
    torch.manual_seed(config.train.seed)
    model = AsrModel(config.model, vocab=vocab)
    if pretrained is None:
        set_cmvn(model.front_end, config.model.front_end, cmvn_file=cmvn_file)
    else:
        weights, plain = read_pretrained(pretrained)
        load_pretrained_weights(model, weights, where=pretrained, pretrained_config=plain)
        start_input_mask(model, weights)
    return model


def start_input_mask(model: AsrModel, weights: Mapping[str, Tensor]) -> None:
    """Give masks on the encoder's input the vector that a pre-training learned, where both have it."""
    if model.input_mask is not None and "mask_embedding" in weights:
        model.input_mask.embedding.data.copy_(weights["mask_embedding"])


def build_loaders(
    config: TrainAsrConfig,
    train: Sequence[Utterance],
    dev: Sequence[Utterance],
    tokenizer: Tokenizer,
) -> tuple[Loader, Loader]:
    """Return the shuffled, speed-perturbed training loader and the plain validation loader."""
    sample_rate = config.model.front_end.sample_rate
    noise = None
    if config.data.noise_dir is not None:
        noise = NoiseMixer(
            config.data.noise_dir,
            sample_rate=sample_rate,
            probability=config.data.noise_probability,
            snr_db=config.data.noise_snr_db,
        )
    train_loader = Loader(
        train,
        tokenizer,
        sample_rate=sample_rate,
        batch_seconds=config.data.batch_seconds,
        seed=config.train.seed,
        speed_factors=config.data.speed_factors,
        short_first_epochs=config.data.short_first_epochs,
        short_only_epochs=config.data.short_only_epochs,
        short_only_seconds=config.data.short_only_seconds,
        max_batch_utterances=config.data.max_batch_utterances,
        noise=noise,
    )
    dev_loader = Loader(
        dev,
        tokenizer,
        sample_rate=sample_rate,
        batch_seconds=config.data.batch_seconds,
        seed=0,
        shuffle=False,
        max_batch_utterances=config.data.max_batch_utterances,
    )
    return train_loader, dev_loader


def train_asr(
    *,
    config_file: Path,
    overrides: list[str],
    train_dirs: list[Path],
    dev_dirs: list[Path],
    tokenizer_dir: Path,
    cmvn_file: Path | None,
    expdir: Path,
    fresh: bool,
    device_name: str,
    command: list[str],
    pretrained: Path | None = None,
) -> int:
    """Train, or go on training, in `expdir` and return the exit code (0, or 75 to requeue).

    Raises:
        InputError: anything the user can mend, each with its file or key.
    """

    def prepare() -> Training:
        config = load_config(config_file, TrainAsrConfig, overrides)
        tokenizer = Tokenizer.load(tokenizer_dir)
        train, dev = read_sets(train_dirs), read_sets(dev_dirs)
        model = build_model(
            config, vocab=tokenizer.vocab, cmvn_file=cmvn_file, pretrained=pretrained
        )
        train_loader, dev_loader = build_loaders(config, train, dev, tokenizer)
        inputs = data_fingerprints(train_dirs, dev_dirs, tables=("wav.scp", "text"))
        inputs["tokens"] = fingerprint(tokenizer_files(tokenizer_dir))
        inputs["cmvn"] = fingerprint([cmvn_file]) if cmvn_file else None
        if pretrained is not None:
            inputs["pretrained"] = fingerprint([weights_file(pretrained)])
        return Training(
            config=config,
            model=model,
            train_loader=train_loader,
            dev_loader=dev_loader,
            inputs=inputs,
            save_beside=lambda folder: tokenizer.save(folder / "tokenizer"),
            facts={} if pretrained is None else {"pretrained": pretraining_record(pretrained)},
        )

    return run_training(
        prepare,
        expdir=expdir,
        config_file=config_file,
        fresh=fresh,
        device_name=device_name,
        command=command,
    )


def tokenizer_files(folder: Path) -> list[Path]:
    """Return the files that decide what a tokenizer does; each type has some of them."""
    return [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
