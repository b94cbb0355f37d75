"""Checkpoints of sharded trainings: each process writes its own share, by torch.distributed.checkpoint.

A checkpoint is a folder `update_<n>` that appears by a rename once it is whole:
    shard-<process>-…safetensors  shares of weights, and of the optimizer's moments, keyed
                                  `<parameter>|<state>`, each with its place in the whole tensor
    state.json                    as of any checkpoint, and the number of shards; written last

Any number of processes reads it, also one alone, which needs no sharding; and a sharded training goes
on from a checkpoint that one process wrote. `merge_checkpoint` makes one file of the weights. The shares
are safetensors, as torch's Hugging Face writer makes them: its own format is pickled.
"""

import contextlib
import json
import math
import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, distributed, nn
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from espnet_lite.errors import InputError
from espnet_lite.files import atomic_folder, write_faults_named
from espnet_lite.train.checkpoint import is_sharded, optimizer_tensors
from espnet_lite.train.distributed import Processes

_SHARDS = "shards"  # key of state.json


def save_sharded(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: dict,
    processes: Processes,
) -> None:
    """Write one checkpoint folder; called by all processes, on a file system that they share.

    Raises:
        InputError: on the first process, where any of them cannot write; the earlier ones stay.
        SystemExit: with code 2, on the others.
    """
    fault = None
    try:
        _save(
            folder, {**model.state_dict(), **optimizer_tensors(model, optimizer)}, state, processes
        )
    except InputError as error:
        fault = error
    processes.fail_together(fault)


def _save(folder: Path, tensors: dict[str, Tensor], state: dict, processes: Processes) -> None:
    with contextlib.ExitStack() as held:
        place = None
        try:
            if processes.is_first:
                place = held.enter_context(atomic_folder(folder))
        finally:
            place = processes.gather(place)[0]
        if place is None:  # the first one could not make it
            return
        try:
            dcp.save(
                tensors,
                storage_writer=dcp.HuggingFaceStorageWriter(str(place), save_distributed=True),
            )
        except dcp.CheckpointException as error:  # in all processes, whichever failed
            cause = next(iter(error.failures.values()))[0]
            with write_faults_named(folder):
                raise cause from error
        [shards] = processes.sums([len(list(place.glob(f"shard-{processes.rank + 1:05}-*")))])
        if processes.is_first:
            text = json.dumps({_SHARDS: int(shards), **state}, indent=1)
            (place / "state.json").write_text(text, encoding="utf-8")


def load_sharded(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict:
    """Put weights and optimizer back as they were and return the state; called by all processes.

    The model may be sharded over another number of processes than wrote it, or not at all.

    Raises:
        InputError: a shard is missing or damaged.
    """
    state, shards = _state(folder)
    stored = _stored(folder, shards)
    parameters = dict(model.named_parameters())
    moments = {
        key: _room(parameters[key.rpartition("|")[0]], like)
        for key, like in stored.items()
        if "|" in key
    }
    _load({**model.state_dict(), **moments}, folder)
    for key, value in moments.items():
        name, _, kind = key.rpartition("|")
        optimizer.state[parameters[name]][kind] = value
    return state


def merged_weights(folder: Path) -> dict[str, Tensor]:
    """Return the weights of a sharded checkpoint whole, without any other process.

    Raises:
        InputError: not a sharded checkpoint, or a shard is missing or damaged.
    """
    if not (folder / "state.json").is_file() or not is_sharded(folder):
        raise InputError(
            "not a sharded checkpoint",
            where=folder,
            fix="name a folder EXPDIR/checkpoints/update_N of a training with train.sharding=fsdp;"
            " other checkpoints have their weights in one model.safetensors",
        )
    weights = {
        name: torch.empty(like.size, dtype=like.properties.dtype)
        for name, like in _stored(folder, _state(folder)[1]).items()
        if "|" not in name
    }
    _load(weights, folder)
    return weights


def _state(folder: Path) -> tuple[dict, int | None]:
    """Return the state and the number of shards, None of a checkpoint of one process."""
    path = folder / "state.json"
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"not JSON: {error}", where=path, fix=_another(folder)) from error
    if not isinstance(state, dict):
        raise InputError(f"{type(state).__name__}, expected a mapping", where=path)
    return state, state.pop(_SHARDS, None)


def _stored(folder: Path, shards: int | None) -> dict[str, TensorStorageMetadata]:
    """Return size and type of each whole tensor, and make sure that all of it is there."""
    found = len(list(folder.glob("shard-*.safetensors")))
    if shards is not None and found != shards:
        raise InputError(f"{found} shards, expected {shards}", where=folder, fix=_another(folder))
    try:
        reader = dcp.HuggingFaceStorageReader(str(folder))
        stored = reader.read_metadata().state_dict_metadata
    except (SafetensorError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise _damaged(folder, error) from error
    for name, like in stored.items():
        held = sum(math.prod(chunk.sizes) for chunk in like.chunks)
        if held != math.prod(like.size):
            raise InputError(
                f"{held} of {math.prod(like.size)} numbers of {name}",
                where=folder,
                fix=_another(folder),
            )
    return stored


def _room(parameter: nn.Parameter, like: TensorStorageMetadata) -> Tensor:
    """Return where a state of the optimizer is read to: sharded as its parameter, or whole."""
    if like.size == parameter.shape:
        return torch.zeros_like(parameter, requires_grad=False)
    return torch.zeros(like.size, dtype=like.properties.dtype, device=parameter.device)


def _load(tensors: dict[str, Tensor], folder: Path) -> None:
    """Read into the tensors, of sharded ones the share of this process."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            dcp.load(
                tensors,
                storage_reader=dcp.HuggingFaceStorageReader(str(folder)),
                no_dist=not distributed.is_initialized(),
            )
    except dcp.CheckpointException as error:
        raise _damaged(folder, next(iter(error.failures.values()))[0]) from error


def _damaged(folder: Path, cause: BaseException) -> InputError:
    line = str(cause).partition("\n")[0]
    return InputError(f"cannot be read: {line}", where=folder, fix=_another(folder))


def _another(folder: Path) -> str:
    return f"rm -r {folder} and run again: the training goes on from the checkpoint before it"
