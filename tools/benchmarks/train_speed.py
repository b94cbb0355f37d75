#!/usr/bin/env python
"""Training speed: our trainer against plain torch at its defaults, on the same model and loader.

    python tools/benchmarks/train_speed.py [--task asr] [--peer default same_blocks] [--threads 2]

The model is the default encoder: 12 blocks of 256, feed-forward 1024, dropout 0.1, log-mel subsampled
by 64 channels to 40 ms; as a recognizer (--task asr) with a CTC head of 500 tokens, or in HuBERT
pre-training (--task hubert) with a cosine head of 500 units. Batches of 8 utterances of 10 s are read from FLAC files, made
for the run, by the loader's thread; nothing is kept in memory. Sides:

    ours         the trainer's update: bf16 autocast where the processor computes in bf16, "medium"
                 products, our dropout and attention
    default      plain torch: fp32, default precision of products, nn.Dropout,
                 scaled_dot_product_attention, clip_grad_norm_, AdamW as torch makes it
    same_blocks  the same, with our dropout and attention

Sides take turns of a few steps, so that a disturbance meets all of them; the first step of a turn is
not timed, because its loader starts from nothing. Medians over all timed steps. One process: what is
set for all of it (threads, allocator) holds for every side.

With --task hubert a second table follows: what masking and loss (forward and backward) are of a step.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import reports_input_errors

SAMPLE_RATE = 16000
VOCAB = 500
TOKENS = 40  # of an utterance
CLIP = 5.0
PEERS = ("default", "same_blocks")
TASKS = ("asr", "hubert")
CLUSTERS = 500


class NumberTokenizer:
    """Texts are token ids parted by spaces."""

    def encode(self, text: str) -> list[int]:
        """Return the ids."""
        return [int(word) for word in text.split()]


class RandomUnits:
    """Units of no meaning, for the loader."""

    def __init__(self, grid):
        self.grid = grid

    def units_for(self, utterance, *, num_samples, start_samples, part_samples):
        """Return a unit for every frame of the model."""
        import numpy as np

        random = np.random.default_rng(int(utterance))
        return random.integers(CLUSTERS, size=self.grid.num_frames(part_samples))


@dataclass
class Side:
    """One way to train: a step on a batch, what to set before a turn, and its clock."""

    step: Callable[[Iterator], None]  # takes its batch from the iterator
    prepare: Callable[[], None]
    loader: object
    epoch: int = 0
    step_seconds: list[float] = field(default_factory=list)
    wait_seconds: float = 0.0  # of the timed steps
    audio_seconds: float = 0.0  # of the timed steps

    def turn(self, steps: int) -> None:
        """Do one untimed step and then `steps` timed ones, on the batches of a new epoch."""
        self.prepare()
        batches = TimedBatches(self.loader.batches(self.epoch))
        self.epoch += 1
        self.step(batches)
        batches.wait_seconds = batches.audio_seconds = 0.0
        for _ in range(steps):
            started = time.perf_counter()
            self.step(batches)
            self.step_seconds.append(time.perf_counter() - started)
        self.wait_seconds += batches.wait_seconds
        self.audio_seconds += batches.audio_seconds
        batches.close()

    @property
    def speed(self) -> float:
        """Audio seconds a second, from the median step."""
        steps = len(self.step_seconds)
        return self.audio_seconds / steps / statistics.median(self.step_seconds)

    @property
    def wait_percent(self) -> float:
        """Part of the time that a step waited for its batch."""
        return 100 * self.wait_seconds / sum(self.step_seconds)


class TimedBatches:
    """An iterator of batches that counts the time spent waiting and the audio taken."""

    def __init__(self, batches: Iterator):
        self.batches = batches
        self.wait_seconds = 0.0
        self.audio_seconds = 0.0

    def __iter__(self) -> "TimedBatches":
        return self

    def __next__(self):
        asked = time.perf_counter()
        batch = next(self.batches)
        self.wait_seconds += time.perf_counter() - asked
        self.audio_seconds += batch.audio_seconds(SAMPLE_RATE)
        return batch

    def close(self) -> None:
        """Stop the reading thread."""
        self.batches.close()


def make_corpus(folder: Path, *, utterances: int, seconds: float) -> list:
    """Write buzzing noise as FLAC files and return their utterances."""
    import numpy as np
    import soundfile

    from espnet_lite.data.utterance import Utterance

    random = np.random.default_rng(0)
    samples = round(seconds * SAMPLE_RATE)
    clock = np.arange(samples) / SAMPLE_RATE
    made = []
    for number in range(utterances):
        pitch_hz = random.uniform(90, 220)
        waveform = 0.01 * random.standard_normal(samples)
        for harmonic in range(1, 12):
            waveform += 0.1 / harmonic * np.sin(2 * np.pi * harmonic * pitch_hz * clock)
        path = folder / f"{number:04}.flac"
        soundfile.write(path, waveform, SAMPLE_RATE, subtype="PCM_16")
        text = " ".join(str(token) for token in random.integers(2, VOCAB - 1, TOKENS))
        made.append(
            Utterance(
                id=f"{number:04}",
                audio=str(path),
                start_seconds=None,
                end_seconds=None,
                text=text,
                speaker="noise",
                num_samples=samples,
            )
        )
    return made


def make_loader(utterances: list, *, task: str, batch_seconds: float):
    """Return a loader that decodes every utterance every time."""
    from espnet_lite.data.loader import Loader

    return Loader(
        utterances,
        NumberTokenizer() if task == "asr" else None,
        targets=RandomUnits(make_model(task).front_end.grid) if task == "hubert" else None,
        sample_rate=SAMPLE_RATE,
        batch_seconds=batch_seconds,
        seed=1,
        cache_gigabytes=0.0,
    )


def make_model(task: str):
    """Return the default recognizer with a CTC head, or the default HuBERT."""
    import torch

    from espnet_lite.encoders.front_end import LogMelConfig, SpecAugmentConfig
    from espnet_lite.models.asr import AsrConfig, AsrModel
    from espnet_lite.models.hubert import HubertConfig, HubertModel

    torch.manual_seed(0)
    if task == "asr":
        return AsrModel(AsrConfig(), vocab=VOCAB)
    front_end = LogMelConfig(spec_augment=SpecAugmentConfig(frequency_masks=0, time_masks=0))
    return HubertModel(HubertConfig(front_end=front_end), clusters=CLUSTERS)


def ours(task: str, loader, folder: Path) -> Side:
    """Return the project's trainer at its defaults."""
    import torch

    from espnet_lite.numerics import use_fast_matmul
    from espnet_lite.train.options import TrainOptions
    from espnet_lite.train.trainer import Trainer

    device = torch.device("cpu")
    trainer = Trainer(
        make_model(task),
        TrainOptions(clip=CLIP),
        train_loader=loader,
        dev_loader=loader,
        folder=folder,
        device=device,
    )
    trainer.model.train()
    return Side(trainer._update, lambda: use_fast_matmul(device), loader)


