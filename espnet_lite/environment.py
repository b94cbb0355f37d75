"""What a number was measured with: processor, versions, commit."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

from espnet_lite import __version__


def cpu_name() -> str:
    """Return the processor's model name as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def commit() -> str:
    """Return the toolkit's git commit (12 digits), `+` behind it if files differ; "" outside git."""
    folder = Path(__file__).resolve().parent
    try:
        shown = subprocess.run(
            [
                *("git", "-C", str(folder), "describe"),
                *("--always", "--abbrev=12", "--dirty=+", "--exclude=*"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:  # no git on this machine
        return ""
    return shown.stdout.strip() if shown.returncode == 0 else ""


def describe() -> dict[str, object]:
    """Return processor, cores, system, versions and commit as a JSON-able dict."""
    return {
        "cpu": cpu_name(),
        "cores": cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": metadata.version("torch"),
        "toolkit": __version__,
        "commit": commit(),
    }
