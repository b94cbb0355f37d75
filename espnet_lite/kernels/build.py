"""Compile the kernels into one shared library, once for these sources, flags and compiler."""

import fcntl
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from espnet_lite.environment import cores
from espnet_lite.errors import InputError
from espnet_lite.files import atomic_path, write_faults_named

SOURCES = Path(__file__).parent / "sources"
# Levels of instructions from low to high, with the flags that let the compiler use them. What a
# processor must have for each is asked in sources/cpu_level.cpp.
_AVX2 = ("-mavx2", "-mfma")
_AVX512 = (*_AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl")
_VNNI = (*_AVX512, "-mavx512vnni", "-mavx512vpopcntdq")  # Intel Ice Lake, AMD Zen 4
LEVELS = {
    "portable": (),
    "avx2": _AVX2,
    "avx512": _AVX512,
    "vnni": _VNNI,
    "amx": (*_VNNI, "-mamx-tile", "-mamx-int8"),
}
_FLAGS = (
    *("-std=c++17", "-O3", "-fPIC", "-fopenmp", "-fvisibility=hidden"),
    *("-fno-exceptions", "-fno-rtti", "-fno-math-errno", "-fno-trapping-math", "-Wall", "-Wextra"),
)


def levels() -> tuple[str, ...]:
    """Return the levels there are on this kind of processor, from low to high."""
    return tuple(LEVELS) if platform.machine() in ("x86_64", "AMD64") else ("portable",)


def _openmp() -> str:
    """Return the OpenMP library that torch runs on, so that both have one pool of threads; where it
    brings none of GCC's, the flag that links the compiler's own. Other packages may have loaded one
    of theirs (sentencepiece's wheel holds one), which would be a second pool."""
    import torch

    maps = Path("/proc/self/maps")
    lines = maps.read_text().splitlines() if maps.exists() else []
    loaded = {Path(line.split(maxsplit=5)[-1]) for line in lines if "/libgomp" in line}
    folder = Path(torch.__file__).resolve().parent
    torchs = [path for path in loaded if folder in path.parents]
    return str(min(torchs or loaded)) if loaded else "-fopenmp"


def compiler(environment: Mapping[str, str]) -> list[str] | None:
    """Return the command of the C++ compiler, None without one."""
    given = shlex.split(environment.get("CXX", ""))
    if given:
        return given if shutil.which(given[0]) else None
    return next(([name] for name in ("g++", "c++") if shutil.which(name)), None)


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Return where compiled libraries are kept."""
    given = environment.get("ESPNET_LITE_KERNELS_CACHE")
    if given:
        return Path(given)
    home = environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "espnet_lite" / "kernels"


@dataclass(frozen=True)
class Build:
    """What a library is made from. Libraries of the same sources and flags share a folder, one for
    each compiler, so that a machine without a compiler finds what another one has made."""

    command: tuple[str, ...] | None  # None: no compiler here
    flags: tuple[str, ...]
    openmp: str
    folder: Path

    @classmethod
    def planned(cls, environment: Mapping[str, str] = os.environ) -> "Build":
        """Return what the sources and this environment ask for; nothing is compiled yet."""
        flags = (*_FLAGS, *shlex.split(environment.get("ESPNET_LITE_KERNELS_FLAGS", "")))
        openmp = _openmp()
        digest = hashlib.sha256()
        for part in (*flags, openmp, platform.machine(), repr(LEVELS)):
            digest.update(part.encode() + b"\0")
        for path in sorted(SOURCES.iterdir()):
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
        command = compiler(environment)
        return cls(
            None if command is None else tuple(command),
            flags,
            openmp,
            cache_folder(environment) / digest.hexdigest()[:16],
        )

    def library(self) -> Path:
        """Return the shared library, compiled now unless it was before.

        Raises:
            InputError: no compiler, one that fails, or a folder that cannot be written.
        """
        if self.command is None:
            made = sorted(self.folder.glob("*.so"))
            if made:
                return made[0]
            raise InputError(
                "no C++ compiler found",
                fix="install one (Debian: apt-get install g++) or name it in CXX",
            )
        version = self._run([*self.command, "--version"])
        path = self.folder / f"{hashlib.sha256(version.encode()).hexdigest()[:16]}.so"
        if not path.exists():
            with _locked(self.folder):
                if not path.exists():  # else another process made it while this one waited
                    self._compile(path)
        return path

    def _compile(self, library: Path) -> None:
        """Compile every source for every level that the compiler knows, on all cores, and link."""
        with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(cores()) as pool:
            objects, commands = [], []
            for level in filter(self._knows, levels()):
                for source in sorted(SOURCES.glob("*.cpp")):
                    objects.append(f"{name}/{source.stem}_{level}.o")
                    options = [*self.flags, *LEVELS[level], f"-DKERNEL_LEVEL={level}"]
                    commands.append([*self.command, *options, "-c", str(source), "-o", objects[-1]])
            list(pool.map(self._run, commands))
            with atomic_path(library) as temporary:
                link = [*self.command, "-shared", *self.flags, *objects, "-o", str(temporary)]
                link.remove("-fopenmp")
                self._run([*link, self.openmp])

    def _knows(self, level: str) -> bool:
        """Return whether the compiler knows the instructions of a level: GCC has AMX since 11."""
        options = [*LEVELS[level], "-x", "c++", "-E", os.devnull, "-o", os.devnull]
        process = _start([*self.command, *options])
        process.communicate()
        return process.returncode == 0

    @staticmethod
    def _run(command: list[str]) -> str:
        process = _start(command)
        out, errors = process.communicate()
        if process.returncode:
            raise _failed(command, errors)
        return out


def _start(command: list[str]) -> subprocess.Popen:
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    )


def _failed(command: list[str], errors: str) -> InputError:
    lines = errors.strip().splitlines()
    first = next((line for line in lines if "error" in line), lines[0] if lines else "no message")
    return InputError(f"the C++ compiler failed: {first}", fix=f"it was: {shlex.join(command)}")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time compile into `folder`, the others wait.

    The lock goes with its process. On a file system without locks two may compile at once: each
    renames a whole library to the same name.
    """
    with write_faults_named(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / ".lock", "w") as file:
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            yield
