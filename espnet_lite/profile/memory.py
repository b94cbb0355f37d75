"""How much memory a process has had."""

import resource
import sys
from pathlib import Path


def peak_bytes() -> int:
    """Return the most memory that this process had in RAM at a time.

    Of Linux's two numbers that of the address space is taken: getrusage's also counts what the
    process that started this one had.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024  # kB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS: bytes, else kB
