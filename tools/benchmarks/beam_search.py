#!/usr/bin/env python
"""Beam searches: ours against ESPnet's BatchBeamSearch and flashlight-text's CTC decoder.

    python tools/benchmarks/beam_search.py --peer_python .venv_peers/bin/python
    python tools/benchmarks/beam_search.py --peer_python PYTHON --parts nbest \\
        --model egs/an4/asr1/models/asr_bpe30_bf16.esp --data_dirs egs/an4/asr1/dump/dev ...
    python tools/benchmarks/beam_search.py --parts ctc --flashlight_python PYTHON

Three parts. `speed`: the joint search alone on the same random weights, a decoder of 6 layers of 256
and utterances of 250 encoder frames, 40 tokens forced. `nbest`: a packed model on real utterances,
both sides given the same encoder output; how many n-best lists (as long as the beam) are the same,
and the largest difference of a score. `ctc`: prefix search on 250 frames of 500 tokens.

A peer runs in its own Python and waits between its turns; the sides take turns utterance by
utterance, medians of milliseconds. ESPnet's logging and gradients are off. In the `batched` rows our
side decodes --batch utterances at once and the time is that of one of them.
"""

import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from espnet_lite.bin.arguments import parser
from espnet_lite.errors import InputError, reports_input_errors

SHAPE = {"vocab": 500, "dim": 256, "heads": 4, "feed_forward": 2048, "layers": 6}
FRAMES, TOKENS = 250, 40  # of 10 seconds at 25 frames a second

# Each peer reads a line of JSON for each turn and answers with one. First argument: tensors.
ESPNET = """
import json, logging, sys, time
answers, sys.stdout = sys.stdout, sys.stderr  # ESPnet prints when it is imported
import torch
from espnet.nets.batch_beam_search import BatchBeamSearch
from espnet.nets.scorers.ctc import CTCPrefixScorer
from espnet.nets.scorers.length_bonus import LengthBonus
from espnet2.asr.ctc import CTC
from espnet2.asr.decoder.transformer_decoder import TransformerDecoder
logging.disable(logging.CRITICAL)
told = torch.load(sys.argv[1])
numbers, eos = told["numbers"], told["numbers"]["vocab"] - 1
torch.set_num_threads(told["threads"])
decoder = TransformerDecoder(
    vocab_size=numbers["vocab"], encoder_output_size=numbers["dim"],
    attention_heads=numbers["heads"], linear_units=numbers["feed_forward"],
    num_blocks=numbers["layers"],
).eval()
decoder.load_state_dict(told["decoder"])
ctc = CTC(odim=numbers["vocab"], encoder_output_size=numbers["dim"]).eval()
ctc.load_state_dict({"ctc_lo.weight": told["head"][0], "ctc_lo.bias": told["head"][1]})
searches = {}
for line in sys.stdin:
    turn = json.loads(line)
    beam, weight = turn["beam"], turn["ctc_weight"]
    if (beam, weight) not in searches:
        searches[beam, weight] = BatchBeamSearch(
            scorers={"decoder": decoder, "ctc": CTCPrefixScorer(ctc, eos),
                     "length_bonus": LengthBonus(numbers["vocab"])},
            weights={"decoder": 1 - weight, "ctc": weight, "length_bonus": turn["penalty"]},
            beam_size=beam, vocab_size=numbers["vocab"], sos=eos, eos=eos,
            pre_beam_score_key="full",
        ).eval()
    with torch.inference_mode():
        encoded = told["encoded"][turn["utterance"]].clone()
        started = time.perf_counter()
        found = searches[beam, weight](x=encoded, maxlenratio=turn["maxlenratio"])
        seconds = time.perf_counter() - started
    nbest = [
        {"tokens": [t for t in h.yseq.tolist() if t != eos], "score": float(h.score)}
        for h in found[:beam]
    ]
    print(json.dumps({"seconds": seconds, "nbest": nbest}), file=answers, flush=True)
"""
FLASHLIGHT = """
import json, sys, time
import numpy as np
from flashlight.lib.text.decoder import (
    CriterionType, LexiconFreeDecoder, LexiconFreeDecoderOptions, ZeroLM,
)
emissions = np.load(sys.argv[1])
for line in sys.stdin:
    turn = json.loads(line)
    options = LexiconFreeDecoderOptions(
        beam_size=turn["beam"], beam_size_token=turn["beam"], beam_threshold=1e9, lm_weight=0.0,
        sil_score=0.0, log_add=True, criterion_type=CriterionType.CTC,
    )
    decoder = LexiconFreeDecoder(options, ZeroLM(), -1, 0, [])
    frames = np.ascontiguousarray(emissions[turn["utterance"]])
    started = time.perf_counter()
    found = decoder.decode(frames.ctypes.data, *frames.shape)
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "score": found[0].score}), flush=True)
"""


