"""Parts of a model by name: what a training leaves as it is, for a while or to its end."""

from collections.abc import Sequence

from torch import nn

from espnet_lite.errors import InputError, unknown_name


def parameters_of(model: nn.Module, parts: Sequence[str], *, where: str) -> list[nn.Parameter]:
    """Return the parameters of the parts, in the model's order and each once.

    Args:
        model: the model whose children, or deeper modules and parameters, are named.
        parts: names such as `encoder` or `encoder.blocks.0`.
        where: the key that names the parts, for messages.

    Raises:
        InputError: the model has no such part; names the nearest and lists its children.
    """
    named = dict(model.named_parameters())
    for part in parts:
        if not any(_is_within(name, part) for name in named):
            raise _unknown(part, list(named), where=where)
    return [
        parameter
        for name, parameter in named.items()
        if any(_is_within(name, part) for part in parts)
    ]


def _is_within(name: str, part: str) -> bool:
    return f"{name}.".startswith(f"{part}.")


def _unknown(part: str, names: list[str], *, where: str) -> InputError:
    """Return the error that lists the children of the deepest module `part` names rightly."""
    inside, asked = "", part.split(".")
    while asked and any(name.startswith(f"{inside}{asked[0]}.") for name in names):
        inside += f"{asked.pop(0)}."
    depth = inside.count(".")
    known = {inside + name.split(".")[depth] for name in names if name.startswith(inside)}
    return unknown_name("part of the model", part, known, where=where)
