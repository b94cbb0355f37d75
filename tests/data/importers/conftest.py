"""Small sources in the formats that real tools write."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from espnet_lite.bin import import_data


@pytest.fixture
def make_audio(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes audio files of a tenth of a second below tmp_path."""

    def make(*names: str, seconds: float = 0.1) -> Path:
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, np.zeros(round(16000 * seconds), dtype=np.int16), 16000)
        return tmp_path

    return make


@pytest.fixture
def run(tmp_path: Path, capsys) -> Callable[..., str]:
    """Return a function that imports a source as tmp_path/data and returns what was printed."""

    def run(source: Path, *arguments: object, code: int = 0) -> str:
        words = [str(source), "--data_dir", str(tmp_path / "data"), *map(str, arguments)]
        assert import_data.main(words) == code, capsys.readouterr().err
        out, err = capsys.readouterr()
        if code:
            assert err.startswith("error: ") and err.count("\n") == 1, err
            assert not (tmp_path / "data").exists()
        return err if code else out

    return run


@pytest.fixture
def table(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """Return a function that reads a table below tmp_path/data as key → value."""

    def table(name: str) -> dict[str, str]:
        lines = (tmp_path / "data" / name).read_text(encoding="utf-8").splitlines()
        return dict(line.partition(" ")[::2] for line in lines)

    return table
