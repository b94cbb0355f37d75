"""Every program answers --help, and refuses an unknown option with exit code 2."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import espnet_lite.bin

PROGRAMS = sorted(
    path.stem
    for path in Path(espnet_lite.bin.__path__[0]).glob("*.py")
    if path.stem not in ("__init__", "arguments")
)


def test_there_are_programs():
    assert "stage_stamp" in PROGRAMS


@pytest.mark.parametrize("program", PROGRAMS)
def test_help(program, capsys):
    main = importlib.import_module(f"espnet_lite.bin.{program}").main
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: ") and "--" in out


# Imports that take more time than a --help may; benchmarks/help_time.py has the seconds.
HEAVY = ("torch", "numpy", "soundfile", "sentencepiece", "soxr", "kaldiio", "yaml")

SHOW_HELP = """
import contextlib, importlib, io, sys
for program in sys.argv[1:]:
    main = importlib.import_module(f"espnet_lite.bin.{program}").main
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        main(["--help"])
    print(program, *(name for name in %r if name in sys.modules))
"""


def test_help_imports_nothing_heavy():
    done = subprocess.run(
        [sys.executable, "-c", SHOW_HELP % (HEAVY,), *PROGRAMS],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == PROGRAMS


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_unknown_option_is_a_usage_error(program, capsys):
    main = importlib.import_module(f"espnet_lite.bin.{program}").main
    with pytest.raises(SystemExit) as caught:
        main(["--no_such_option"])
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("error: unknown option '--no_such_option'; ")
    assert err.endswith(" --help lists the options\n") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--modle", "a.esp"], "unknown option '--modle' (did you mean '--model'?)"),
        (["--data-dri=d"], "unknown option '--data_dri' (did you mean '--data_dir'?)"),
        (["--mode", "a.esp"], "unknown option '--mode' (did you mean '--model'?)"),
        (["--nj", "two"], "argument --nj: invalid int value: 'two'"),
        (["--nj"], "argument --nj: expected one argument"),
        (["--nj", "2"], "the following arguments are required: --model, --data_dir"),
    ],
)
def test_a_usage_error_is_one_line(arguments, expected, capsys):
    from espnet_lite.bin.decode_asr import main

    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {expected}") and err.count("\n") == 1