class Peer:
    """A process of another Python that answers line by line."""

    def __init__(self, python: Path, script: str, argument: Path):
        self.process = subprocess.Popen(
            [str(python), "-c", script, str(argument)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, turn: dict) -> dict:
        """Return the answer to one turn."""
        print(json.dumps(turn), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise InputError("the peer ended; what it said is above", where=self.process.args[0])
        return json.loads(answer)

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait()


def timed(work: Callable) -> tuple[object, float]:
    """Return what `work` returns, and its seconds."""
    started = time.perf_counter()
    result = work()
    return result, time.perf_counter() - started


def write_espnet(path: Path, decoder, head, encoded: Sequence, numbers: dict, threads: int) -> None:
    """Write what the peer needs, under ESPnet's names."""
    import torch

    from espnet_lite.models.espnet_keys import decoder_to_espnet

    told = {"numbers": numbers, "threads": threads, "encoded": list(encoded), "head": head}
    torch.save({**told, "decoder": decoder_to_espnet(decoder.state_dict())}, path)


def joint_part(
    args, peer: Peer, decoder, head, encoded: Sequence, *, beam: int, tokens: int | None
):
    """Return milliseconds of ESPnet, ours and ours batched for each utterance, and both n-bests.

    tokens: so many are forced; None: the search ends by itself.
    """
    import torch

    from espnet_lite.decode.config import JointBeamConfig
    from espnet_lite.decode.joint import JointSearch

    ratio = 0.0 if tokens is None else -float(tokens)
    config = JointBeamConfig(
        beam_size=beam,
        nbest=beam,
        ctc_weight=args.ctc_weight,
        penalty=args.penalty,
        maxlenratio=ratio,
    )
    search = JointSearch(config, decoder)
    turn = {"beam": beam, "ctc_weight": args.ctc_weight, "penalty": args.penalty}
    turn["maxlenratio"] = ratio

    def ours(group: Sequence):
        lengths = torch.tensor([len(x) for x in group])
        padded = torch.nn.utils.rnn.pad_sequence(list(group), batch_first=True)
        log_probs = torch.nn.functional.linear(padded, *head).log_softmax(dim=-1)
        return search(padded, log_probs, lengths)

    peer.ask({**turn, "utterance": 0})  # both sides once before the clock
    ours(encoded[:1])
    milliseconds: dict[str, list[float]] = {"ESPnet": [], "ours": [], "batched": []}
    nbests = []
    with torch.inference_mode():
        for first in range(0, len(encoded), args.batch):
            group = encoded[first : first + args.batch]
            for number, utterance in enumerate(group, start=first):
                answer = peer.ask({**turn, "utterance": number})
                (nbest,), seconds = timed(lambda utterance=utterance: ours([utterance]))
                milliseconds["ESPnet"].append(1e3 * answer["seconds"])
                milliseconds["ours"].append(1e3 * seconds)
                nbests.append((answer["nbest"], nbest))
            together, seconds = timed(lambda group=group: ours(group))
            milliseconds["batched"] += [1e3 * seconds / len(group)] * len(group)
            for (_, alone), nbest in zip(nbests[first:], together, strict=True):
                if [h.tokens for h in alone] != [h.tokens for h in nbest]:
                    print("the n-best of an utterance alone and in a batch differ", file=sys.stderr)
    return milliseconds, nbests


def joint_rows(milliseconds: dict, *, beam: int, tokens: int | None) -> list[str]:
    """Return the table's rows of one beam."""
    rows = []
    reference = statistics.median(milliseconds["ESPnet"])
    for name, times in milliseconds.items():
        median = statistics.median(times)
        step = f"{median / tokens:.2f}" if tokens else "-"
        rows.append(f"| {beam} | {name} | {median:.1f} | {step} | {reference / median:.1f} |")
    return rows


def speed(args, folder: Path) -> None:
    """Print the times of the search on random weights."""
    import torch

    from espnet_lite.nn.decoder import TransformerDecoder

    generator = torch.Generator().manual_seed(args.seed)
    torch.manual_seed(args.seed)
    decoder = TransformerDecoder(**SHAPE).eval()
    head = (
        torch.randn(SHAPE["vocab"], SHAPE["dim"], generator=generator) / 4,
        torch.zeros(SHAPE["vocab"]),
    )
    encoded = [
        torch.randn(FRAMES, SHAPE["dim"], generator=generator) for _ in range(args.utterances)
    ]
    write_espnet(folder / "speed.pt", decoder, head, encoded, SHAPE, args.threads)
    peer = Peer(args.peer_python, ESPNET, folder / "speed.pt")
    print(f"\n{FRAMES} frames, {TOKENS} tokens, {SHAPE}, CTC weight {args.ctc_weight}")
    print("| beam | search | ms | ms a step | x |\n| ---: | --- | ---: | ---: | ---: |")
    for beam in args.beams:
        times, nbests = joint_part(args, peer, decoder, head, encoded, beam=beam, tokens=TOKENS)
        print("\n".join(joint_rows(times, beam=beam, tokens=TOKENS)), flush=True)
        print(same_nbest(nbests), file=sys.stderr)
    peer.close()


def same_nbest(nbests: Sequence) -> str:
    """Return how many pairs of n-best lists are the same, and how far scores are apart."""
    same, largest = 0, 0.0
    for theirs, ours in nbests:
        pairs = zip(theirs, ours, strict=False)
        if [h["tokens"] for h in theirs] == [h.tokens for h in ours]:
            same += 1
            largest = max([largest, *(abs(a["score"] - b.score) for a, b in pairs)])
    best = sum(theirs[0]["tokens"] == ours[0].tokens for theirs, ours in nbests)
    return (
        f"same n-best: {same} of {len(nbests)} (largest score difference {largest:.1e}), "
        f"same best hypothesis: {best} of {len(nbests)}"
    )


def nbest(args, folder: Path) -> None:
    """Print how a packed model decodes real utterances on both sides."""

    from espnet_lite.data.data_dir import read_data_dir
    from espnet_lite.data.loader import Loader
    from espnet_lite.decode.packed_decoder import load_decoder
    from espnet_lite.runtime.packed_model import PackedModel

    model = PackedModel.load(args.model)
    decoder = load_decoder(args.model, dim=model.encoder.dim)
    told = model.header["architecture"]["decoder"]
    numbers = {name: told[name] for name in ("heads", "feed_forward", "layers")}
    numbers |= {"vocab": len(model.tokenizer.tokens), "dim": model.encoder.dim}
    head = (model.ctc_head.weight.detach(), model.ctc_head.bias.detach())
    encoded = []
    for data_dir in args.data_dirs:
        loader = Loader(
            list(read_data_dir(data_dir, need_text=False)),
            None,
            sample_rate=model.sample_rate,
            batch_seconds=60.0,
            max_batch_utterances=32,
            seed=0,
            shuffle=False,
            prefetch_batches=0,
            cache_gigabytes=0.0,
        )
        for batch in loader.batches(0):
            output = model.encode(batch.waveform, batch.waveform_lengths)
            encoded += [
                row[:length].clone()
                for row, length in zip(output.encoded, output.lengths.tolist(), strict=True)
                if length > 1  # ESPnet's CTC scores need two frames
            ]
    write_espnet(folder / "nbest.pt", decoder, head, encoded, numbers, args.threads)
    peer = Peer(args.peer_python, ESPNET, folder / "nbest.pt")
    frames = sum(map(len, encoded)) / len(encoded)
    print(f"\n{args.model.name}: {len(encoded)} utterances of {frames:.0f} frames on average")
    print("| beam | search | ms | ms a step | x |\n| ---: | --- | ---: | ---: | ---: |")
    verdicts = []
    for beam in args.beams:
        times, nbests = joint_part(args, peer, decoder, head, encoded, beam=beam, tokens=None)
        print("\n".join(joint_rows(times, beam=beam, tokens=None)), flush=True)
        verdicts.append(f"beam {beam}: {same_nbest(nbests)}")
    print("\n" + "\n".join(verdicts))
    peer.close()


def posteriors(kind: str, count: int, seed: int):
    """Return log-probabilities (count, FRAMES, vocab): blanks, and a token in 40 of the frames."""
    import torch

    boost = {"peaky": 16.0, "flat": 4.0}[kind]
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, FRAMES, SHAPE["vocab"], generator=generator)
    spoken = torch.rand(count, FRAMES, generator=generator).argsort(dim=1) < TOKENS
    tokens = torch.randint(1, SHAPE["vocab"], (count, FRAMES), generator=generator)
    said = tokens.where(spoken, 0)[..., None]
    return logits.scatter_add(2, said, torch.full(said.shape, boost)).log_softmax(dim=-1)


def ctc(args, folder: Path) -> None:
    """Print the times of the CTC prefix search."""
    import numpy as np

    print(f"\nCTC prefix search, {FRAMES} frames, {SHAPE['vocab']} tokens, token beam = beam")
    print("| posteriors | beam | search | ms | x |\n| --- | ---: | --- | ---: | ---: |")
    for kind in ("peaky", "flat"):
        log_probs = posteriors(kind, args.ctc_batch, args.seed)
        np.save(folder / "ctc.npy", log_probs.numpy())
        peer = Peer(args.flashlight_python, FLASHLIGHT, folder / "ctc.npy")
        for beam in args.beams:
            milliseconds = ctc_times(args, peer, log_probs, beam)
            reference = statistics.median(milliseconds["flashlight"])
            for name, times in milliseconds.items():
                median = statistics.median(times)
                print(f"| {kind} | {beam} | {name} | {median:.1f} | {reference / median:.2f} |")
        peer.close()


def ctc_times(args, peer: Peer, log_probs, beam: int) -> dict[str, list[float]]:
    """Return milliseconds for an utterance of flashlight, ours and ours batched."""
    import torch

    from espnet_lite.decode.prefix_beam import ctc_prefix_beam

    def ours(rows: torch.Tensor):
        lengths = torch.full((len(rows),), FRAMES)
        return ctc_prefix_beam(
            rows, lengths, beam=beam, token_beam=beam, token_margin=args.token_margin
        )

    ours(log_probs[:1])  # both sides once before the clock
    peer.ask({"beam": beam, "utterance": 0})
    together = f"ours, {args.ctc_batch} at once"
    milliseconds: dict[str, list[float]] = {"flashlight": [], "ours": [], together: []}
    for number in range(args.ctc_batch):
        answer = peer.ask({"beam": beam, "utterance": number})
        _, seconds = timed(lambda number=number: ours(log_probs[number : number + 1]))
        milliseconds["flashlight"].append(1e3 * answer["seconds"])
        milliseconds["ours"].append(1e3 * seconds)
        if number % 4 == 0:
            _, seconds = timed(lambda: ours(log_probs))
            milliseconds[together].append(1e3 * seconds / args.ctc_batch)
    return milliseconds


PARTS = {"speed": speed, "nbest": nbest, "ctc": ctc}


@reports_input_errors
def main(argv: list[str] | None = None) -> int:
    """Print the tables."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--peer_python", type=Path, help="Python with ESPnet")
    arguments.add_argument("--flashlight_python", type=Path, help="Python with flashlight-text")
    arguments.add_argument("--parts", nargs="+", choices=list(PARTS), default=["speed"])
    arguments.add_argument("--beams", nargs="+", type=int, default=[10, 20])
    arguments.add_argument("--ctc_weight", type=float, default=0.3)
    arguments.add_argument("--penalty", type=float, default=0.0)
    arguments.add_argument("--utterances", type=int, default=16, help="of the part speed")
    arguments.add_argument("--batch", type=int, default=8, help="utterances of the batched rows")
    arguments.add_argument("--ctc_batch", type=int, default=32)
    arguments.add_argument("--token_margin", type=float, default=12.0)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--model", type=Path, help="packed model with a decoder")
    arguments.add_argument("--data_dirs", nargs="+", type=Path, help="dump folders to decode")
    args = arguments.parse_args(argv)
    needs = {"speed": ["peer_python"], "nbest": ["peer_python", "model", "data_dirs"]}
    needs["ctc"] = ["flashlight_python"]
    for part in args.parts:
        for name in needs[part]:
            if not vars(args)[name]:
                raise InputError(f"part {part} needs --{name}")

    import torch

    logging.disable(logging.WARNING)
    torch.set_num_threads(args.threads)
    from espnet_lite.environment import describe

    machine = describe()
    print(
        f"{machine['cpu']}, {machine['cores']} cores, {args.threads} threads,"
        f" torch {machine['torch']}, commit {machine['commit']}"
    )
    with tempfile.TemporaryDirectory() as folder:
        for part in args.parts:
            PARTS[part](args, Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
