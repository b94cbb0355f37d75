"""The efficiency table by hand: rows and profiles joined, sorted, drawn, the same each time."""

import copy
import json

import pytest

from espnet_lite.bin import draw_results
from espnet_lite.errors import InputError
from espnet_lite.score.efficiency import (
    efficiency_lines,
    main_table,
    read_profiles,
    share_table,
    timing_table,
)
from espnet_lite.score.efficiency_figures import draw_figures, plan_figures

MACHINE = {"cpu": "Some CPU", "cores": 2, "torch": "2.13.0"}


def timing(threads: int, seconds: float, rtf: float, mib: int) -> dict:
    return {
        "threads": threads,
        "audio_seconds": seconds,
        "rtf": rtf,
        "runs": 5,
        "peak_bytes": mib << 20,
    }


def profile(name: str, *, sha256: str | None = None, **changes) -> dict:
    return {
        "name": name,
        "source": "packed" if sha256 else "config",
        "weights": "trained" if sha256 else "random",
        "model": {
            "bytes": 1234567,
            "bytes_of": "file" if sha256 else "bf16 weights",
            "sha256": sha256,
        },
        "parameters": {"total": 987654},
        "macs": {
            "audio_seconds": 224.86,
            "total": 4000000000,
            "per_second": 17788846,
            "by_kind": {"head": 1000000000, "feed_forward": 3000000000},
        },
        "timings": [timing(1, 5.0, 0.01, 200), timing(1, 15.0, 0.02, 300)],
        "environment": MACHINE,
        **changes,
    }


def counts(err: int, tokens: int) -> dict:
    zeros = dict.fromkeys(("utterances", "corr", "sub", "del", "ins", "s_err"), 1)
    return {"counts": {**zeros, "tokens": tokens, "err": err}}


def row(name: str, sha256: str, err: int, *, method: str = "ctc_greedy") -> dict:
    score = {"utterances": 1, "words": 8, "cer": None, "ter": None, "wer": counts(err, 8)}
    return {
        "row": name,
        "title": "a/asr1",
        "dev_sets": ["dev"],
        "model": {"file": f"{name}.esp", "sha256": sha256, "bytes": 1, "parameters": 2},
        "record": {"parameters": 2, "minutes": 1.0, "updates": 3, "seed": 1},
        "decode": {"rtf": {"dev": 0.1, "test": 0.1}, "config": {"method": method}},
        "scores": {"dev": score, "test": score},
        "environment": {},
    }


ROWS = [row("good", "aa", 1), row("good_again", "aa", 1), row("poor", "bb", 3)]
ROWS.insert(2, row("good_beam", "aa", 2, method="joint_beam"))  # whose search is not profiled
PROFILES = [profile("bare"), profile("m_good", sha256="aa"), profile("m_poor", sha256="bb")]
RATES = [("wer", "dev"), ("wer", "test")]


def test_lines_follow_the_rows_and_then_come_those_without_one():
    lines = efficiency_lines(ROWS, PROFILES)
    assert [(line["model"], line["profile"]) for line in lines] == [
        ("good", "m_good"),
        ("good_again", "m_good"),
        ("poor", "m_poor"),
        ("bare", "bare"),
    ]
    assert lines[0]["rates"] == {"wer": {"dev": 12.5, "test": 12.5}} and lines[3]["rates"] == {}
    assert efficiency_lines([], [PROFILES[0]])[0]["model"] == "bare"


def test_the_main_table_by_hand():
    header, [good, *_, bare] = main_table(efficiency_lines(ROWS, PROFILES), RATES)
    assert dict(zip(header, good, strict=True)) == {
        "model": "good",
        "WER dev": "12.50",
        "WER test": "12.50",
        "parameters": "0.99 M",
        "bytes": "1,234,567",
        "GMACs": "4.0",
        "GMACs/s": "0.018",
        "RTF 15 s": "0.0200",
        "peak MiB": "300",
    }
    assert bare[:3] == ["bare (random weights)", "-", "-"] and bare[4] == "~1,234,567"
    untimed = efficiency_lines([], [profile("x", timings=[])])
    assert main_table(untimed, [])[1][0][-2:] == ["-", "-"]


def test_estimates_are_columns_where_a_profile_has_them():
    estimates = {"bops": 2_500_000_000_000, "weighted_macs": 125_000_000}
    few, plain = profile("few", estimates=estimates), profile("plain")
    header, cells = main_table(efficiency_lines([], [few, plain]), [])
    found = [dict(zip(header, line, strict=True)) for line in cells]
    assert [line["TBOPs (est.)"] for line in found] == ["2.50", "-"]
    assert [line["GMACs·w/32 (est.)"] for line in found] == ["0.12", "-"]
    assert "est." not in " ".join(main_table(efficiency_lines([], [plain]), [])[0])


