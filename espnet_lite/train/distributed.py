"""Processes that train one model together: who this one is, and the few words they exchange.

`torchrun` starts them and says in the environment who each is; a process started without it is
alone, and every exchange below then costs nothing. All ranks call the same methods in the same order.
"""

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from espnet_lite.errors import InputError


@dataclass(frozen=True)
class Processes:
    """The processes of a training.

    Attributes:
        rank: number of this process among all, from 0; 0 writes files and talks.
        size: number of processes on all machines.
        local_rank: number of this process on its machine: its GPU.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """True for the one process that writes files."""
        return self.rank == 0

    def sums(self, values: Sequence[float | int]) -> list[float | int]:
        """Return the sum over all processes of each value, in fp64."""
        return self._reduced(values, distributed.ReduceOp.SUM)

    def largest(self, values: Sequence[float | int]) -> list[float | int]:
        """Return the largest over all processes of each value."""
        return self._reduced(values, distributed.ReduceOp.MAX)

    def gather(self, value: object) -> list:
        """Return what every process gave, in the order of ranks; for small, rare things."""
        if self.size == 1:
            return [value]
        values = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    def fail_together(self, fault: InputError | None) -> None:
        """End all processes where one has a fault: the first raises it, the others end silently.

        Raises:
            InputError: on the first process, the fault of the lowest rank that has one.
            SystemExit: with code 2, on the others.
        """
        [failed] = self.largest([float(fault is not None)])
        if not failed:
            return
        faults = [text for text in self.gather(str(fault) if fault else None) if text]
        if self.is_first:
            raise fault or InputError(faults[0])
        raise SystemExit(2)

    @contextlib.contextmanager
    def first_goes_first(self) -> Iterator[None]:
        """Run the block in the first process, then in the others.

        A mistake of the user is told once, before the others do any work, and what the first
        process writes in the block is there for them.

        Raises:
            InputError, SystemExit: as `fail_together`, where the block raised an InputError.
        """
        if self.size == 1:
            yield
            return
        if not self.is_first and self.largest([0])[0]:
            raise SystemExit(2)
        fault = None
        try:
            yield
        except InputError as error:
            fault = error
        if self.is_first:
            self.largest([int(fault is not None)])
            if fault is not None:
                raise fault
        self.fail_together(fault)

    def shared(self, model: nn.Module, device: torch.device) -> nn.Module:
        """Return what to call instead of `model`: its gradients are the mean over all processes."""
        if self.size == 1:
            return model
        on_gpu = device.type == "cuda"
        return DistributedDataParallel(model, device_ids=[device.index] if on_gpu else None)

    def _reduced(self, values: Sequence[float | int], operation) -> list[float | int]:
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(tensor, op=operation)
        return tensor.tolist()


ALONE = Processes()
_TORCHRUN = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # what each process is told by it


def _end_with_parent() -> None:
    """Ask the kernel for SIGTERM when the launcher dies, so that a kill -9 of it leaves no orphans.

    The state is saved then, as at any SIGTERM. Only Linux has this.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # 1: PR_SET_PDEATHSIG


@contextlib.contextmanager
def joined_processes() -> Iterator[Processes]:
    """Yield the processes that torchrun's environment tells of, connected; ALONE without it.

    Numbers travel by gloo, gradients on GPUs by NCCL.

    Raises:
        InputError: the environment tells of several processes, and not which one this is.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    missing = [name for name in _TORCHRUN if name not in os.environ]
    if missing:
        raise InputError(
            f"WORLD_SIZE is {size}, but {', '.join(missing)} is not set in the environment",
            fix="start the processes with torchrun or run_processes, or unset WORLD_SIZE",
        )
    _end_with_parent()
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend)
    try:
        yield Processes(
            rank=distributed.get_rank(), size=size, local_rank=int(os.environ["LOCAL_RANK"])
        )
    except (InputError, SystemExit):
        # It ends by itself, with its own exit code, though the agent stops it when another was faster.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise
    finally:
        distributed.destroy_process_group()
