"""Sharded training: every process keeps its share of weights, gradients and moments (FSDP2).

Rajbhandari et al. 2020, ZeRO stage 3; Zhao et al. 2023, PyTorch FSDP; torch's `fully_shard`. A block's
weights are gathered when it computes and given back after it; its gradients are summed into shares.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

_BLOCKS = "blocks"  # what encoders, decoders and language models call the list of theirs


def shard(model: nn.Module, device: torch.device) -> dict[nn.Parameter, nn.Parameter]:
    """Split the parameters of `model` over all processes, each by its first axis.

    Those of one block of an encoder or decoder travel together, all others with the model itself.
    All processes call this with the same weights.

    Returns:
        For each parameter the new one that stands in its place.
    """
    names = {parameter: name for name, parameter in model.named_parameters()}
    if device.type == "cuda":
        torch.cuda.set_device(device)
    mesh = init_device_mesh(device.type, (distributed.get_world_size(),))
    for name, module in list(model.named_modules()):
        if name.rpartition(".")[2] == _BLOCKS and isinstance(module, nn.ModuleList):
            for block in module:
                fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    new = dict(model.named_parameters())
    return {parameter: new[name] for parameter, name in names.items()}


@contextlib.contextmanager
def held_whole(model: nn.Module) -> Iterator[None]:
    """Keep all weights in every process for the block: its forward passes then exchange nothing.

    So the processes may call the model as often as each likes, without gradients. A model that is not
    sharded is left as it is.
    """
    modules = [module for module in model.modules() if isinstance(module, FSDPModule)]
    if not modules:
        yield
        return
    model.set_reshard_after_forward(False)
    for module in modules:
        module.unshard()
    try:
        yield
    finally:
        for module in modules:
            module.reshard()
        model.set_reshard_after_forward(True)
        # What the whole model holds by itself is needed again as soon as the backward pass begins.
        model.set_reshard_after_forward(False, recurse=False)


def local(tensor: Tensor) -> Tensor:
    """Return this process's share of a tensor, without a copy; one that is not sharded is its own."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole_weights(model: nn.Module, *, keep: bool) -> dict[str, Tensor]:
    """Return the weights as they are without sharding, on the CPU where they were sharded.

    All processes call this; one that does not `keep` gets {}, and never holds more than one of them.
    """
    weights = {}
    for name, tensor in model.state_dict().items():
        gathered = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if keep:
            weights[name] = gathered.cpu() if isinstance(tensor, DTensor) else gathered
    return weights
