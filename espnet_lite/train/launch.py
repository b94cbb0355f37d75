"""Several processes of one machine, or of each of several, started and watched by torchrun's agent."""

import logging
import os
import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from espnet_lite.errors import REQUEUE, InputError
from espnet_lite.train.trainer import STOP_SIGNALS

_SECONDS_TO_SAVE = 120  # from a stop signal to SIGKILL
_SECONDS_TO_MEET = 600  # nodes of one job may start minutes apart
_FIRST_PORT, _PORTS = 20000, 20000  # below those that the system gives away by itself


@dataclass(frozen=True)
class Meeting:
    """Where the machines of a training find each other.

    Attributes:
        name: the same on all of them, of this training alone.
        host: address of the machine that keeps the list of all.
        port: there.
        is_host: whether this is that machine.
        nodes: how many machines there are.
    """

    name: str
    host: str
    port: int
    is_host: bool
    nodes: int


def meeting_of_slurm(nodes: int, environment: Mapping[str, str]) -> Meeting:
    """Return the meeting of the nodes of a job step of Slurm, begun by srun with a task on each.

    Raises:
        InputError: this is no such step, or it has another number of nodes.
    """
    names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_NODEID", "SLURM_LAUNCH_NODE_IPADDR")
    missing = [name for name in (*names, "SLURM_STEP_NUM_NODES") if name not in environment]
    if missing:
        raise InputError(
            f"{nodes} machines, but {', '.join(missing)} is not set in the environment",
            where="--num_nodes",
            fix="start it with srun, a task on each node, or give --rendezvous HOST:PORT",
        )
    job, step, node, host = (environment[name] for name in names)
    if int(environment["SLURM_STEP_NUM_NODES"]) != nodes:
        raise InputError(
            f"{nodes}, but this job step has {environment['SLURM_STEP_NUM_NODES']} nodes",
            where="--num_nodes",
        )
    return Meeting(
        name=f"{job}.{step}",
        host=host,  # of the batch script: the first node
        port=_FIRST_PORT + int(job) % _PORTS,
        is_host=node == "0",
        nodes=nodes,
    )


def run_together(
    command: Sequence[str], *, processes: int, meeting: Meeting | None = None, restarts: int = 0
) -> int:
    """Run `processes` times `command` as the ranks of one training and return the exit code.

    A signal of STOP_SIGNALS is passed on to all of them, which save their state and end. When one
    is killed, as for want of memory, all are started again, up to `restarts` times, and go on from
    the last checkpoint; on several machines that is each agent's work, and they meet anew.

    Args:
        meeting: of several machines, on each of which this is called; None: this one alone.

    Returns:
        0 when all ended with 0; REQUEUE after a stop signal; else the exit code of the process
        that failed first (128 + n where signal n killed it). The others are then stopped.
    """
    # The agent's report of a failure says nothing that the process has not said in one line.
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as torchrun does
    for attempt in range(restarts + 1):
        code = _run_once(command, processes, meeting, attempt)
        # Where a machine lost its peers, its own processes failed by their broken connections.
        lost = code > 128 or (meeting is not None and code == 1)
        if not lost or attempt == restarts:
            break
        print(
            f"a process ended with code {code}; starting all again ({attempt + 1} of {restarts})",
            flush=True,
        )
    return code


def _run_once(command: Sequence[str], processes: int, meeting: Meeting | None, attempt: int) -> int:
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=f"{os.getpid()}.{attempt}",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",  # any free port
        local_addr="localhost",
        max_restarts=0,
        signals_to_handle=",".join(signal.Signals(number).name for number in STOP_SIGNALS),
        shutdown_timeout=_SECONDS_TO_SAVE,
    )
    if meeting is not None:
        config.min_nodes = config.max_nodes = meeting.nodes
        config.run_id = f"{meeting.name}.{attempt}"
        # The list of an earlier attempt may still hold its port.
        config.rdzv_endpoint = f"{meeting.host}:{meeting.port + attempt}"
        config.rdzv_configs = {"timeout": _SECONDS_TO_MEET, "is_host": meeting.is_host}
        config.local_addr = "localhost" if meeting.host.startswith("127.") else None
    try:
        elastic_launch(config, command[0])(*command[1:])
    except SignalException:
        return REQUEUE
    except ChildFailedError as error:
        code = first_failure(error.failures.values())
        return code if code > 0 else 128 - code
    return 0


def first_failure(failures: Iterable[ProcessFailure]) -> int:
    """Return the exit code, −n for signal n, of the process whose end ended the others.

    A mistake that was told is what ended all, whatever became of the others as they ended. torch knows
    when the rest failed by whole seconds alone. Of those of one second a kill comes first: by that the
    connections of others broke, and the agent stopped still others by SIGTERM.
    """

    def place(failure: ProcessFailure) -> tuple:
        code = failure.exitcode
        return code != 2, failure.timestamp, code == -signal.SIGTERM, code > 0

    return min(failures, key=place).exitcode
