#!/usr/bin/env python
"""Speed of the encoders: ours against ESPnet's and torch's classes, one forward pass or training step.

    python tools/benchmarks/encoder_speed.py --peer_python PYTHON [--task inference training]

PYTHON is that of an environment with ESPnet (tools/setup_peers.sh). It runs in a process of its own,
and the two take turns of a few passes, so that a disturbance meets both. Everything is subsampled
by the two 3×3 convolutions of 256 channels to 40 ms, from random features of 80 mels, and has 12 blocks of
256, 4 heads, feed-forward 1024 and a kernel of 31.

inference: one utterance, in evaluation mode, fp32. ESPnet's ConformerEncoder at torch's default
settings; our Conformer with the same weights, set as our programs set it (espnet_lite.numerics).
The outputs are compared.

training: forward, backward and AdamW on a batch of utterances, dropout 0.1, mean square of the output
as the loss, at one --precision for all. Peers: ESPnet's Conformer and Transformer, and torch's
TransformerEncoder behind our subsampling. A row's ratio is against its fastest peer; neither has a
class of Squeezeformer or Sparseformer, which are held against the nearest.
"""

import contextlib
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import InputError, reports_input_errors

TASKS = ("inference", "training")
MELS, DIM, LAYERS, HEADS, FEED_FORWARD, KERNEL = 80, 256, 12, 4, 1024, 31
FRAMES_PER_SECOND = 100
# Encoder → the peers it is held against.
PEERS_OF = {
    "transformer": ("espnet transformer", "torch transformer"),
    "conformer": ("espnet conformer",),
    "squeezeformer": ("espnet conformer",),
    "sparseformer": ("espnet transformer", "torch transformer"),
}
LARGEST_DIFFERENCE = 1e-4


def make_features(seconds: float, *, utterances: int = 1):
    """Return random features and their lengths."""
    import torch

    frames = round(seconds * FRAMES_PER_SECOND)
    features = torch.randn(utterances, frames, MELS, generator=torch.Generator().manual_seed(0))
    return features, torch.full((utterances,), frames)


def timed(call: Callable[[], object], passes: int) -> list[float]:
    """Return the milliseconds of each pass after one that is not timed."""
    call()
    times = []
    for _ in range(passes):
        started = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - started))
    return times


def training_step(module, encode: Callable[[], object], *, precision: str) -> Callable[[], object]:
    """Return a function that trains `module` for one step."""
    import torch

    module.train()
    optimizer = torch.optim.AdamW(module.parameters(), fused=True)

    def step() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            encoded = encode()
        encoded.float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


# ---- The peer's process: nothing of this project is imported there but the command line's.


def make_espnet(name: str):
    """Return ESPnet's encoder of that name at 12 × 256."""
    import torch
    from espnet2.asr.encoder.conformer_encoder import ConformerEncoder
    from espnet2.asr.encoder.transformer_encoder import TransformerEncoder

    torch.manual_seed(0)
    numbers = {
        "input_size": MELS,
        "output_size": DIM,
        "attention_heads": HEADS,
        "linear_units": FEED_FORWARD,
        "num_blocks": LAYERS,
        "input_layer": "conv2d",
    }
    if name == "espnet transformer":
        return TransformerEncoder(**numbers, use_flash_attn=False)
    return ConformerEncoder(
        **numbers, macaron_style=True, rel_pos_type="latest", cnn_module_kernel=KERNEL
    )


def serve(folder: Path, threads: int) -> None:
    """Answer each line of stdin, a JSON mapping, with a line of milliseconds on stdout."""
    import torch
    from safetensors.torch import save_file

    torch.set_num_threads(threads)
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries print too
    conformer = make_espnet("espnet conformer").eval()
    save_file(conformer.state_dict(), folder / "weights.safetensors")
    steps = {}
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["task"] == "inference":
            features, lengths = make_features(asked["seconds"])
            with torch.inference_mode():
                times = timed(lambda: conformer(features, lengths), asked["passes"])  # noqa: B023
                encoded = conformer(features, lengths)[0]
            save_file({"encoded": encoded}, folder / f"encoded_{asked['seconds']:g}.safetensors")
        else:
            name = asked["name"]
            if name not in steps:
                batch = make_features(asked["seconds"], utterances=asked["utterances"])
                encoder = make_espnet(name)
                steps[name] = training_step(
                    encoder,
                    lambda encoder=encoder, batch=batch: encoder(*batch)[0],
                    precision=asked["precision"],
                )
            times = timed(steps[name], asked["passes"])
        print(json.dumps(times), file=answers, flush=True)


