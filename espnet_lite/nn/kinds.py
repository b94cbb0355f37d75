"""What kind of module each part of a model is: one table, for profiles and for quantization policies.

A policy gives bits to a kind, a profile adds up what a kind costs. The table goes by the names of
classes, so that it stands in one place, below encoders and models, and code of encoders knows
nothing of it. A new block adds its line here; the test of this file fails until it has.
"""

from torch import nn

KINDS = {
    "features": "mel filterbank: the product of spectrum and filters; the FFT has no MACs",
    "front_end": "convolutions over the waveform, and the projection of frames to the encoder's width",
    "subsampling": "convolutions that lower the frame rate, and their projection",
    "conv_positional": "grouped convolution over time that tells positions apart",
    "attention_linear": "projections to queries, keys, values, of positions, and from the mixed values",
    "attention_matmul": "the two products of activations: queries by keys, probabilities by values",
    "feed_forward": "Linears of the feed-forward modules",
    "conv_pointwise": "1×1 convolutions of the convolution modules, and where the frame rate changes",
    "conv_depthwise": "convolutions over time, each channel for itself",
    "head": "CTC and unit heads",
    "embedding": "tables of vectors looked up by number, without MACs",
    "decoder": "all of the attention decoder",
}

# Class → its kind, for a class that multiplies by weights it holds itself, or of which all is of one
# kind; or class → {attribute: kind}. A kind holds for all that is inside, so the outer one wins: the
# attention of the decoder is `decoder`. A subclass without a line of its own has its parent's.
TABLE: dict[str, str | dict[str, str]] = {
    # features
    "Fbank": "features",
    # nn
    "Conv2dSubsampling4": dict.fromkeys(("first", "second", "project"), "subsampling"),
    "ConvolutionModule": {
        **dict.fromkeys(("pointwise_in", "pointwise_out"), "conv_pointwise"),
        "depthwise": "conv_depthwise",
    },
    "DotProductAttention": "attention_matmul",
    "FeedForward": dict.fromkeys(("expand", "contract"), "feed_forward"),
    "LocalAttention": "attention_matmul",
    "MultiHeadAttention": dict.fromkeys(("query", "key", "value", "out"), "attention_linear"),
    "PositionalConvolution": "conv_positional",
    "RelativeAttention": dict.fromkeys(
        ("query", "key", "value", "position", "out"), "attention_linear"
    ),
    "RelativeDotProduct": "attention_matmul",
    "TransformerDecoder": "decoder",
    # encoders
    "SqueezeformerEncoder": {"recovery": "conv_pointwise"},
    "StackedLogMelFrontEnd": {"projection": "front_end"},
    "TimeReduction": {"depthwise": "conv_depthwise", "pointwise": "conv_pointwise"},
    "WaveformConvolution": {"convolution": "front_end"},
    "WaveformFrontEnd": {"projection": "front_end"},
    # quantize
    "QuantizedDotProduct": "attention_matmul",
    "QuantizedRelativeDotProduct": "attention_matmul",
    # models, runtime, profile
    "AsrModel": {"ctc_head": "head"},
    "CosineHead": "head",
    "Network": {"ctc_head": "head"},
    "PackedModel": {"ctc_head": "head"},
    "SoftmaxHead": "head",
}

_WEIGHTED = (nn.Linear, nn.modules.conv._ConvNd, nn.Embedding)


def module_kinds(model: nn.Module) -> dict[str, str]:
    """Return `{module name: kind}` of every module of `model` that holds products or tables.

    These are all Linears, convolutions and embeddings, and the modules whose class is a kind as a
    whole. Norms, masks and statistics have none.

    Raises:
        ValueError: a Linear, convolution or embedding that the table says nothing of.
    """
    kinds: dict[str, str] = {}
    _walk(model, "", None, kinds)
    return kinds


def _walk(module: nn.Module, name: str, kind: str | None, kinds: dict[str, str]) -> None:
    """Add what is in `module`, whose kind as seen from outside is `kind`, to `kinds`."""
    line = _line_of(type(module))
    of_all = line if isinstance(line, str) else None
    of_attributes = line if isinstance(line, dict) else {}
    kind = kind or of_all
    if of_all or isinstance(module, _WEIGHTED):
        if kind is None:
            raise ValueError(
                f"{type(module).__name__} '{name}' is of no kind: espnet_lite/nn/kinds.py needs a "
                "line for the class that holds it"
            )
        kinds[name] = kind
    for attribute, child in module.named_children():
        inner = f"{name}.{attribute}" if name else attribute
        _walk(child, inner, kind or of_attributes.get(attribute), kinds)


def _line_of(cls: type) -> str | dict[str, str]:
    """Return the line of the class or of the nearest parent that has one; {} without."""
    return next((TABLE[base.__name__] for base in cls.__mro__ if base.__name__ in TABLE), {})