def plain_torch(task: str, loader, *, same_blocks: bool) -> Side:
    """Return a loop as torch's tutorials write it, everything at its default."""
    import torch

    model = make_model(task)
    if not same_blocks:
        use_torch_blocks(model)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters())

    def step(batches: Iterator) -> None:
        loss = model(next(batches))
        (loss.total / loss.count).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()

    return Side(step, lambda: torch.set_float32_matmul_precision("highest"), loader)


def use_torch_blocks(model) -> None:
    """Replace our dropout and our product of attention by torch's."""
    from torch import nn
    from torch.nn.functional import scaled_dot_product_attention

    from espnet_lite.nn.attention import DotProductAttention
    from espnet_lite.nn.dropout import Dropout

    class TorchAttention(nn.Module):
        def forward(self, query, key, value, mask=None):
            return scaled_dot_product_attention(query, key, value, attn_mask=mask)

    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Dropout):
                setattr(module, name, nn.Dropout(child.p))
            elif isinstance(child, DotProductAttention):
                setattr(module, name, TorchAttention())


def show(sides: dict[str, Side], *, batch_seconds: float, threads: int) -> None:
    """Print the table; the ratio of a peer is ours over its speed."""
    from espnet_lite.environment import describe

    machine = describe()
    print(
        f"batches of {batch_seconds:g} s; {machine['cpu']}, {threads} of {machine['cores']} cores, "
        f"torch {machine['torch']}, commit {machine['commit'] or 'none'}"
    )
    print("| training step | s/step (fastest) | audio-s/s | ours is x | data-wait % |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, side in sides.items():
        ratio = sides["ours"].speed / side.speed
        print(
            f"| {name} | {statistics.median(side.step_seconds):.3f} ({min(side.step_seconds):.3f})"
            f" | {side.speed:.0f} | {ratio:.2f} | {side.wait_percent:.1f} |"
        )


def show_parts(loader, *, step_seconds: float, repeats: int = 20) -> None:
    """Print what masking and loss take of a pre-training step of `step_seconds`."""
    import torch

    from espnet_lite.encoders.output import EncoderOutput
    from espnet_lite.nn.masks import valid_mask
    from espnet_lite.numerics import use_fast_matmul

    use_fast_matmul(torch.device("cpu"))
    model = make_model("hubert").train()
    batch = next(loader.batches(0))
    lengths = model.front_end.grid.num_frames(batch.waveform_lengths)
    size = int(lengths.max())
    encoded = torch.randn(len(lengths), size, model.encoder.dim, requires_grad=True)
    masking, losing = [], []
    for repeat in range(repeats):
        started = time.perf_counter()
        hidden = model._hide(lengths, size, torch.Generator().manual_seed(repeat))
        torch.where(hidden[..., None], model.mask_embedding, encoded.detach())
        masked = time.perf_counter()
        seen = valid_mask(lengths, size) & ~hidden
        output = EncoderOutput(encoded, lengths)
        loss, _ = model._predict(output, batch.units, hidden=hidden, seen=seen)
        loss.backward()
        losing.append(time.perf_counter() - masked)
        masking.append(masked - started)
    print("\n| part of ours | ms | % of a step |\n| --- | ---: | ---: |")
    for name, seconds in (("masking", masking), ("loss, forward and backward", losing)):
        median = statistics.median(seconds)
        print(f"| {name} | {1000 * median:.2f} | {100 * median / step_seconds:.1f} |")


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--task", choices=TASKS, default="asr")
    arguments.add_argument("--peer", nargs="+", choices=PEERS, default=list(PEERS))
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--rounds", type=int, default=5, help="turns of each side")
    arguments.add_argument("--steps", type=int, default=4, help="timed steps of a turn")
    arguments.add_argument("--batch_utterances", type=int, default=8)
    arguments.add_argument("--seconds", type=float, default=10.0, help="of an utterance")
    args = arguments.parse_args(argv)

    import torch

    torch.set_num_threads(args.threads)
    batch_seconds = args.batch_utterances * args.seconds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        utterances = make_corpus(
            folder, utterances=args.batch_utterances * (args.steps + 1), seconds=args.seconds
        )

        def loader():
            return make_loader(utterances, task=args.task, batch_seconds=batch_seconds)

        sides = {"ours": ours(args.task, loader(), folder)}
        for peer in args.peer:
            sides[peer] = plain_torch(args.task, loader(), same_blocks=peer == "same_blocks")
        for side in sides.values():  # first steps allocate, and oneDNN makes its primitives
            side.turn(1)
            side.step_seconds, side.wait_seconds, side.audio_seconds = [], 0.0, 0.0
        for _ in range(args.rounds):
            for side in sides.values():
                side.turn(args.steps)
        show(sides, batch_seconds=batch_seconds, threads=args.threads)
        if args.task == "hubert":
            show_parts(loader(), step_seconds=statistics.median(sides["ours"].step_seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
