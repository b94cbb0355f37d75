"""Every program answers --help, and refuses an unknown option with exit code 2."""

import importlib
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


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_unknown_option_is_a_usage_error(program, capsys):
    main = importlib.import_module(f"espnet_lite.bin.{program}").main
    with pytest.raises(SystemExit) as caught:
        main(["--no_such_option"])
    assert caught.value.code == 2
    assert "error: " in capsys.readouterr().err
