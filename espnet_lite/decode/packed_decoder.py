"""The attention decoder of a packed model, which the runtime leaves in the file."""

from dataclasses import dataclass
from pathlib import Path

from espnet_lite.config import from_plain, optional_choice
from espnet_lite.decode.families import DECODERS, build_decoder
from espnet_lite.errors import InputError
from espnet_lite.nn.decoder import TransformerDecoder
from espnet_lite.runtime.format import read_packed
from espnet_lite.runtime.packed_model import DECODER_PREFIX


@dataclass(frozen=True)
class _Section:
    decoder: object = optional_choice(DECODERS)


def load_decoder(path: Path | str, *, dim: int) -> TransformerDecoder:
    """Return the decoder of a packed file that has one, in eval mode, weights widened to fp32.

    Args:
        dim: width of the encoder.

    Raises:
        InputError: what read_packed finds, or tensors that are not those of the decoder's
            architecture (the first one that differs is named).
    """
    header, tensors = read_packed(path)
    plain = {"decoder": header["architecture"]["decoder"]}
    config = from_plain(_Section, plain, where=path).decoder
    decoder = build_decoder(config, vocab=header["architecture"]["vocab"], dim=dim)
    given = {
        name.removeprefix(DECODER_PREFIX): tensor
        for name, tensor in tensors.items()
        if name.startswith(DECODER_PREFIX)
    }
    shapes = {name: list(tensor.shape) for name, tensor in decoder.state_dict().items()}
    found = {name: list(tensor.shape) for name, tensor in given.items()}
    for name in sorted(shapes.keys() | found.keys()):
        if shapes.get(name) != found.get(name):
            raise InputError(
                f"tensor '{DECODER_PREFIX}{name}' has the shape {found.get(name)}, "
                f"the architecture expects {shapes.get(name)}",
                where=path,
            )
    decoder.load_state_dict(given)
    return decoder.eval()
