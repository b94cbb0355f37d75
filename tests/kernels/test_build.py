"""The library of kernels: compiled once, kept, and done without where it cannot be had."""

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from espnet_lite.bin.build_kernels import main
from espnet_lite.errors import InputError
from espnet_lite.kernels import build
from espnet_lite.kernels.build import LEVELS, Build, cache_folder, compiler, levels
from espnet_lite.kernels.library import Library, library

ROOT = Path(__file__).resolve().parents[2]
needs_compiler = pytest.mark.skipif(compiler(os.environ) is None, reason="no C++ compiler here")


@pytest.fixture
def plan(tmp_path) -> Build:
    """Return a build of unoptimized kernels in a folder of its own."""
    made = Build.planned({"PATH": os.environ["PATH"], "ESPNET_LITE_KERNELS_CACHE": str(tmp_path)})
    return replace(made, flags=(*made.flags, "-O0"))


def attention_of_process(**environment: str) -> subprocess.CompletedProcess:
    """Let a new process mix values twice; it prints the level and the largest error."""
    code = """
import torch
from espnet_lite.kernels.library import chosen_level
from espnet_lite.kernels.local_attention import in_blocks
from espnet_lite.nn.local_attention import LocalAttention
given = torch.randn(3, 1, 2, 70, 8)
for _ in range(2):
    mixed = LocalAttention(window=4)(*given)
wanted = in_blocks(*given, None, window=4, global_tokens=0)
print(chosen_level(), torch.allclose(mixed, wanted, atol=1e-5))
"""
    kept = {name: text for name, text in os.environ.items() if "ESPNET_LITE" not in name}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**kept, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@needs_compiler
def test_compiled_once_and_by_one_of_many(plan, monkeypatch):
    compiled = []
    monkeypatch.setattr(
        Build, "_compile", lambda self, path: compiled.append(path) or path.write_bytes(b"")
    )
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(lambda _: plan.library(), range(8)))
    assert paths == set(compiled) and len(compiled) == 1


@needs_compiler
def test_the_library_has_every_kernel_at_every_level(plan):
    path = plan.library()
    assert [p.name for p in plan.folder.iterdir() if p.suffix != ".lock" and p.name != ".lock"] == [
        path.name
    ]
    made = Library(path)
    assert made.level in levels()
    for source in build.SOURCES.glob("*.cpp"):
        for level in levels():
            made.function(source.stem, level, ())
    assert plan.library() == path


@needs_compiler
def test_no_code_is_shared_between_levels(tmp_path):
    """A function that several objects have is linked once: with instructions some processors lack."""
    if shutil.which("nm") is None:
        pytest.skip("no nm here")
    for source in build.SOURCES.glob("*.cpp"):
        for level in levels():
            target = tmp_path / "one.o"
            flags = [*build._FLAGS, *LEVELS[level], f"-DKERNEL_LEVEL={level}", "-O0"]
            command = [*compiler(os.environ), *flags, "-c", str(source), "-o", str(target)]
            subprocess.run(command, check=True)
            listed = subprocess.run(["nm", target], capture_output=True, text=True, check=True)
            symbols = [line.split()[-2:] for line in listed.stdout.splitlines()]
            defined = [name for kind, name in symbols if kind in "TDBRWVuiC"]
            assert f"{source.stem}_{level}" in defined
            assert all(re.fullmatch(rf"{source.stem}\w*_{level}", name) for name in defined), (
                defined
            )


@needs_compiler
def test_without_a_compiler_what_another_one_made_is_used(plan):
    alone = replace(plan, command=None)
    with pytest.raises(InputError, match=r"no C\+\+ compiler found; install one .* in CXX"):
        alone.library()
    path = plan.library()
    assert alone.library() == path


@needs_compiler
def test_other_flags_and_other_sources_are_another_library(plan, tmp_path, monkeypatch):
    environment = {"PATH": os.environ["PATH"], "ESPNET_LITE_KERNELS_CACHE": str(tmp_path)}
    plain = Build.planned(environment)
    flagged = Build.planned({**environment, "ESPNET_LITE_KERNELS_FLAGS": "-g -O1"})
    assert flagged.folder != plain.folder and flagged.flags[-2:] == ("-g", "-O1")
    changed = tmp_path / "sources"
    shutil.copytree(build.SOURCES, changed)
    monkeypatch.setattr(build, "SOURCES", changed)
    assert Build.planned(environment).folder == plain.folder
    (changed / "lanes.h").write_text("// changed")
    assert Build.planned(environment).folder != plain.folder


@needs_compiler
def test_a_level_that_the_compiler_does_not_know_is_left_out(plan, monkeypatch):
    unknown = ("-mno-such-instructions",)
    monkeypatch.setitem(build.LEVELS, levels()[-1], unknown)
    made = Library(plan.library())
    if len(levels()) > 1:
        assert made.level in levels()[:-1]
        with pytest.raises(AttributeError):
            made.function("cpu_level", levels()[-1], ())


