"""Two processes that share each update against one process with twice the batch: curve and speed.

Usage: python tools/benchmarks/data_parallel.py [--updates 20] [--dim 144] [--layers 4]

Three trainings of the same recognizer on the same utterances (noise, 2 to 8 s), fp32, without dropout and
masks: one process whose batch joins two batches of 20 s, one process that takes the two in turn
(`accumulate: 2`), and two processes that take one each. Every process has one thread. The columns are the
largest relative difference from the first curve, of the loss and of the gradient's norm, and the
speed of the whole training.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

SIDES = {
    "one process, a batch of 40 s": ("joined", 1),
    "one process, two batches of 20 s": ("parts", 1),
    "two processes, a batch of 20 s each": ("parts", 2),
}
CLIPS = 240
BATCH_SECONDS = 20
MEASURED = ("loss", "gradient_norm")
BOUND = 1e-4


def make_corpus(folder: Path) -> None:
    """Write a dump folder of noise with letters for transcripts."""
    import numpy as np
    import soundfile

    random = np.random.default_rng(0)
    tables = {"wav.scp": "", "text": "", "utt2spk": "", "utt2num_samples": ""}
    for number in range(CLIPS):
        key, size = f"clip{number:03}", int(random.integers(2 * 16000, 8 * 16000))
        samples = random.normal(scale=0.1, size=size)
        soundfile.write(folder / f"{key}.flac", samples, 16000, subtype="PCM_16")
        letters = "".join(random.choice(list("abcdef "), size=size // 4000)).strip()
        tables["wav.scp"] += f"{key} {folder / key}.flac\n"
        tables["text"] += f"{key} {' '.join(letters.split()) or 'a'}\n"
        tables["utt2spk"] += f"{key} {key}\n"
        tables["utt2num_samples"] += f"{key} {size}\n"
    for name, text in tables.items():
        (folder / name).write_text(text)


class Joined:
    """A loader whose batches are each two of another loader's."""

    def __init__(self, loader):
        self.loader = loader
        self.sample_rate = loader.sample_rate
        self.num_samples = loader.num_samples

    def num_batches(self, epoch: int) -> int:
        """Return half the number of the parts."""
        return self.loader.num_batches(epoch) // 2

    def batches(self, epoch: int, *, start: int = 0, step: int = 1):
        """Yield the batches of an epoch, one process's."""
        parts = self.loader.batches(epoch, start=2 * start)
        yield from (joined(first, second) for first, second in zip(parts, parts, strict=False))


def joined(first, second):
    """Return one batch with the rows of two."""
    from espnet_lite.data.utterance import TOKEN_PADDING, Batch

    return Batch(
        ids=first.ids + second.ids,
        waveform=stacked(first.waveform, second.waveform, 0.0),
        waveform_lengths=both(first.waveform_lengths, second.waveform_lengths),
        tokens=stacked(first.tokens, second.tokens, TOKEN_PADDING),
        token_lengths=both(first.token_lengths, second.token_lengths),
        seed=first.seed,
    )


def both(first, second):
    """Return the values of one vector behind those of another."""
    import torch

    return torch.cat([first, second])


def stacked(first, second, padding: float):
    """Return the rows of two padded tensors, the shorter ones padded further."""
    from torch.nn.functional import pad

    width = max(first.size(1), second.size(1))
    return both(*(pad(x, (0, width - x.size(1)), value=padding) for x in (first, second)))


