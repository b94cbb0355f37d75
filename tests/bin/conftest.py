"""A corpus of eleven clips, dumped, with tokens, statistics and a configuration to train with."""

import numpy as np
import pytest
import soundfile

from espnet_lite.bin import compute_cmvn
from espnet_lite.text.tokenizer import train_tokenizer

YAML = """\
model:
  front_end: {name: log_mel, num_mels: 20, channels: 3}
  encoder: {name: transformer, dim: 16, layers: 1, heads: 2, feed_forward: 16}
data: {batch_seconds: 1.2}
train:
  updates: 6
  log_every: 2
  validate_every: 3
  save_every: 2
  average_best: 2
  schedule: {name: warmup_cosine, warmup_updates: 2}
"""


@pytest.fixture(autouse=True)
def every_test_puts_back(global_state_is_put_back):
    """Use the fixture of all tests in each of this folder."""


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """Return a folder with dump/train, dump/dev, tokens, conf.yaml and cmvn.safetensors."""
    root = tmp_path_factory.mktemp("corpus")
    texts = ("ab", "ba", "b", "aab")
    for name, count in (("train", 8), ("dev", 3)):
        folder = root / "dump" / name
        folder.mkdir(parents=True)
        tables = {"wav.scp": "", "text": "", "utt2spk": "", "utt2num_samples": ""}
        for i in range(count):
            key, size = f"{name}{i}", 4000 + 600 * i
            samples = np.random.default_rng(i).normal(scale=0.1, size=size)
            soundfile.write(folder / f"{key}.wav", samples, 16000, subtype="PCM_16")
            tables["wav.scp"] += f"{key} {folder / key}.wav\n"
            tables["text"] += f"{key} {texts[i % 4]}\n"
            tables["utt2spk"] += f"{key} {key}\n"
            tables["utt2num_samples"] += f"{key} {size}\n"
        for table, text in tables.items():
            (folder / table).write_text(text)
    train_tokenizer("char", texts).save(root / "tokens")
    (root / "conf.yaml").write_text(YAML)
    arguments = ["--data_dirs", str(root / "dump/train"), "--config", str(root / "conf.yaml")]
    assert compute_cmvn.main([*arguments, "--output", str(root / "cmvn.safetensors")]) == 0
    return root
