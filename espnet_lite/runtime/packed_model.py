"""A packed recognizer ready to run: front end, encoder and CTC head built from one file."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from espnet_lite.config import build_class, choice, from_plain
from espnet_lite.encoders.families import ENCODERS
from espnet_lite.encoders.front_end import FRONT_ENDS
from espnet_lite.encoders.output import EncoderOutput
from espnet_lite.errors import InputError
from espnet_lite.runtime.bits import PackedIntegers, unpack_integers
from espnet_lite.runtime.format import read_packed
from espnet_lite.runtime.quantized import check_integer_tensors, put_integer_modules
from espnet_lite.text.tokenizer import Tokenizer

DECODER_PREFIX = "decoder."  # the attention decoder's section: kept in the file, not run here
_LARGEST_SIZE = 1 << 13  # dim, layers, kernel, …
_LARGEST_RATE = 1 << 20  # Hz
_RANDOM_FILLS = {
    *(Tensor.normal_, Tensor.uniform_, nn.init.normal_, nn.init.uniform_),
    *(nn.init.kaiming_normal_, nn.init.kaiming_uniform_),
}


class _Unfilled(TorchFunctionMode):
    """Leaves out the random numbers that weights begin with: the file's take their place."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in _RANDOM_FILLS:
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """`architecture` of the packed header: what the tensors are the weights of."""

    front_end: object = choice(FRONT_ENDS, "log_mel")
    encoder: object = choice(ENCODERS, "transformer")
    decoder: dict | None = None  # config of the optional decoder section
    vocab: int  # tokens with <blank>, the CTC head's width


class PackedModel(nn.Module):
    """Front end, encoder and CTC head in eval mode.

    What the header names as quantized multiplies integers (runtime.quantized), in torch and so on any
    device. Stored bf16 weights are widened to fp32 when loaded: bf16 is how they are kept, fp32 how they
    are computed with, so a CPU with bf16 instructions and one without give the same result.
    """

    def __init__(self, header: dict, *, where: object = None):
        """Build the modules of `header` (weights as initialized; `from_parts` fills them)."""
        super().__init__()
        quantized = header.get("quantized", {})  # absent where nothing is
        parts = (header.get("architecture"), header.get("tokenizer"), quantized)
        if not all(isinstance(part, dict) for part in parts):
            what = "architecture, tokenizer and quantized are not all mappings"
            raise InputError(f"damaged header: {what}", where=where, fix="pack it again")
        for part in ("encoder", "front_end"):
            _check_sizes(header["architecture"].get(part), part=part, where=where)
        architecture = from_plain(Architecture, header["architecture"], where=where)
        self.header = header
        self.tokenizer = Tokenizer.from_dict(header["tokenizer"], where=where)
        if len(self.tokenizer.tokens) != architecture.vocab:
            raise InputError(
                f"a tokenizer of {len(self.tokenizer.tokens)} tokens "
                f"beside a CTC head of {architecture.vocab}",
                where=where,
            )
        self.encoder = build_class(ENCODERS, architecture.encoder)(architecture.encoder)
        self.front_end = build_class(FRONT_ENDS, architecture.front_end)(
            architecture.front_end, dim=self.encoder.dim
        )
        self.sample_rate: int = self.front_end.sample_rate  # Hz
        self.ctc_head = nn.Linear(self.encoder.dim, architecture.vocab)
        put_integer_modules(self, _of_runtime(quantized), where=where)
        self.eval()

    @classmethod
    def load(cls, path: Path | str) -> "PackedModel":
        """Return the model of a packed file, whose pages hold its weights as far as they are computed
        with as they are stored (runtime.format.read_packed).

        Raises:
            InputError: not a packed file, damaged, of a newer format, or its tensors are not those
                of its architecture (the first one that differs is named with both shapes).
        """
        header, tensors = read_packed(path)
        return cls._filled(header, tensors, where=path, shared=True)

    @classmethod
    def from_parts(
        cls, header: dict, tensors: dict[str, Tensor | PackedIntegers], *, where: object = None
    ) -> "PackedModel":
        """Return the model of a header and copies of its tensors, as `read_packed` gives them."""
        return cls._filled(header, tensors, where=where, shared=False)

    @classmethod
    def _filled(
        cls,
        header: dict,
        tensors: dict[str, Tensor | PackedIntegers],
        *,
        where: object,
        shared: bool,
    ) -> "PackedModel":
        """Return the model; `shared`: with the tensors themselves where they are of the right type."""
        with _Unfilled():
            model = cls(header, where=where)
        own = model.state_dict()
        given = _of_runtime(tensors)
        for name in sorted(own.keys() | given.keys()):
            if name not in given or name not in own:
                what = "has no weights" if name not in given else "is not in the architecture"
                raise InputError(f"tensor '{name}' {what}", where=where)
            if tuple(own[name].shape) != tuple(given[name].shape):
                raise InputError(
                    f"tensor '{name}' has the shape {list(given[name].shape)}, "
                    f"the architecture expects {list(own[name].shape)}",
                    where=where,
                )
        check_integer_tensors(model, given, where=where)
        computed = {name: _as_computed(tensor) for name, tensor in given.items()}
        model.load_state_dict(computed, assign=shared)
        return model

    @torch.inference_mode()
    def encode(
        self, waveform: Float[Tensor, "batch samples"], waveform_lengths: Int[Tensor, " batch"]
    ) -> EncoderOutput:
        """Return the encoder's output for waveforms in [-1, 1] at `sample_rate`, zero padded."""
        features, lengths = self.front_end(waveform, waveform_lengths, None)
        return self.encoder(features, lengths)

    @torch.inference_mode()
    def ctc_log_probs(
        self, encoded: Float[Tensor, "batch time dim"]
    ) -> Float[Tensor, "batch time vocab"]:
        """Return natural-log probabilities of tokens and blank for each frame."""
        return self.ctc_head(encoded).log_softmax(dim=-1)

    def log_probs(
        self, waveform: Float[Tensor, "batch samples"], waveform_lengths: Int[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch time vocab"], Int[Tensor, " batch"]]:
        """Return natural-log probabilities (time frames, vocab) and the number of frames.

        Waveforms are in [-1, 1] at `sample_rate`, zero padded. Too short for one frame gives the
        length 0; frames at and beyond the length mean nothing.
        """
        output = self.encode(waveform, waveform_lengths)
        return self.ctc_log_probs(output.encoded), output.lengths


def _check_sizes(config: object, *, part: str, where: object) -> None:
    """Refuse numbers that no encoder or front end has, before memory is asked for them."""
    named = config.items() if isinstance(config, dict) else ()
    for name, size in named:
        largest = _LARGEST_RATE if name == "sample_rate" else _LARGEST_SIZE
        if isinstance(size, (int, float)) and not abs(size) <= largest:
            raise InputError(
                f"damaged header: {part}.{name} {str(size)[:24]}, expected at most {largest}",
                where=where,
                fix="pack it again",
            )


def _of_runtime(named: dict) -> dict:
    """Return what of a mapping by names is not of the attention decoder."""
    return {name: value for name, value in named.items() if not name.startswith(DECODER_PREFIX)}


def _as_computed(tensor: Tensor | PackedIntegers) -> Tensor:
    """Return integers as int8; fp32 as it is; bf16 widened, without loss."""
    if isinstance(tensor, PackedIntegers):
        return unpack_integers(tensor)
    return tensor.float() if tensor.is_floating_point() else tensor
