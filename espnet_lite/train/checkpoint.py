"""Checkpoints: weights as safetensors, the rest as JSON, the optimizer in a file of its own.

A checkpoint is a folder `update_<n>` that appears by a rename once it is whole:
    model.safetensors      weights
    optimizer.safetensors  moments, keyed `<parameter>|<state>`
    state.json             update, epoch, position, seconds used, running sums, versions

No state of a random generator is kept: every batch brings its own seed.
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from espnet_lite.errors import InputError
from espnet_lite.files import atomic_folder, atomic_path


def folder_name(update: int) -> str:
    """Return the name of the checkpoint after `update` updates; names sort by update."""
    return f"update_{update:08d}"


def save_weights(path: Path, weights: dict[str, Tensor]) -> None:
    """Write weights as safetensors, whole or not at all."""
    with atomic_path(path) as temporary:
        _write(temporary, weights)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the weights that `save_weights` wrote.

    Raises:
        InputError: no such file, or a damaged one.
    """
    if not path.is_file():
        raise InputError("no such file", where=path, fix="train it to its end first")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(
            f"not a readable safetensors file: {error}", where=path, fix="train again with --fresh"
        ) from error


def save_checkpoint(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, state: dict
) -> None:
    """Write one checkpoint folder; on a full disk the earlier ones stay and one line is raised."""
    with atomic_folder(folder) as temporary:
        _write(temporary / "model.safetensors", model.state_dict())
        _write(temporary / "optimizer.safetensors", optimizer_tensors(model, optimizer))
        (temporary / "state.json").write_text(json.dumps(state, indent=1), encoding="utf-8")


def load_checkpoint(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict:
    """Put weights and optimizer back as they were and return the state."""
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    model.load_state_dict(load_file(folder / "model.safetensors"))
    _restore_optimizer(model, optimizer, load_file(folder / "optimizer.safetensors"))
    return state


def is_sharded(folder: Path) -> bool:
    """Return whether a checkpoint is in shares, as train/sharded_checkpoint.py writes them."""
    return any(folder.glob("shard-*.safetensors"))


def checkpoints(folder: Path) -> list[Path]:
    """Return the whole checkpoints below `folder`, oldest first."""
    return sorted(path for path in folder.glob("update_*") if (path / "state.json").is_file())


def keep_last(folder: Path, count: int) -> None:
    """Remove all but the newest `count` checkpoints.

    Each is renamed first, to a name that `remove_leftovers` takes: a run killed in between leaves
    no half of a checkpoint that nobody would remove.
    """
    for path in checkpoints(folder)[:-count]:
        shutil.rmtree(path.rename(path.with_name(f".{path.name}.old")))


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files and folders of runs that were killed while writing."""
    for path in [*folder.glob(".*.tmp*"), *folder.glob(".*.old")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def average_weights(paths: list[Path]) -> dict[str, Tensor]:
    """Return the mean of the weights in `paths`, summed in fp64; integer buffers are the first's.

    Raises:
        InputError: a file is missing.
    """
    for path in paths:
        if not path.is_file():
            raise InputError("no such checkpoint", where=path, fix="train again with --fresh")
    loaded = [load_file(path) for path in paths]
    mean = {}
    for name, first in loaded[0].items():
        if first.is_floating_point():
            total = sum(weights[name].double() for weights in loaded)
            mean[name] = (total / len(loaded)).to(first.dtype)
        else:
            mean[name] = first
    return mean


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors as safetensors; a full disk is an OSError, which safetensors' own writer hides."""
    owned = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    path.write_bytes(save(owned))


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the state of the optimizer, keyed `<parameter>|<state>`."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    tensors = {}
    for parameter, values in optimizer.state.items():
        for key, value in values.items():
            tensors[f"{names[parameter]}|{key}"] = torch.as_tensor(value).detach()
    return tensors


def _restore_optimizer(model: nn.Module, optimizer, tensors: dict[str, Tensor]) -> None:
    parameters = dict(model.named_parameters())
    for key, value in tensors.items():
        name, _, state = key.rpartition("|")
        parameter = parameters[name]
        # AdamW keeps its step count on the CPU unless fused on an accelerator; as torch does.
        optimizer.state[parameter][state] = value.to(parameter.device)
