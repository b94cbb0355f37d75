"""Twelve short clips of noise, a recognizer of 3,000 parameters and a trainer of both."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import soundfile
import torch

from espnet_lite.config import from_plain
from espnet_lite.data.loader import Loader
from espnet_lite.data.utterance import Utterance
from espnet_lite.encoders.front_end import LogMelConfig, SpecAugmentConfig
from espnet_lite.encoders.transformer import TransformerConfig
from espnet_lite.models.asr import AsrConfig, AsrModel
from espnet_lite.text.tokenizer import Tokenizer, train_tokenizer
from espnet_lite.train.distributed import ALONE
from espnet_lite.train.options import TrainOptions
from espnet_lite.train.trainer import Trainer

TEXTS = ("ab", "ba", "b", "aab", "a", "bb")


@pytest.fixture(autouse=True)
def every_test_puts_back(global_state_is_put_back):
    """Use the fixture of all tests in each of this folder."""


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer("char", TEXTS)


@pytest.fixture(scope="session")
def utterances(tmp_path_factory) -> list[Utterance]:
    """Return twelve utterances of 0.25 to 0.6 s."""
    folder = tmp_path_factory.mktemp("audio")
    rows = []
    for i in range(12):
        samples = np.random.default_rng(i).normal(scale=0.1, size=4000 + 500 * i)
        soundfile.write(folder / f"utt{i:02}.wav", samples, 16000, subtype="PCM_16")
        rows.append(
            Utterance(
                id=f"utt{i:02}",
                audio=str(folder / f"utt{i:02}.wav"),
                start_seconds=None,
                end_seconds=None,
                text=TEXTS[i % len(TEXTS)],
                speaker="spk",
                num_samples=samples.size,
            )
        )
    return rows


@pytest.fixture
def make_loader(utterances, tokenizer) -> Callable[..., Loader]:
    """Return a function that makes a loader of some utterances."""

    def make(rows: Sequence[int] = range(8), *, seconds: float = 1.2, shuffle: bool = True):
        return Loader(
            [utterances[row] for row in rows],
            tokenizer,
            sample_rate=16000,
            batch_seconds=seconds,
            seed=5,
            shuffle=shuffle,
            speed_factors=(0.9, 1.0, 1.1) if shuffle else (1.0,),
            prefetch_batches=2,
        )

    return make


@pytest.fixture
def make_model(tokenizer) -> Callable[..., AsrModel]:
    """Return a function that makes the recognizer."""

    def make(*, seed: int = 0, dropout: float = 0.1, masks: int = 2) -> AsrModel:
        torch.manual_seed(seed)
        front_end = LogMelConfig(
            num_mels=20,
            channels=3,
            cmvn="utterance",
            spec_augment=SpecAugmentConfig(frequency_masks=masks, time_masks=masks),
        )
        encoder = TransformerConfig(dim=16, layers=1, heads=2, feed_forward=16, dropout=dropout)
        return AsrModel(AsrConfig(front_end=front_end, encoder=encoder), vocab=tokenizer.vocab)

    return make


@pytest.fixture
def make_trainer(make_model, make_loader, tmp_path) -> Callable[..., Trainer]:
    """Return a function that makes a trainer in `tmp_path / name`; keywords are train options."""

    def make(
        name: str = "exp", *, model=None, train_loader=None, processes=ALONE, **options
    ) -> Trainer:
        folder = tmp_path / name
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        plain = {
            "updates": 6,
            "log_every": 2,
            "validate_every": 3,
            "save_every": 3,
            "average_best": 2,
            "precision": "fp32",
            "optimizer": {"name": "adamw", "lr": 0.01},
            "schedule": {"name": "warmup_cosine", "warmup_updates": 2},
            **options,
        }
        return Trainer(
            model or make_model(),
            from_plain(TrainOptions, plain),
            train_loader=train_loader or make_loader(),
            dev_loader=make_loader(range(8, 12), shuffle=False),
            folder=folder,
            device=torch.device("cpu"),
            processes=processes,
        )

    return make