class PeerProcess:
    """ESPnet in a process of its own that waits for what to time."""

    def __init__(self, python: str, folder: Path, *, threads: int):
        """Start it; its log goes to `folder`/peer.log."""
        self._log = folder / "peer.log"
        command = [python, __file__, "--serve", str(folder), "--threads", str(threads)]
        try:
            with self._log.open("w") as log:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
                )
        except OSError as error:
            raise InputError(f"{python} does not run: {error}", where="--peer_python") from error

    def times(self, **asked: object) -> list[float]:
        """Return the milliseconds of what is asked for.

        Raises:
            InputError: the process has ended; shows the end of its log.
        """
        with contextlib.suppress(BrokenPipeError):  # told below, by the answer that does not come
            print(json.dumps(asked), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            tail = " ".join(self._log.read_text().split("\n")[-3:])
            raise InputError(
                f"the peer's process ended: {tail}",
                where="--peer_python",
                fix="give the Python of tools/setup_peers.sh's environment",
            )
        return json.loads(answer)

    def end(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.wait()


# ---- Our side.


def make_ours(name: str):
    """Return our subsampling and encoder of that name at 12 × 256, as one module."""
    import torch
    from torch import nn

    from espnet_lite.encoders.families import ENCODERS
    from espnet_lite.nn.subsampling import Conv2dSubsampling4

    numbers = {"dim": DIM, "layers": LAYERS, "heads": HEADS, "feed_forward": FEED_FORWARD}
    if name == "squeezeformer":
        numbers |= {"reduce_after": LAYERS // 2 - 1, "recover_after": LAYERS - 1}
    if name in ("conformer", "squeezeformer"):
        numbers |= {"kernel": KERNEL}
    schema, encoder = ENCODERS[name]

    class Ours(nn.Module):
        def __init__(self):
            super().__init__()
            self.subsampling = Conv2dSubsampling4(MELS, DIM, channels=DIM)
            self.encoder = encoder(schema(**numbers))

        def forward(self, features, lengths):
            return self.encoder(*self.subsampling(features, lengths)).encoded

    torch.manual_seed(0)
    return Ours()


def make_torch_transformer():
    """Return torch's own pre-norm encoder behind our subsampling."""
    import torch
    from torch import nn

    from espnet_lite.nn.subsampling import Conv2dSubsampling4

    class Torch(nn.Module):
        def __init__(self):
            super().__init__()
            self.subsampling = Conv2dSubsampling4(MELS, DIM, channels=DIM)
            layer = nn.TransformerEncoderLayer(
                DIM, HEADS, FEED_FORWARD, dropout=0.1, batch_first=True, norm_first=True
            )
            self.encoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)

        def forward(self, features, lengths):
            x, lengths = self.subsampling(features, lengths)
            padding = torch.arange(x.size(1)) >= lengths[:, None]
            return self.encoder(x, src_key_padding_mask=padding)

    torch.manual_seed(0)
    return Torch()


def load_espnet_weights(model, folder: Path) -> None:
    """Give our Conformer the weights of the peer's."""
    from safetensors.torch import load_file

    from espnet_lite.models.espnet_keys import conformer_from_espnet

    state = conformer_from_espnet(load_file(folder / "weights.safetensors"))
    model.load_state_dict({key.removeprefix("front_end."): tensor for key, tensor in state.items()})


def compare_inference(peer: PeerProcess, folder: Path, *, lengths, rounds: int, passes: int):
    """Print the table of one forward pass.

    Raises:
        InputError: an output differs by more than LARGEST_DIFFERENCE.
    """
    import torch
    from safetensors.torch import load_file

    print("| audio s | ESPnet ms (fastest) | ours ms (fastest) | ours is x | largest difference |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    model = None
    for seconds in lengths:
        features, feature_lengths = make_features(seconds)
        ours, theirs = [], []
        for _ in range(rounds):
            theirs += peer.times(task="inference", seconds=seconds, passes=passes)
            if model is None:
                model = make_ours("conformer").eval()
                load_espnet_weights(model, folder)
            with torch.inference_mode():
                ours += timed(lambda: model(features, feature_lengths), passes)  # noqa: B023
        with torch.inference_mode():
            encoded = model(features, feature_lengths)
        expected = load_file(folder / f"encoded_{seconds:g}.safetensors")["encoded"]
        difference = float((encoded - expected).abs().max())
        a, b = statistics.median(theirs), statistics.median(ours)
        print(
            f"| {seconds:g} | {a:.1f} ({min(theirs):.1f}) | {b:.1f} ({min(ours):.1f})"
            f" | {a / b:.2f} | {difference:.1e} |"
        )
        if not math.isfinite(difference) or difference > LARGEST_DIFFERENCE:
            raise InputError(
                f"the outputs differ by {difference:.1e}, more than {LARGEST_DIFFERENCE:g}"
            )


def compare_training(
    peer: PeerProcess, *, seconds: float, utterances: int, precision: str, rounds: int, passes: int
):
    """Print the table of a training step."""
    asked = {"task": "training", "seconds": seconds, "utterances": utterances}
    asked |= {"precision": precision, "passes": passes}
    batch = make_features(seconds, utterances=utterances)
    sides = {}
    for name, make in {
        **{name: lambda name=name: make_ours(name) for name in PEERS_OF},
        "torch transformer": make_torch_transformer,
    }.items():
        model = make()
        step = training_step(model, lambda model=model: model(*batch), precision=precision)
        sides[name] = lambda step=step: timed(step, passes)
    for name in ("espnet conformer", "espnet transformer"):
        sides[name] = lambda name=name: peer.times(**asked, name=name)
    times = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            times[name] += side()
    print(f"\n| training step, {precision} | ms (fastest) | fastest peer | ours is x |")
    print("| --- | ---: | --- | ---: |")
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, median in medians.items():
        shown = f"| {name} | {median:.0f} ({min(times[name]):.0f}) |"
        if name in PEERS_OF:
            best = min(PEERS_OF[name], key=medians.__getitem__)
            print(f"{shown} {best} | {medians[best] / median:.2f} |")
        else:
            print(f"{shown} | |")


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Print the tables."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--peer_python", help="Python of an environment with ESPnet")
    arguments.add_argument("--task", nargs="+", choices=TASKS, default=list(TASKS))
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--rounds", type=int, default=5, help="turns of each side")
    arguments.add_argument("--passes", type=int, default=5, help="timed passes of a turn")
    arguments.add_argument("--seconds", type=float, nargs="+", default=[15.0, 30.0])
    arguments.add_argument("--batch_utterances", type=int, default=8, help="of a training step")
    arguments.add_argument(
        "--batch_seconds", type=float, default=10.0, help="of an utterance of it"
    )
    arguments.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    arguments.add_argument("--serve", type=Path, help="(the peer's process starts so)")
    args = arguments.parse_args(argv)
    if args.serve is not None:
        serve(args.serve, args.threads)
        return 0
    if args.peer_python is None:
        raise InputError("--peer_python is missing", fix="tools/setup_peers.sh makes one")

    import torch

    from espnet_lite.environment import describe
    from espnet_lite.numerics import use_fast_matmul

    torch.set_num_threads(args.threads)
    use_fast_matmul(torch.device("cpu"))
    machine = describe()
    print(
        f"{machine['cpu']}, {args.threads} of {machine['cores']} cores, torch {machine['torch']}, "
        f"commit {machine['commit'] or 'none'}\n"
    )
    with tempfile.TemporaryDirectory() as name:
        peer = PeerProcess(args.peer_python, Path(name), threads=args.threads)
        try:
            turns = {"rounds": args.rounds, "passes": args.passes}
            if "inference" in args.task:
                compare_inference(peer, Path(name), lengths=args.seconds, **turns)
            if "training" in args.task:
                compare_training(
                    peer,
                    seconds=args.batch_seconds,
                    utterances=args.batch_utterances,
                    precision=args.precision,
                    **turns,
                )
        finally:
            peer.end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
