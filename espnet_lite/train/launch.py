"""Several processes of one machine, started and watched by torchrun's agent."""

import logging
import os
import signal
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from espnet_lite.errors import REQUEUE
from espnet_lite.train.trainer import STOP_SIGNALS

_SECONDS_TO_SAVE = 120  # from a stop signal to SIGKILL


def run_together(command: Sequence[str], *, processes: int) -> int:
    """Run `processes` times `command` as the ranks of one training and return the exit code.

    A signal of STOP_SIGNALS is passed on to all of them, which save their state and end.

    Returns:
        0 when all ended with 0; REQUEUE after a stop signal; else the exit code of the process
        that failed first (128 + n where signal n killed it). The others are then stopped.
    """
    # The agent's report of a failure says nothing that the process has not said in one line.
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as torchrun does
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=str(os.getpid()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",  # any free port
        local_addr="localhost",
        max_restarts=0,
        signals_to_handle=",".join(signal.Signals(number).name for number in STOP_SIGNALS),
        shutdown_timeout=_SECONDS_TO_SAVE,
    )
    try:
        elastic_launch(config, command[0])(*command[1:])
    except SignalException:
        return REQUEUE
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        return code if code > 0 else 128 - code
    return 0
