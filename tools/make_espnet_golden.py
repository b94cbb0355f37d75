"""Write the numbers of ESPnet's Transformer and Conformer that the tests compare with: tests/golden/espnet_*.

Run it with the Python of the peers' environment (tools/setup_peers.sh), from any folder:

    .venv_peers/bin/python tools/make_espnet_golden.py

Each file holds ESPnet's state dict under `weights/`, the inputs and the outputs of one forward
pass in evaluation mode (of the Conformer in training mode too), and the numbers the module was built from in its metadata.
"""

import argparse
import json
from importlib.metadata import version
from pathlib import Path

import torch
from espnet2.asr.decoder.transformer_decoder import TransformerDecoder
from espnet2.asr.encoder.conformer_encoder import ConformerEncoder
from espnet2.asr.encoder.transformer_encoder import TransformerEncoder
from safetensors.torch import save_file

SEED = 20260
DIM, HEADS, FEED_FORWARD, LAYERS, VOCAB, MELS = 16, 2, 32, 2, 11, 20


def shake(module: torch.nn.Module, generator: torch.Generator) -> torch.nn.Module:
    """Move every parameter off its initial value, so that norms and biases count too."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return module.eval()


def write(path: Path, module: torch.nn.Module, numbers: dict, tensors: dict) -> None:
    """Write weights and tensors, with where they came from."""
    weights = {f"weights/{key}": value for key, value in module.state_dict().items()}
    everything = {key: value.detach().contiguous() for key, value in (weights | tensors).items()}
    source = {"espnet": version("espnet"), "torch": torch.__version__, "seed": SEED}
    # One key: safetensors writes several in random order, and the file should not change by itself.
    save_file(everything, path, metadata={"golden": json.dumps(source | {"numbers": numbers})})
    print(f"{path}: {len(everything)} tensors, {path.stat().st_size} bytes")


def decoder_golden(path: Path, generator: torch.Generator) -> None:
    """Write a decoder of two layers and its logits for two utterances of unequal length."""
    decoder = TransformerDecoder(
        vocab_size=VOCAB,
        encoder_output_size=DIM,
        attention_heads=HEADS,
        linear_units=FEED_FORWARD,
        num_blocks=LAYERS,
    )
    shake(decoder, generator)
    memory = torch.randn(2, 7, DIM, generator=generator)
    memory_lengths = torch.tensor([7, 4])
    tokens_in = torch.randint(0, VOCAB, (2, 5), generator=generator)
    token_lengths = torch.tensor([5, 3])
    with torch.no_grad():
        logits, _ = decoder(memory, memory_lengths, tokens_in, token_lengths)
    numbers = {
        "vocab": VOCAB,
        "dim": DIM,
        "heads": HEADS,
        "feed_forward": FEED_FORWARD,
        "layers": LAYERS,
    }
    tensors = {
        "encoded": memory,
        "encoded_lengths": memory_lengths,
        "tokens_in": tokens_in,
        "token_lengths": token_lengths,
        "logits": logits,
    }
    write(path, decoder, numbers, tensors)


def encoder_golden(path: Path, generator: torch.Generator) -> None:
    """Write an encoder of two layers with its conv2d subsampling: features in, encoded out."""
    encoder = TransformerEncoder(
        input_size=MELS,
        output_size=DIM,
        attention_heads=HEADS,
        linear_units=FEED_FORWARD,
        num_blocks=LAYERS,
        input_layer="conv2d",
        use_flash_attn=False,
    )
    shake(encoder, generator)
    features = torch.randn(2, 43, MELS, generator=generator)
    feature_lengths = torch.tensor([43, 29])
    with torch.no_grad():
        mask = (torch.arange(43)[None, :] < feature_lengths[:, None])[:, None, :]
        embedded, _ = encoder.embed(features, mask)
        encoded, encoded_lengths, _ = encoder(features, feature_lengths)
    numbers = {
        "mels": MELS,
        "dim": DIM,
        "heads": HEADS,
        "feed_forward": FEED_FORWARD,
        "layers": LAYERS,
    }
    tensors = {
        "features": features,
        "feature_lengths": feature_lengths,
        "embedded": embedded,  # after subsampling, scaling by sqrt(dim) and sinusoids
        "encoded": encoded,
        "encoded_lengths": encoded_lengths,
    }
    write(path, encoder, numbers, tensors)


def conformer_golden(path: Path, generator: torch.Generator) -> None:
    """Write a Conformer of two layers with its conv2d subsampling: features in, encoded out.

    ESPnet's convolution modules see the padding of a batch, so each utterance is encoded alone. In
    training mode, without dropout, a batch of two utterances of one length goes through; the
    weights, running statistics among them, are those before it.
    """
    kernel = 7
    encoder = ConformerEncoder(
        input_size=MELS,
        output_size=DIM,
        attention_heads=HEADS,
        linear_units=FEED_FORWARD,
        num_blocks=LAYERS,
        dropout_rate=0.0,
        positional_dropout_rate=0.0,
        input_layer="conv2d",
        macaron_style=True,
        rel_pos_type="latest",
        cnn_module_kernel=kernel,
        max_pos_emb_len=100,
    )
    shake(encoder, generator)
    with torch.no_grad():
        for name, statistics in encoder.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                statistics.add_(0.5 * torch.rand(statistics.shape, generator=generator))
    features = torch.randn(2, 43, MELS, generator=generator)
    feature_lengths = torch.tensor([43, 29])
    tensors = {"features": features, "feature_lengths": feature_lengths}
    with torch.no_grad():
        for row, length in enumerate(feature_lengths):
            alone = encoder(features[row : row + 1, :length], length[None])
            tensors[f"encoded_{row}"] = alone[0][0]
    weights = {key: value.clone() for key, value in encoder.state_dict().items()}
    with torch.no_grad():
        tensors["trained"] = encoder.train()(features, torch.tensor([43, 43]))[0]
    after = encoder.state_dict()
    tensors |= {f"after/{key}": after[key].clone() for key in weights if "running_" in key}
    encoder.load_state_dict(weights)
    numbers = {
        "mels": MELS,
        "dim": DIM,
        "heads": HEADS,
        "feed_forward": FEED_FORWARD,
        "layers": LAYERS,
        "kernel": kernel,
    }
    write(path, encoder, numbers, tensors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(__file__).resolve().parent.parent / "tests" / "golden"
    parser.add_argument("--output_dir", type=Path, default=default)
    folder = parser.parse_args().output_dir
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    decoder_golden(folder / "espnet_decoder.safetensors", generator)
    encoder_golden(folder / "espnet_encoder.safetensors", generator)
    conformer_golden(folder / "espnet_conformer.safetensors", generator)


if __name__ == "__main__":
    main()
