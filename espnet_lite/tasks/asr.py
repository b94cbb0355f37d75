"""The training of a recognizer: joins configuration, data, model and trainer."""

import contextlib
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from espnet_lite import environment
from espnet_lite.config import check_numbers, load_config, to_plain
from espnet_lite.data.data_dir import read_data_dir
from espnet_lite.data.loader import Loader
from espnet_lite.data.noise import NoiseMixer
from espnet_lite.data.utterance_table import Utterance, UtteranceTable, join_tables
from espnet_lite.errors import InputError
from espnet_lite.features.cmvn import load_cmvn
from espnet_lite.files import write_text
from espnet_lite.locks import folder_lock
from espnet_lite.models.asr import AsrConfig, AsrModel
from espnet_lite.numerics import pick_device, use_fast_matmul
from espnet_lite.text.tokenizer import TOKENIZER_FILES, Tokenizer
from espnet_lite.train.distributed import joined_processes
from espnet_lite.train.experiment import fingerprint, move_aside, open_experiment
from espnet_lite.train.options import TrainOptions
from espnet_lite.train.trainer import REQUEUE, Trainer


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


def read_sets(folders: list[Path]) -> UtteranceTable:
    """Return the utterances of several dump folders."""
    return join_tables([read_data_dir(folder) for folder in folders])


def build_model(config: TrainAsrConfig, *, vocab: int, cmvn_file: Path | None) -> AsrModel:
    """Return the model with weights drawn from `config.train.seed` and its CMVN statistics."""
    torch.manual_seed(config.train.seed)
    model = AsrModel(config.model, vocab=vocab)
    front_end = config.model.front_end
    if front_end.cmvn == "global":
        if cmvn_file is None:
            raise InputError(
                "model.front_end.cmvn is global, but no statistics were given", fix="name --cmvn"
            )
        statistics, features = load_cmvn(cmvn_file)
        if features != front_end.feature_options():
            raise InputError(
                f"statistics are of {features}, the model's features are "
                f"{front_end.feature_options()}",
                where=cmvn_file,
                fix="compute them with this configuration: ./run.sh --stage dump --stop_stage dump",
            )
        model.front_end.cmvn.set_statistics(statistics)
    return model


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
) -> int:
    """Train, or go on training, in `expdir` and return the exit code (0, or 75 to requeue).

    Raises:
        InputError: anything the user can mend, each with its file or key.
    """
    with joined_processes() as processes, contextlib.ExitStack() as held:
        with processes.first_goes_first():
            if processes.is_first:
                held.enter_context(folder_lock(expdir))
            # All that can fail comes before the old experiment is moved or changed.
            config = load_config(config_file, TrainAsrConfig, overrides)
            tokenizer = Tokenizer.load(tokenizer_dir)
            train, dev = read_sets(train_dirs), read_sets(dev_dirs)
            device = pick_device(device_name, local_rank=processes.local_rank)
            use_fast_matmul(device)
            if config.train.threads is not None:
                torch.set_num_threads(config.train.threads)
            model = build_model(config, vocab=tokenizer.vocab, cmvn_file=cmvn_file)
            train_loader, dev_loader = build_loaders(config, train, dev, tokenizer)
            trainer = Trainer(
                model,
                config.train,
                train_loader=train_loader,
                dev_loader=dev_loader,
                folder=expdir,
                device=device,
                processes=processes,
            )
            parameters = sum(p.numel() for p in model.parameters())
            if processes.is_first:
                trainer.check_criterion()
                inputs = _fingerprints(train_dirs, dev_dirs, tokenizer_dir, cmvn_file)
                if fresh:
                    move_aside(expdir)
                open_experiment(expdir, to_plain(config), inputs, command)
                tokenizer.save(expdir / "tokenizer")
                print(f"{expdir}: {parameters / 1e6:.2f} M parameters, {len(train)} utterances")
        done = trainer.run()
        if processes.is_first and not done:
            print(f"{expdir}: saved after update {trainer.state.update}; run again to go on")
        if processes.is_first and done:
            record = training_record(config, trainer, config_file, command, parameters)
            write_text(expdir / "model.json", json.dumps(record, indent=1) + "\n")
    return 0 if done else REQUEUE


def _fingerprints(
    train_dirs: list[Path], dev_dirs: list[Path], tokenizer_dir: Path, cmvn_file: Path | None
) -> dict[str, str | None]:
    """Return a hash of each kind of input; a training goes on only with the same ones."""
    return {
        "train": fingerprint([d / name for d in train_dirs for name in ("wav.scp", "text")]),
        "dev": fingerprint([d / name for d in dev_dirs for name in ("wav.scp", "text")]),
        "tokens": fingerprint(_tokenizer_files(tokenizer_dir)),
        "cmvn": fingerprint([cmvn_file]) if cmvn_file else None,
    }


def training_record(
    config: TrainAsrConfig,
    trainer: Trainer,
    config_file: Path,
    command: list[str],
    parameters: int,
) -> dict:
    """Return what a results table says of a training: length, cost, seed, commit, machine."""
    state, described = trainer.state, environment.describe()
    num_samples = trainer.train_loader.num_samples
    return {
        "config": config_file.name,
        "command": " ".join(["train_asr", *_without_paths(command[3:])]),
        "seed": config.train.seed,
        "updates": state.update,
        "epochs": state.epoch,
        "minutes": round(state.seconds / 60, 2),
        "core_minutes": round(state.core_seconds / 60, 2),
        "audio_hours": round(state.audio_seconds / 3600, 2),
        "batch_seconds": config.data.batch_seconds * config.train.accumulate,
        "train_utterances": len(num_samples),
        "train_hours": round(int(num_samples.sum()) / config.model.front_end.sample_rate / 3600, 3),
        "criterion": config.train.criterion,
        # JSON has no infinity, which stands for a value that was not finite.
        "best": [[value if math.isfinite(value) else None, n] for value, n in state.best],
        "parameters": parameters,
        "processes": trainer.processes.size,
        "threads": torch.get_num_threads(),  # of each process
        "date": time.strftime("%Y-%m-%d"),
        **described,
    }


def _without_paths(arguments: list[str]) -> list[str]:
    """Return the command line with absolute paths cut to what a recipe folder holds of them."""
    return [
        _within_recipe(Path(argument)) if argument.startswith("/") else argument
        for argument in arguments
    ]


def _within_recipe(path: Path) -> str:
    """Return the path from its last folder conf, data, dump or exp on; without one, its last part."""
    places = [i for i, part in enumerate(path.parts) if part in ("conf", "data", "dump", "exp")]
    return "/".join(path.parts[max(places, default=-1) :])


def _tokenizer_files(folder: Path) -> list[Path]:
    """Return the files that decide what a tokenizer does; each type has some of them."""
    return [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
