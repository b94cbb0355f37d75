"""A language model in one packed file (runtime/format.py).

An n-gram has the tensors `level_starts`, `parent`, `word`, `log_prob` and `backoff` (lm/ngram.py), the
last without the longest n-grams, which nothing follows. A Transformer has its weights, in bf16.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from espnet_lite.config import from_plain, to_plain
from espnet_lite.errors import InputError
from espnet_lite.lm.arpa import read_arpa
from espnet_lite.lm.header import KIND, NGRAM, TRANSFORMER, check_kind, is_arpa
from espnet_lite.lm.ngram import NgramModel, check_vocabulary
from espnet_lite.lm.transformer import TransformerLm, TransformerLmConfig
from espnet_lite.runtime.format import read_packed, write_packed

_TENSORS = {"level_starts", "parent", "word", "log_prob", "backoff"}


def write_ngram(path: Path, model: NgramModel, *, unit: str, record: dict) -> None:
    """Write an n-gram of `unit` token or word, whole or not at all."""
    inner = int(model.level_starts[-2])  # nodes that something may follow
    tensors = {
        "level_starts": torch.from_numpy(model.level_starts),
        "parent": torch.from_numpy(model.parent),
        "word": torch.from_numpy(model.word),
        "log_prob": torch.from_numpy(model.log_prob),
        "backoff": torch.from_numpy(model.backoff[:inner].copy()),
    }
    header = {"kind": KIND, "family": NGRAM, "unit": unit, "words": model.words, "record": record}
    write_packed(path, tensors, header)


def read_ngram(path: Path) -> NgramModel:
    """Return the n-gram of a packed or an ARPA file.

    Raises:
        InputError: not such a file, or a damaged one.
    """
    if is_arpa(path):
        return read_arpa(path)
    header, tensors = read_packed(path)
    if check_kind(header, path)["family"] != NGRAM or tensors.keys() != _TENSORS:
        raise InputError("a language model, but no n-gram", where=path)
    check_vocabulary(header["words"], where=path)
    leaves = torch.zeros(len(tensors["parent"]) - len(tensors["backoff"]))
    tensors["backoff"] = torch.cat([tensors["backoff"], leaves])
    return NgramModel(header["words"], **{name: t.numpy() for name, t in tensors.items()})


def write_transformer(
    path: Path,
    weights: dict[str, torch.Tensor],
    config: TransformerLmConfig,
    *,
    tokens: Sequence[str],
    record: dict,
) -> None:
    """Write a Transformer language model in bf16, whole or not at all."""
    header = {
        "kind": KIND,
        "family": TRANSFORMER,
        "architecture": to_plain(config),
        "tokens": list(tokens),
        "record": record,
    }
    write_packed(path, {name: weight.bfloat16() for name, weight in weights.items()}, header)


def read_transformer(path: Path) -> tuple[TransformerLm, list[str]]:
    """Return the Transformer of a packed file, in eval mode and fp32, and its table of tokens.

    Raises:
        InputError: not such a file, a damaged one, or tensors that are not its architecture's.
    """
    header, tensors = read_packed(path)
    if check_kind(header, path)["family"] != TRANSFORMER:
        raise InputError("a language model, but no Transformer", where=path)
    config = from_plain(TransformerLmConfig, header["architecture"], where=path)
    model = TransformerLm(config, vocab=len(header["tokens"]))
    expected = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    found = {name: tuple(weight.shape) for name, weight in tensors.items()}
    if found != expected:
        odd = sorted(found.items() ^ expected.items())[0][0]
        raise InputError(
            f"tensor '{odd}' has the shape {found.get(odd)}, the architecture expects "
            f"{expected.get(odd)}",
            where=path,
        )
    model.load_state_dict(tensors)
    return model.eval(), header["tokens"]