def test_rates_have_their_intervals_in_the_table_and_the_figures():
    rows = copy.deepcopy(ROWS)
    rows[0]["scores"]["dev"]["wer"]["interval"] = {"low": 4.25, "high": 20.75}
    lines = efficiency_lines(rows, PROFILES)
    assert lines[0]["intervals"] == {"wer": {"dev": [4.25, 20.75], "test": [4.25, 20.75]}}
    assert lines[1]["intervals"] == {"wer": {}} and lines[3]["intervals"] == {}
    cells = main_table(lines, RATES)[1]
    assert cells[0][1] == "12.50 [4.2, 20.8]" and cells[1][1] == "12.50"
    assert plan_figures(lines, kind="wer", set_name="dev")[0].intervals == {"good": (4.25, 20.75)}


def test_shares_and_timings_by_hand():
    many = profile("x", timings=[timing(2, 5.0, 0.5, 100), *profile("x")["timings"]])
    lines = efficiency_lines([], [many, profile("y", timings=[])])
    assert share_table(lines) == (
        ["model", "feed forward", "head"],
        [["x", "75.0", "25.0"], ["y", "75.0", "25.0"]],
    )
    assert timing_table(lines) == (
        ["model", "threads", "RTF 5 s", "RTF 15 s", "MiB 5 s", "MiB 15 s"],
        [["x", "1", "0.0100", "0.0200", "200", "300"], ["x", "2", "0.5000", "-", "100", "-"]],
    )


def test_figures_need_two_points_and_are_the_same_each_time(tmp_path):
    lines = efficiency_lines(ROWS, PROFILES)
    plans = plan_figures(lines, kind="wer", set_name="dev")
    assert [plan.path.name for plan in plans] == [
        "efficiency_bytes.png",
        "efficiency_macs.png",
        "efficiency_rtf.png",
    ]
    assert plans[2].points == (
        (0.02, 12.5, "good"),
        (0.02, 12.5, "good_again"),
        (0.02, 37.5, "poor"),
    )
    drawn = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        draw_figures(plans, folder)
        drawn.append([(folder / plan.path).read_bytes() for plan in plans])
    assert drawn[0] == drawn[1] and all(png.startswith(b"\x89PNG") for png in drawn[0])
    alone = plan_figures(lines[:1] + lines[3:], kind="wer", set_name="dev")
    assert alone == [] and plan_figures(lines, kind="per", set_name="dev") == []
    draw_figures(alone, tmp_path / "a")
    assert list((tmp_path / "a" / "images").iterdir()) == []


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "results" / "profile").mkdir(parents=True)
    for known in PROFILES:
        path = tmp_path / "results" / "profile" / f"{known['name']}.json"
        path.write_text(json.dumps(known))
    return tmp_path


def test_the_program_draws_page_table_and_figures(folder, capsys):
    for known in ROWS:
        (folder / "results" / f"{known['row']}.json").write_text(json.dumps(known))
    assert draw_results.main(["--results_dir", str(folder)]) == 0
    page = (folder / "RESULTS.md").read_text()
    assert "| ★ **good**            |   12.50 |" in page.partition("## Efficiency")[2]
    assert page.index("## Scores") < page.index("## Efficiency") < page.index("## good")
    assert "(224.86 s)" in page and "Timed on: Some CPU, 2 cores, torch 2.13.0." in page
    assert "](images/efficiency_rtf.png)" in page
    assert (folder / "images" / "efficiency_rtf.png").is_file()
    table = json.loads((folder / "results" / "tables" / "efficiency.json").read_text())
    assert [line["model"] for line in table["lines"]] == ["good", "good_again", "poor", "bare"]
    shown = capsys.readouterr().out
    assert "| good_again " in shown and "good_beam" not in shown
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert draw_results.main(["--results_dir", str(folder)]) == 0
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_without_rows_there_is_a_table_and_no_page(folder, capsys):
    assert draw_results.main(["--results_dir", str(folder)]) == 0
    assert not (folder / "RESULTS.md").exists() and not (folder / "images").exists()
    out = capsys.readouterr().out
    assert "| m_poor " in out and "no row was scored yet" in out


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"macs": {}}, "missing key 'macs.audio_seconds'"),
        ({"parameters": {"total": "many"}}, "key 'parameters.total' is \"many\", expected int"),
        ({"timings": [{"threads": 1}]}, "missing key 'audio_seconds'"),
    ],
)
def test_what_is_no_profile_is_named(folder, capsys, change, expected):
    path = folder / "results" / "profile" / "bare.json"
    path.write_text(json.dumps(profile("bare", **change)))
    with pytest.raises(InputError) as caught:
        read_profiles(folder)
    assert f"{path}: {expected}" in str(caught.value)
    assert draw_results.main(["--results_dir", str(folder)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
