"""Write the n-best lists of ESPnet's joint beam search that the tests compare with.

Run it with the Python of the peers' environment (tools/setup_peers.sh), from any folder:

    .venv_peers/bin/python tools/make_beam_golden.py

tests/golden/espnet_beam.safetensors holds a decoder's state dict under `weights/`, the CTC head
under `ctc/`, encoded utterances of several lengths under `encoded/`, and in its metadata, for each
of several settings, what BatchBeamSearch returns: tokens, score and parts of every hypothesis.
"""

import argparse
import json
import logging
from importlib.metadata import version
from pathlib import Path

import torch
from espnet.nets.batch_beam_search import BatchBeamSearch
from espnet.nets.scorers.ctc import CTCPrefixScorer
from espnet.nets.scorers.length_bonus import LengthBonus
from espnet2.asr.ctc import CTC
from espnet2.asr.decoder.transformer_decoder import TransformerDecoder
from safetensors.torch import save_file

SEED = 20261
DIM, HEADS, FEED_FORWARD, LAYERS, VOCAB = 16, 2, 32, 2, 17
FRAMES = (24, 17, 9, 5)
SETTINGS = (
    {"beam_size": 5, "ctc_weight": 0.3},
    {"beam_size": 8, "ctc_weight": 0.5, "penalty": 0.4},
    {"beam_size": 12, "ctc_weight": 0.3},  # 18 candidates of 17 tokens: all are scored
    {"beam_size": 1, "ctc_weight": 0.3},
    {"beam_size": 6, "ctc_weight": 1.0, "penalty": 0.1},
    {"beam_size": 6, "ctc_weight": 0.0},
    {"beam_size": 4, "ctc_weight": 0.3, "maxlenratio": 0.4},
    {"beam_size": 4, "ctc_weight": 0.3, "maxlenratio": -6.0},
    {"beam_size": 3, "ctc_weight": 0.3, "minlenratio": 0.5, "penalty": -2.0},  # starts again
)


def make_modules(generator: torch.Generator) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Return a decoder and a CTC head with opinions: random weights, larger than initial ones."""
    decoder = TransformerDecoder(
        vocab_size=VOCAB,
        encoder_output_size=DIM,
        attention_heads=HEADS,
        linear_units=FEED_FORWARD,
        num_blocks=LAYERS,
    )
    ctc = CTC(odim=VOCAB, encoder_output_size=DIM)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        # A trained decoder never says <blank>; it ends before the audio does.
        decoder.output_layer.bias[0] = -30.0
        decoder.output_layer.bias[-1] += 1.5
        for parameter in ctc.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        ctc.ctc_lo.bias[0] += 2.0
    return decoder.eval(), ctc.eval()


@torch.no_grad()
def search(decoder, ctc, encoded: torch.Tensor, setting: dict) -> list[dict]:
    """Return the ended hypotheses of one utterance, at most a beam of them."""
    weight = setting["ctc_weight"]
    beam_search = BatchBeamSearch(
        scorers={
            "decoder": decoder,
            "ctc": CTCPrefixScorer(ctc, VOCAB - 1),
            "length_bonus": LengthBonus(VOCAB),
        },
        weights={
            "decoder": 1 - weight,
            "ctc": weight,
            "length_bonus": setting.get("penalty", 0.0),
        },
        beam_size=setting["beam_size"],
        vocab_size=VOCAB,
        sos=VOCAB - 1,
        eos=VOCAB - 1,
        pre_beam_score_key=None if weight == 1 else "full",
    )
    found = beam_search(
        x=encoded,
        maxlenratio=setting.get("maxlenratio", 0.0),
        minlenratio=setting.get("minlenratio", 0.0),
    )
    return [
        {
            # A hypothesis that ends at the last step of all gets a second <sos/eos> there.
            "tokens": [token for token in hypothesis.yseq.tolist() if token != VOCAB - 1],
            "score": float(hypothesis.score),
            "parts": {name: float(part) for name, part in hypothesis.scores.items()},
        }
        for hypothesis in found[: setting["beam_size"]]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(__file__).resolve().parent.parent / "tests" / "golden"
    parser.add_argument("--output_dir", type=Path, default=default)
    folder = parser.parse_args().output_dir
    folder.mkdir(parents=True, exist_ok=True)
    logging.disable(logging.WARNING)  # ESPnet warns where a search starts again
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    decoder, ctc = make_modules(generator)
    encoded = [torch.randn(frames, DIM, generator=generator) for frames in FRAMES]
    cases = [
        {"setting": setting, "nbest": [search(decoder, ctc, x, setting) for x in encoded]}
        for setting in SETTINGS
    ]
    tensors = {f"weights/{key}": value for key, value in decoder.state_dict().items()}
    tensors |= {f"ctc/{key}": value for key, value in ctc.state_dict().items()}
    tensors |= {f"encoded/{number}": value for number, value in enumerate(encoded)}
    numbers = {"vocab": VOCAB, "dim": DIM, "heads": HEADS}
    numbers |= {"feed_forward": FEED_FORWARD, "layers": LAYERS}
    source = {"espnet": version("espnet"), "torch": torch.__version__, "seed": SEED}
    golden = source | {"numbers": numbers, "cases": cases}
    path = folder / "espnet_beam.safetensors"
    save_file(
        {key: value.detach().contiguous() for key, value in tensors.items()},
        path,
        metadata={"golden": json.dumps(golden)},
    )
    counts = [[len(nbest) for nbest in case["nbest"]] for case in cases]
    print(f"{path}: {path.stat().st_size} bytes, hypotheses {counts}")


if __name__ == "__main__":
    main()
