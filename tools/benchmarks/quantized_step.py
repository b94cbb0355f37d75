#!/usr/bin/env python
"""A step of quantization-aware training against the step in bf16 of the same model.

    python tools/benchmarks/quantized_step.py [--encoder transformer] [--bits 1,1 1,8 2,8 8,8] [--device cpu]

The model is the encoder's default (12 blocks of 256 for the Transformer) with a CTC head of 500 tokens;
a batch is 8 utterances of 10 s of noise. A step is what the trainer does: forward in bf16 autocast,
backward, clipping, AdamW. The student has no teacher here (training.distillation: null): the teacher's
forward pass comes on top. `bf16` is the plain model's step with its own dropout; students have none, as
conf/quantize_*.yaml train them, and `bf16, no dropout` is the plain model's without.

Sides take turns of a few steps; the first step of a turn is not timed. Memory is measured in a process
of each side's own: what is held for the backward pass, summed over tensors (each storage once), and the
peak of the whole process, Python and torch included; on a GPU the peak of its allocator.
"""

import multiprocessing
import resource
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import reports_input_errors

SAMPLE_RATE = 16000
VOCAB = 500
TOKENS = 40
CLIP = 5.0
PLAIN, NO_DROPOUT = "bf16", "bf16, no dropout"
KINDS = ("attention_linear", "attention_matmul", "feed_forward", "conv_pointwise")
KINDS += ("conv_depthwise",)


def make_batch(utterances: int, seconds: float):
    """Return noise with random tokens."""
    import torch

    from espnet_lite.data.utterance import Batch

    torch.manual_seed(0)
    samples = round(seconds * SAMPLE_RATE)
    return Batch(
        ids=[str(number) for number in range(utterances)],
        waveform=0.1 * torch.randn(utterances, samples),
        waveform_lengths=torch.full((utterances,), samples),
        tokens=torch.randint(2, VOCAB - 1, (utterances, TOKENS)),
        token_lengths=torch.full((utterances,), TOKENS),
        seed=1,
    )


class Side:
    """A model, its optimizer, and the time of its steps."""

    def __init__(self, name: str, encoder: str, batch, device):
        import torch

        from espnet_lite.encoders.families import ENCODERS
        from espnet_lite.models.asr import AsrConfig
        from espnet_lite.nn.dropout import Dropout
        from espnet_lite.quantize.calibration import start_activations
        from espnet_lite.quantize.policy import Rule, quantize_modules
        from espnet_lite.tasks.student import StudentAsr
        from espnet_lite.train.optimizers import AdamWConfig, adamw, parameter_groups

        torch.manual_seed(0)
        config = AsrConfig(encoder=ENCODERS[encoder][0]())
        self.model = StudentAsr(config, vocab=VOCAB)
        if name not in (PLAIN, NO_DROPOUT):
            weight_bits, activation_bits = name[1:].split("A")
            bits = {"weight_bits": float(weight_bits), "activation_bits": int(activation_bits)}
            quantize_modules(self.model, [Rule(kinds=KINDS, **bits)], where="benchmark")
            start_activations(
                self.model,
                lambda: self.model.encode(batch.waveform[:2], batch.waveform_lengths[:2]),
            )
        self.model.prepare(
            teacher=StudentAsr(config, vocab=VOCAB),
            reference=StudentAsr(config, vocab=VOCAB),
            distillation=None,
            dropout=None if name == PLAIN else 0.0,
        )
        self.model.to(device).train()
        if name == PLAIN:
            assert any(m.p > 0 for m in self.model.modules() if isinstance(m, Dropout))
        self.batch = batch.to(device)
        self.optimizer = adamw(AdamWConfig(), parameter_groups(self.model, 0.01))
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.device = device
        self.seconds: list[float] = []

    def step(self) -> None:
        """Do one update."""
        import torch

        torch.manual_seed(1)
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            loss = self.model(self.batch)
        (loss.total / loss.count).backward()
        float(torch.nn.utils.clip_grad_norm_(self.parameters, CLIP, foreach=True))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def turn(self, steps: int) -> None:
        """Do one untimed step and then `steps` timed ones."""
        self.step()
        for _ in range(steps):
            started = time.perf_counter()
            self.step()
            self.seconds.append(time.perf_counter() - started)

    def held_bytes(self) -> int:
        """Return the bytes that autograd holds for the backward pass, parameters left out."""
        import torch

        own = {p.untyped_storage().data_ptr() for p in self.parameters}
        held: dict[int, int] = {}

        def pack(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                held[storage.data_ptr()] = storage.nbytes()
            return tensor

        with (
            torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
            torch.autocast(self.device.type, dtype=torch.bfloat16),
        ):
            self.model(self.batch)
        return sum(held.values())


def measure_memory(name: str, encoder: str, options, queue) -> None:
    """Put (bytes held for the backward pass, peak bytes) of a side into `queue`."""
    import torch

    from espnet_lite.numerics import use_fast_matmul

    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    use_fast_matmul(device)
    side = Side(name, encoder, make_batch(options.batch_utterances, options.seconds), device)
    for _ in range(3):
        side.step()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated()
    queue.put((side.held_bytes(), peak))


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--encoder", default="transformer")
    arguments.add_argument("--bits", nargs="+", default=["1,1", "1,8", "8,8"], metavar="W,A")
    arguments.add_argument("--device", default="cpu")
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--rounds", type=int, default=5, help="turns of each side")
    arguments.add_argument("--steps", type=int, default=4, help="timed steps of a turn")
    arguments.add_argument("--batch_utterances", type=int, default=8)
    arguments.add_argument("--seconds", type=float, default=10.0, help="of an utterance")
    options = arguments.parse_args(argv)
    names = [PLAIN, NO_DROPOUT, *("W{}A{}".format(*bits.split(",")) for bits in options.bits)]

    memory = {}
    context = multiprocessing.get_context("spawn")
    for name in names:
        queue = context.Queue()
        process = context.Process(
            target=measure_memory, args=(name, options.encoder, options, queue)
        )
        process.start()
        memory[name] = queue.get()
        process.join()

    import torch

    from espnet_lite.environment import describe
    from espnet_lite.numerics import use_fast_matmul

    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    use_fast_matmul(device)
    batch = make_batch(options.batch_utterances, options.seconds)
    sides = {name: Side(name, options.encoder, batch, device) for name in names}
    for _ in range(options.rounds):
        for side in sides.values():
            side.turn(options.steps)

    machine = describe()
    print(
        f"{options.encoder}, batches of {options.batch_utterances * options.seconds:g} s, {device}; "
        f"{machine['cpu']}, {options.threads} of {machine['cores']} cores, torch {machine['torch']}, "
        f"commit {machine['commit'] or 'none'}"
    )
    print("| step | s (fastest) | × bf16 | held MiB | × bf16 | peak MiB | × bf16 |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    first = statistics.median(sides[PLAIN].seconds)
    for name, side in sides.items():
        median = statistics.median(side.seconds)
        (held, peak), (plain_held, plain_peak) = memory[name], memory[PLAIN]
        print(
            f"| {name} | {median:.3f} ({min(side.seconds):.3f}) | {median / first:.2f}"
            f" | {held / 2**20:.0f} | {held / plain_held:.2f}"
            f" | {peak / 2**20:.0f} | {peak / plain_peak:.2f} |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
