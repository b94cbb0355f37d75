"""Global CMVN statistics of a front end's features over a training set."""

from pathlib import Path

import torch

from espnet_lite.config import build_class
from espnet_lite.data.data_dir import read_data_dir
from espnet_lite.data.loader import Loader
from espnet_lite.data.utterance_table import join_tables
from espnet_lite.encoders.front_end import FRONT_ENDS
from espnet_lite.features.cmvn import CmvnAccumulator, CmvnStatistics, save_cmvn

BATCH_SECONDS = 200.0


@torch.inference_mode()
def compute_cmvn(folders: list[Path], front_end_config, *, output: Path) -> CmvnStatistics:
    """Write and return the sums over every frame of `folders`, without augmentation.

    Raises:
        InputError: an audio file that cannot be read, or no frame at all.
    """
    utterances = join_tables([read_data_dir(folder, need_text=False) for folder in folders])
    front_end = build_class(FRONT_ENDS, front_end_config)(front_end_config, dim=1).eval()
    loader = Loader(
        utterances,
        None,
        sample_rate=front_end_config.sample_rate,
        batch_seconds=BATCH_SECONDS,
        seed=0,
        shuffle=False,
    )
    sums = None
    for batch in loader.batches(0):
        features, lengths = front_end.features(batch.waveform, batch.waveform_lengths)
        sums = sums or CmvnAccumulator(features.size(2))
        sums.add(features, lengths)
    sums = sums or CmvnAccumulator(1)
    statistics = sums.statistics()
    save_cmvn(output, statistics, front_end_config.feature_options())
    return statistics
