"""tools/setup.sh: mistakes end in one line, and what is up to date is left alone."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INPUTS = ("pyproject.toml", "tools/constraints.txt", "tools/setup.sh")


@pytest.fixture
def tree(tmp_path) -> Path:
    """A checkout's set-up files alone, in a folder with a blank in its name."""
    tree = tmp_path / "the checkout"
    (tree / "tools").mkdir(parents=True)
    for name in INPUTS:
        shutil.copy(ROOT / name, tree / name)
    return tree


def setup(tree: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHON"}
    return subprocess.run(
        [tree / "tools" / "setup.sh", *arguments],
        env=environment,
        cwd=tree.parent,
        capture_output=True,
        text=True,
        timeout=60,
    )


def interpreter(folder: Path, prelude: str) -> str:
    """Return a Python that runs `prelude` before what it reads from standard input."""
    path = folder / "interpreter"
    path.write_text(
        f"#!/bin/sh\nexec {sys.executable} -c 'import sys; {prelude}; exec(sys.stdin.read())'\n"
    )
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--torhc", "cpu"], "unknown option '--torhc', expected --torch or --python"),
        (["--torch", "rocm"], "--torch rocm: expected keep, cpu or cuda"),
        (["--torch"], "option --torch needs a value"),
        (["--python", "no-such-python"], "no program 'no-such-python'"),
    ],
)
def test_mistakes(tree, arguments, expected):
    done = setup(tree, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {expected}") and done.stderr.count("\n") == 1
    assert not (tree / ".venv").exists()


@pytest.mark.parametrize(
    ("prelude", "expected"),
    [
        ('sys.modules["ensurepip"] = None', "Python has no ensurepip; install it (Debian: apt-get"),
        ("sys.version_info = (3, 9, 1)", "Python 3.9 is too old, expected 3.10 or newer"),
    ],
)
def test_an_unfit_python_is_one_line(tree, prelude, expected):
    program = interpreter(tree, prelude)
    done = setup(tree, "--python", program)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {program}: {expected}") and done.stderr.count("\n") == 1


def test_what_is_up_to_date_is_left_alone(tree):
    (tree / ".venv" / "bin").mkdir(parents=True)
    (tree / ".venv" / "bin" / "python").write_text("#!/bin/sh\nexit 9\n")
    (tree / ".venv" / "bin" / "python").chmod(0o755)
    text = b"".join((tree / name).read_bytes() for name in INPUTS)
    mark = f"{hashlib.sha256(text).hexdigest()}  -"
    (tree / ".venv" / ".set_up_from").write_text(mark)
    assert setup(tree).returncode == 0
    (tree / "pyproject.toml").write_text("changed")
    assert setup(tree).returncode == 9


def test_help_names_every_option(tree):
    done = setup(tree, "--help")
    assert done.returncode == 0
    for word in ("--torch keep", "--torch cpu", "--torch cuda", "--python", "TORCH_INDEX"):
        assert word in done.stdout
    assert "set -euo" not in done.stdout
