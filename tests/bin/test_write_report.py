"""write_report as a program."""

import json

from espnet_lite.bin import write_report

ROW = {
    "row": "r",
    "title": "x/asr1",
    "dev_sets": ["dev"],
    "model": {"file": "m.esp", "sha256": "0" * 64, "bytes": 10, "parameters": 6},
    "record": {"parameters": 6, "minutes": 1.5, "updates": 2, "seed": 1},
    "decode": {"config": {"method": "ctc_greedy"}, "rtf": {"dev": 0.1}},
    "environment": {},
    "scores": {"dev": {"utterances": 2, "words": 8, "cer": None, "ter": None}},
}
COUNTS = {"utterances": 2, "tokens": 8, "corr": 7, "sub": 1, "del": 0, "ins": 0, "err": 1}
ROW["scores"]["dev"]["wer"] = {"counts": {**COUNTS, "s_err": 1}}


def test_the_page_is_written_and_named(tmp_path, capsys):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "r.json").write_text(json.dumps(ROW))
    arguments = ["--results_dir", str(tmp_path), "--expdir", str(tmp_path / "exp")]
    assert write_report.main(arguments) == 0
    page = tmp_path / "exp" / "report.html"
    assert capsys.readouterr().out == f"{page}\n"
    assert "<h1>x/asr1</h1>" in page.read_text(encoding="utf-8")
    other = tmp_path / "elsewhere" / "r.html"
    assert write_report.main([*arguments, "--output", str(other)]) == 0
    assert other.is_file()


def test_without_a_row_there_is_no_page(tmp_path, capsys):
    assert write_report.main(["--results_dir", str(tmp_path), "--expdir", str(tmp_path)]) == 0
    assert "no row was scored yet" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_fault_is_one_line_and_leaves_the_page_that_was_there(tmp_path, capsys):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "r.json").write_text(json.dumps({**ROW, "row": "other"}))
    (tmp_path / "exp").mkdir()
    page = tmp_path / "exp" / "report.html"
    page.write_text("before")
    assert write_report.main(["--results_dir", str(tmp_path), "--expdir", str(page.parent)]) == 2
    error = capsys.readouterr().err
    assert (
        error.startswith(f"error: {tmp_path}/results/r.json: key 'row' is 'other'")
        and error.count("\n") == 1
    )
    assert page.read_text() == "before"
