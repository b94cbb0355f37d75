"""HuBERT pre-training: joins configuration, units, data, model and trainer."""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from espnet_lite.config import check_numbers, from_plain, load_config
from espnet_lite.data.loader import Loader
from espnet_lite.data.utterance_table import UtteranceTable
from espnet_lite.features.frame_grid import FrameGrid
from espnet_lite.models.hubert import HubertConfig, HubertModel
from espnet_lite.models.pretrained import load_pretrained_weights, read_pretrained
from espnet_lite.tasks.training import (
    Training,
    data_fingerprints,
    read_sets,
    run_training,
    set_cmvn,
)
from espnet_lite.train.experiment import fingerprint
from espnet_lite.train.options import TrainOptions
from espnet_lite.units.store import UnitStore


@dataclass(frozen=True)
class PretrainDataOptions:
    """What a batch is made of."""

    batch_seconds: float = 87.5  # padded seconds in a batch; HuBERT: 87.5 on each of 32 GPUs
    crop_seconds: float | None = 15.6  # of a longer utterance a part is taken; null: all of it
    min_seconds: float = 2.0  # shorter utterances are left out
    max_batch_utterances: int = 256

    def __post_init__(self):
        check_numbers(self, "batch_seconds crop_seconds", above=0)
        check_numbers(self, "min_seconds", at_least=0)
        check_numbers(self, "max_batch_utterances", at_least=1)


@dataclass(frozen=True)
class PretrainConfig:
    """Schema of conf/pretrain*.yaml."""

    model: HubertConfig = field(default_factory=HubertConfig)
    data: PretrainDataOptions = field(default_factory=PretrainDataOptions)
    train: TrainOptions = field(default_factory=TrainOptions)


def build_loaders(
    config: PretrainConfig,
    train: UtteranceTable,
    dev: UtteranceTable,
    *,
    units: UnitStore,
    grid: FrameGrid,
) -> tuple[Loader, Loader]:
    """Return the shuffled training loader and the validation loader, both with units at the frames
    of `grid`; the validation's utterances are cropped at places that stay."""
    loaders = []
    for utterances, shuffle in ((train, True), (dev, False)):
        loaders.append(
            Loader(
                utterances,
                None,
                sample_rate=config.model.front_end.sample_rate,
                batch_seconds=config.data.batch_seconds,
                seed=config.train.seed if shuffle else 0,
                shuffle=shuffle,
                crop_seconds=config.data.crop_seconds,
                min_seconds=config.data.min_seconds,
                max_batch_utterances=config.data.max_batch_utterances,
                targets=units.targets(grid),
            )
        )
    return loaders[0], loaders[1]


def train_hubert(
    *,
    config_file: Path,
    overrides: list[str],
    train_dirs: list[Path],
    dev_dirs: list[Path],
    units_dir: Path,
    cmvn_file: Path | None,
    initial: Path | None,
    expdir: Path,
    fresh: bool,
    device_name: str,
    command: list[str],
) -> int:
    """Pre-train, or go on, in `expdir` and return the exit code (0, or 75 to requeue).

    Raises:
        InputError: anything the user can mend, each with its file or key.
    """

    def prepare() -> Training:
        config = load_config(config_file, PretrainConfig, overrides)
        units = UnitStore(units_dir)
        torch.manual_seed(config.train.seed)
        model = HubertModel(config.model, clusters=units.clusters)
        if initial is None:
            set_cmvn(model.front_end, config.model.front_end, cmvn_file=cmvn_file)
        else:
            weights, plain = read_pretrained(initial)
            load_pretrained_weights(model, weights, where=initial, pretrained_config=plain)
        train_loader, dev_loader = build_loaders(
            config,
            read_sets(train_dirs, need_text=False),
            read_sets(dev_dirs, need_text=False),
            units=units,
            grid=model.front_end.grid,
        )
        inputs = data_fingerprints(train_dirs, dev_dirs, tables=("wav.scp",))
        inputs["units"] = units.identity
        inputs["cmvn"] = fingerprint([cmvn_file]) if cmvn_file else None
        return Training(
            config=config,
            model=model,
            train_loader=train_loader,
            dev_loader=dev_loader,
            inputs=inputs,
            save_beside=None,
            facts={"clusters": units.clusters, "units": units.description},
        )

    return run_training(
        prepare,
        expdir=expdir,
        config_file=config_file,
        fresh=fresh,
        device_name=device_name,
        command=command,
    )


def load_pretrained(path: Path) -> HubertModel:
    """Return front end and encoder of a pre-training, in eval mode; the head of units is not read.

    Args:
        path: experiment folder, or the one file of a published encoder.

    Raises:
        InputError: no such pre-training, or its weights do not fit its configuration.
    """
    weights, plain = read_pretrained(path)
    parts = {name: plain[name] for name in ("front_end", "encoder")}
    model = HubertModel(from_plain(HubertConfig, parts, where=path), clusters=1)
    load_pretrained_weights(model, weights, where=path, pretrained_config=plain)
    return model.eval()
