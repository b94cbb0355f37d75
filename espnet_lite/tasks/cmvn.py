"""Global CMVN statistics of a front end's features over a training set."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from espnet_lite.config import build_class, choice, from_plain, read_overridden
from espnet_lite.data.data_dir import read_data_dir
from espnet_lite.data.loader import Loader
from espnet_lite.data.made_of import audio_digest, content_digests, is_made_of, write_record
from espnet_lite.data.utterance_table import join_tables
from espnet_lite.encoders.front_end import FRONT_ENDS
from espnet_lite.features.cmvn import CmvnAccumulator, CmvnStatistics, save_cmvn

BATCH_SECONDS = 200.0


@dataclass(frozen=True)
class _FrontEnd:
    front_end: object = choice(FRONT_ENDS, "log_mel")


def load_front_end(config_file: Path, overrides: list[str]) -> object:
    """Return model.front_end of the YAML of any training, whatever else stands in it.

    Raises:
        InputError: a front end that is none, or a fault in its section.
    """
    model = read_overridden(config_file, overrides).get("model")
    has_section = isinstance(model, dict) and "front_end" in model
    section = {"front_end": model["front_end"]} if has_section else {}
    return from_plain(_FrontEnd, section, where=config_file).front_end


@torch.inference_mode()
def compute_cmvn(folders: list[Path], front_end_config, *, output: Path) -> CmvnStatistics | None:
    """Write and return the sums over every frame of `folders`, without augmentation.

    For a front end that takes no global statistics an empty file is written, of no frames, so that
    a recipe's stages are the same for every front end.

    Returns:
        The statistics; None where the output has them already, of the same audio and features.

    Raises:
        InputError: an audio file that cannot be read, or no frame at all.
    """
    if front_end_config.cmvn != "global":
        empty = CmvnStatistics(0, torch.zeros(1), torch.zeros(1))
        save_cmvn(output, empty, {"kind": "none"})
        return empty
    made_of = {
        "features": front_end_config.feature_options(),
        "sets": [
            [
                os.path.abspath(folder),
                content_digests(_tables(folder)),
                audio_digest(folder / "wav.scp"),
            ]
            for folder in folders
        ],
    }
    record = output.with_name(f".{output.name}.json")
    if is_made_of(record, made_of):
        return None
    utterances = join_tables([read_data_dir(folder, need_text=False) for folder in folders])
    front_end = build_class(FRONT_ENDS, front_end_config)(front_end_config, dim=1).eval()
    loader = Loader(
        utterances,
        None,
        sample_rate=front_end_config.sample_rate,
        batch_seconds=BATCH_SECONDS,
        seed=0,
        shuffle=False,
        cache_gigabytes=0,  # each utterance is read once
    )
    sums = None
    for batch in loader.batches(0):
        features, lengths = front_end.features(batch.waveform, batch.waveform_lengths)
        sums = sums or CmvnAccumulator(features.size(2))
        sums.add(features, lengths)
    sums = sums or CmvnAccumulator(1)
    statistics = sums.statistics()
    save_cmvn(output, statistics, front_end_config.feature_options())
    write_record(record, made_of, [output])
    return statistics


def _tables(folder: Path) -> list[Path]:
    """Return the tables that say which audio is read."""
    paths = [folder / name for name in ("wav.scp", "segments", "utt2num_samples")]
    return [path for path in paths if path.is_file()]