def train(corpus: Path, folder: Path, *, side: str, updates: int, dim: int, layers: int) -> None:
    """Train in `folder`; the log of the training is what is compared."""
    import torch

    from espnet_lite.config import from_plain
    from espnet_lite.numerics import use_fast_matmul
    from espnet_lite.tasks.asr import TrainAsrConfig, build_loaders, build_model, read_sets
    from espnet_lite.text.tokenizer import train_tokenizer
    from espnet_lite.train.distributed import joined_processes
    from espnet_lite.train.trainer import Trainer

    encoder = {"dim": dim, "layers": layers, "feed_forward": 4 * dim, "dropout": 0.0}
    no_masks = {"frequency_masks": 0, "time_masks": 0}
    plain = {
        "model": {
            "encoder": encoder,
            "front_end": {"cmvn": "utterance", "spec_augment": no_masks},
        },
        "data": {"batch_seconds": BATCH_SECONDS, "speed_factors": [1.0]},
        "train": {
            "updates": updates,
            "precision": "fp32",
            "log_every": 1,
            "threads": 1,
            "validate_every": updates,
            "save_every": updates,
            "accumulate": 1 if side == "joined" else 2,
            "schedule": {"name": "warmup_cosine", "warmup_updates": 5},
        },
    }
    config = from_plain(TrainAsrConfig, plain)
    torch.set_num_threads(1)
    use_fast_matmul(torch.device("cpu"))
    utterances = read_sets([corpus])
    tokenizer = train_tokenizer("char", ["abcdef a"])
    loader, dev_loader = build_loaders(config, utterances, utterances[:8], tokenizer)
    with joined_processes() as processes:
        trainer = Trainer(
            build_model(config, vocab=tokenizer.vocab, cmvn_file=None),
            config.train,
            train_loader=Joined(loader) if side == "joined" else loader,
            dev_loader=dev_loader,
            folder=folder,
            device=torch.device("cpu"),
            processes=processes,
        )
        trainer.run()


def curve(folder: Path) -> list[dict]:
    """Return the training entries of a log."""
    entries = map(json.loads, (folder / "train.jsonl").read_text().splitlines())
    return [entry for entry in entries if entry["kind"] == "train"]


def difference(first: list[dict], second: list[dict], key: str) -> float:
    """Return the largest relative difference of a value over two curves."""
    pairs = zip(first, second, strict=True)
    return max(abs(a[key] - b[key]) / abs(a[key]) for a, b in pairs)


def compare(arguments: list[str], root: Path) -> float:
    """Run the three trainings, print the table and return the largest difference."""
    from espnet_lite.train.launch import run_together

    corpus = root / "corpus"
    corpus.mkdir()
    make_corpus(corpus)
    os.environ["OMP_NUM_THREADS"] = "1"
    curves, seconds = {}, {}
    for name, (side, processes) in SIDES.items():
        folder = root / f"{side}_{processes}"
        (folder / "checkpoints").mkdir(parents=True)
        words = [sys.executable, __file__, *arguments, "--train", side, str(corpus), str(folder)]
        begun = time.perf_counter()
        if processes == 1:
            subprocess.run(words, check=True, stderr=subprocess.DEVNULL)
        elif run_together(words, processes=processes):
            raise SystemExit("the two processes failed")
        seconds[name] = time.perf_counter() - begun
        curves[name] = curve(folder)
    first = next(iter(curves.values()))
    print(f"Python {platform.python_version()}, {platform.machine()}, {len(first)} updates")
    print("| training | loss differs by | gradient norm | audio-s/s | seconds, start included |")
    print("| --- | ---: | ---: | ---: | ---: |")
    worst = 0.0
    for name, entries in curves.items():
        loss, norm = (difference(first, entries, key) for key in MEASURED)
        worst = max(worst, loss)
        later = entries[len(entries) // 4 :]  # without the first updates, which warm things up
        speed = len(later) / sum(1 / entry["audio_seconds_per_second"] for entry in later)
        print(f"| {name} | {loss:.1e} | {norm:.1e} | {speed:.0f} | {seconds[name]:.1f} |")
    return worst


def main() -> int:
    """Print the table; return 1 when a loss differs by more than the bound."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--dim", type=int, default=144)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--train", nargs=3, metavar=("SIDE", "CORPUS", "FOLDER"), help="(internal)")
    args = parser.parse_args()
    if args.train:
        side, corpus, folder = args.train
        sizes = {"updates": args.updates, "dim": args.dim, "layers": args.layers}
        train(Path(corpus), Path(folder), side=side, **sizes)
        return 0
    arguments = [f"--{key}={vars(args)[key]}" for key in ("updates", "dim", "layers")]
    with tempfile.TemporaryDirectory() as root:
        worst = compare(arguments, Path(root))
    print(f"largest difference of a loss: {worst:.1e}, bound {BOUND:.0e}")
    return 1 if worst > BOUND else 0


if __name__ == "__main__":
    sys.exit(main())