@needs_compiler
def test_a_compiler_that_fails_is_one_line_and_leaves_nothing(plan):
    broken = replace(plan, flags=(*plan.flags, "-include", "no_such_file.h"))
    with pytest.raises(InputError) as caught:
        broken.library()
    message = str(caught.value)
    assert message.startswith("the C++ compiler failed: ") and "no_such_file.h" in message
    assert "; it was: g++ " in message or "CXX" in os.environ
    assert not list(plan.folder.glob("*.so"))


def test_where_libraries_are_kept():
    assert cache_folder({"ESPNET_LITE_KERNELS_CACHE": "/a/b"}) == Path("/a/b")
    assert cache_folder({"XDG_CACHE_HOME": "/c"}) == Path("/c/espnet_lite/kernels")
    assert cache_folder({}) == Path.home() / ".cache/espnet_lite/kernels"


def test_threads_are_torchs_own_pool():
    """One OpenMP library more in the process would be a second pool of threads."""
    script = """
import sys
from pathlib import Path
if "first" in sys.argv:
    import sentencepiece
from espnet_lite.kernels.library import library
def loaded():
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {line.split(maxsplit=5)[-1] for line in lines if "/libgomp" in line}
import torch
before = loaded()
library()
print(len(before), loaded() == before)
"""
    for order in ("first", "alone"):
        run = subprocess.run(
            [sys.executable, "-c", script, order], capture_output=True, text=True, check=True
        )
        count, same = run.stdout.split()
        assert same == "True" or count == "0", run.stdout


@needs_compiler
def test_a_lower_level_can_be_forced():
    for level in ("portable", "torch"):
        done = attention_of_process(ESPNET_LITE_KERNELS=level)
        assert (done.stdout, done.stderr) == (f"{level} True\n", "")


@pytest.mark.parametrize(
    ("level", "expected"),
    [("avx", "ESPNET_LITE_KERNELS: unknown level 'avx' (did you mean 'avx2'?)")],
)
def test_a_level_that_is_none(level, expected):
    done = attention_of_process(ESPNET_LITE_KERNELS=level)
    assert done.returncode == 1 and expected in done.stderr.splitlines()[-1]


def test_a_level_the_processor_lacks(monkeypatch):
    from espnet_lite.kernels import library as module

    class Old:
        level = "portable"

    monkeypatch.setattr(module, "library", Old)
    monkeypatch.setenv("ESPNET_LITE_KERNELS", levels()[-1])
    if len(levels()) > 1:
        told = f"{levels()[-1]}, but this processor has only portable"
        with pytest.raises(InputError, match=told):
            module.chosen_level.__wrapped__()


def test_without_compiler_and_cache_torch_does_it_and_it_is_said_once(tmp_path):
    done = attention_of_process(CXX="no-such-compiler", ESPNET_LITE_KERNELS_CACHE=str(tmp_path))
    assert done.stdout == "torch True\n"
    assert done.stderr == (
        "espnet_lite: no C++ kernels, plain torch instead: no C++ compiler found; "
        "install one (Debian: apt-get install g++) or name it in CXX\n"
    )


@needs_compiler
def test_a_cache_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    done = attention_of_process(ESPNET_LITE_KERNELS_CACHE=str(tmp_path / "file" / "cache"))
    assert done.stdout == "torch True\n"
    assert done.stderr.startswith("espnet_lite: no C++ kernels, plain torch instead: ")
    assert "cannot write: Not a directory" in done.stderr and done.stderr.count("\n") == 1


def test_the_program_tells_where_the_library_is(monkeypatch, capsys, tmp_path):
    if library() is not None:
        assert main([]) == 0
        assert capsys.readouterr().out.endswith(f".so: kernels for {library().level}\n")
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("ESPNET_LITE_KERNELS_CACHE", str(tmp_path))
    assert main([]) == 2
    assert capsys.readouterr().err.startswith("error: no C++ compiler found; install one")
    assert main(["--if_possible"]) == 0
    assert capsys.readouterr().out.startswith("no C++ kernels, plain torch will do their work")


def test_the_default_is_the_highest_level():
    from espnet_lite.kernels.library import chosen_level

    if library() is not None and "ESPNET_LITE_KERNELS" not in os.environ:
        assert chosen_level() == library().level
        has_avx512 = torch.backends.cpu.get_cpu_capability() == "AVX512"
        assert (library().level in ("avx512", "vnni", "amx")) == has_avx512
        has_amx = torch.cpu._is_amx_tile_supported()
        assert (library().level == "amx") == has_amx
