"""HuBERT pre-training: joins configuration, units, data, model and trainer."""

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from espnet_lite.config import check_numbers, from_plain, load_config
from espnet_lite.data.loader import Loader
from espnet_lite.data.utterance_table import UtteranceTable
from espnet_lite.errors import InputError
from espnet_lite.features.frame_grid import FrameGrid
from espnet_lite.models.hubert import HubertConfig, HubertModel
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
        if self.crop_seconds is not None and self.crop_seconds < self.min_seconds:
            raise ValueError(
                f"crop_seconds {self.crop_seconds} are less than min_seconds {self.min_seconds}, so"
                " that every utterance is too short"
            )


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
    of `grid`; the validation's utterances are cropped at places that stay.

    Raises:
        InputError: nothing is long enough, something is too short to be masked, or the units are of
            other data.
    """
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
        _check_spans(loaders[-1], config, grid)
        loaders[-1].check_targets()
    return loaders[0], loaders[1]


def _check_spans(loader: Loader, config: PretrainConfig, grid: FrameGrid) -> None:
    """Refuse an utterance of fewer frames than a masked span: a batch of such ones teaches nothing."""
    used = np.flatnonzero(loader.long_enough())
    shortest = int(used[loader.num_samples[used].argmin()])
    frames = grid.num_frames(int(loader.num_samples[shortest]))
    mask = config.model.mask
    span = mask.span_frames(grid.frame_ms)
    if frames < span:
        enough = (grid.window_samples + (span - 1) * grid.shift_samples) / grid.sample_rate
        raise InputError(
            f"utterance '{loader.utterances[shortest].id}' has {frames} frames, of which no span of "
            f"{span} ({mask.span_ms:g} ms) can be masked",
            where="data.min_seconds",
            fix=f"set it to {math.ceil(1000 * enough) / 1000:g} or more, or lower model.mask.span_ms",
        )


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
            if "mask_embedding" in weights:
                model.mask_embedding.data.copy_(weights["mask_embedding"])
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
        facts = {"clusters": units.clusters, "units": units.description}
        if initial is not None:
            inputs["init"] = fingerprint([weights_file(initial)])
            facts["pretrained"] = pretraining_record(initial)
        return Training(
            config=config,
            model=model,
            train_loader=train_loader,
            dev_loader=dev_loader,
            inputs=inputs,
            save_beside=None,
            facts=facts,
            tag_option="--pretrain_tag",
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
