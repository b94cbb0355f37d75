"""Write what the tests compare with of torchaudio's HuBERT: tests/golden/torchaudio_*.

Run it with a Python that has torchaudio (beside a CUDA build of torch; beside a CPU build its models
import too once the wheel's compiled parts, torchaudio/**/*.so, are deleted), from any folder:

    python tools/make_torchaudio_golden.py

torchaudio_hubert_keys.json: names and shapes of the state dict of hubert_pretrain_base and of
hubert_large; and of names of fairseq's HubertModel those that torchaudio gives them. torchaudio_hubert.safetensors: two small models, one as Base and one as Large, under
`base/` and `large/` their weights, and their layers and output for a padded batch.
"""

import argparse
import json
import re
from pathlib import Path

import torch
import torchaudio
from safetensors.torch import save_file
from torchaudio.models import hubert_large, hubert_pretrain_base, wav2vec2_model
from torchaudio.models.wav2vec2.utils.import_fairseq import _map_key

SEED = 20261
SAMPLES = [2000, 1201]
NUMBERS = {"dim": 16, "heads": 2, "feed_forward": 24, "layers": 2, "kernel": 8, "groups": 4}
CHANNELS = 6
KERNELS_AND_STRIDES = [(10, 5)] + [(3, 2)] * 4 + [(2, 2)] * 2


def write_keys(path: Path) -> None:
    """Write names and shapes."""
    models = {"hubert_pretrain_base": hubert_pretrain_base(), "hubert_large": hubert_large()}
    shapes = {
        name: {key: list(tensor.shape) for key, tensor in model.state_dict().items()}
        for name, model in models.items()
    }
    fairseq = {
        name: {key: _map_key(key) for key in fairseq_names(is_large=name == "large")}
        for name in ("base", "large")
    }
    plain = {"torchaudio": torchaudio.__version__, **shapes, "fairseq_to_torchaudio": fairseq}
    text = json.dumps(plain, indent=1)
    # A parameter a line.
    text = re.sub(r"\[[^]]*\]", lambda shape: str(json.loads(shape[0])), text)
    path.write_text(text + "\n", encoding="utf-8")


def fairseq_names(*, is_large: bool) -> list[str]:
    """Return the names of fairseq 0.12.2's HubertModel that torchaudio maps, of the first and the
    twelfth block; read from models/hubert/hubert.py and models/wav2vec/wav2vec2.py."""
    modules = ["layer_norm", "post_extract_proj", "encoder.layer_norm"]
    norms = [f"{n}.2.1" for n in range(7)] if is_large else ["0.2"]
    modules += [f"feature_extractor.conv_layers.{norm}" for norm in norms]
    for block in ("encoder.layers.0", "encoder.layers.11"):
        modules += [f"{block}.self_attn.{name}_proj" for name in ("k", "v", "q", "out")]
        modules += [f"{block}.{name}" for name in ("self_attn_layer_norm", "fc1", "fc2")]
        modules.append(f"{block}.final_layer_norm")
    names = [f"{module}.{parameter}" for module in modules for parameter in ("weight", "bias")]
    names += [f"feature_extractor.conv_layers.{n}.0.weight" for n in range(7)]
    return names + [f"encoder.pos_conv.0.{name}" for name in ("bias", "weight_g", "weight_v")]


def small_model(*, is_large: bool) -> torch.nn.Module:
    """Return a model of two blocks whose every parameter is moved off its initial value."""
    model = wav2vec2_model(
        extractor_mode="layer_norm" if is_large else "group_norm",
        extractor_conv_layer_config=[(CHANNELS, k, s) for k, s in KERNELS_AND_STRIDES],
        extractor_conv_bias=False,
        encoder_embed_dim=NUMBERS["dim"],
        encoder_projection_dropout=0.0,
        encoder_pos_conv_kernel=NUMBERS["kernel"],
        encoder_pos_conv_groups=NUMBERS["groups"],
        encoder_num_layers=NUMBERS["layers"],
        encoder_num_heads=NUMBERS["heads"],
        encoder_attention_dropout=0.0,
        encoder_ff_interm_features=NUMBERS["feed_forward"],
        encoder_ff_interm_dropout=0.0,
        encoder_dropout=0.0,
        encoder_layer_norm_first=is_large,
        encoder_layer_drop=0.0,
        aux_num_out=None,
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return model.eval()


@torch.no_grad()
def write_outputs(path: Path) -> None:
    """Write weights, each clip's layers (as torchaudio gives them of a clip alone), and output."""
    waveform = 0.1 * torch.randn(len(SAMPLES), max(SAMPLES))
    tensors = {"waveform": waveform, "waveform_lengths": torch.tensor(SAMPLES)}
    for name in ("base", "large"):
        model = small_model(is_large=name == "large")
        tensors |= {f"{name}/weights/{key}": value for key, value in model.state_dict().items()}
        for row, samples in enumerate(SAMPLES):
            clip = waveform[row : row + 1, :samples]
            layers, _ = model.extract_features(clip)
            encoded, _ = model(clip)
            tensors[f"{name}/encoded/{row}"] = encoded[0]
            tensors |= {f"{name}/layer{n}/{row}": x[0] for n, x in enumerate(layers, start=1)}
    tensors = {key: value.detach().contiguous().clone() for key, value in tensors.items()}
    source = {"torchaudio": torchaudio.__version__, "torch": torch.__version__, "seed": SEED}
    # One key: safetensors writes several in random order, and the file should not change by itself.
    save_file(tensors, path, metadata={"golden": json.dumps(source | {"numbers": NUMBERS})})
    print(f"{path}: {len(tensors)} tensors, {path.stat().st_size} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(__file__).resolve().parent.parent / "tests" / "golden"
    parser.add_argument("--output_dir", type=Path, default=default)
    folder = parser.parse_args().output_dir
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    write_keys(folder / "torchaudio_hubert_keys.json")
    write_outputs(folder / "torchaudio_hubert.safetensors")


if __name__ == "__main__":
    main()
