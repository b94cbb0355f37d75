"""Rows of results: what they are joined from, what they must have, and the page they make."""

import copy
import hashlib
import json

import pytest

from espnet_lite.errors import InputError
from espnet_lite.score.results import (
    build_row,
    check_row,
    read_rows,
    row_text,
    with_earlier_sets,
)
from espnet_lite.score.results_folder import draw
from espnet_lite.score.results_page import markdown_table, results_page


def kind(err: int, tokens: int = 200) -> dict:
    counts = {"utterances": 10, "tokens": tokens, "corr": tokens - err, "sub": err, "del": 0}
    counts |= {"ins": 0, "err": err, "s_err": 5}
    return {"counts": counts, "percent": {"err": 100 * err / tokens, "s_err": 50.0}}


def score(err: int) -> dict:
    return {"utterances": 10, "words": 200, "wer": kind(err), "cer": kind(err, 800), "ter": None}


def row(name: str, *, dev: int, test: int) -> dict:
    return {
        "row": name,
        "title": "AN4",
        "dev_sets": ["dev"],
        "model": {"file": f"models/{name}.esp", "sha256": "ab" * 32, "bytes": 1234567}
        | {"parameters": 8_310_000},
        "record": {"parameters": 10_240_000, "minutes": 14.96, "updates": 12000, "seed": 3},
        "decode": {"config": {"name": "greedy"}, "rtf": {"dev": 0.01234, "test": 0.02}},
        "scores": {"dev": score(dev), "test": score(test)},
        "environment": {"cpu": "Some CPU", "cores": 2},
    }


@pytest.fixture
def rows():
    return {"long": row("long", dev=20, test=31), "short": row("short", dev=31, test=20)}


def test_headline_is_the_lowest_wer_on_dev_not_on_test(rows):
    page = results_page(rows)
    assert "★ **long** is the headline row: the lowest WER on `dev` (10.00 %)" in page
    assert page.index("★ **long** ") < page.index("| short ")
    assert "★ **short**" not in page


def test_page_is_the_same_for_any_order_and_names_what_it_must(rows):
    rows["long"]["record"] |= {
        "core_minutes": 29.5,
        "audio_hours": 12.3,
        "dev": {"loss_ctc": 45.67},
        "commit": "0123abc",
    }
    rows["long"]["record"] |= {"command": "train_asr --config conf/train_asr.yaml"}
    rows["long"]["record"] |= {"config": "train_asr.yaml"}
    page = results_page(rows)
    assert page == results_page(dict(reversed(rows.items())))
    summary = [line for line in page.splitlines() if line.startswith("|")]
    assert cells(summary[2]) == "long/8.31 M/1,234,567/15.0/29.5/12,000/12.3/45.7/10.00/15.50"
    assert cells(summary[3]) == "short/8.31 M/1,234,567/15.0/-/12,000/-/-/15.50/10.00"
    # set, Snt, Wrd, Corr, Sub, Del, Ins, WER, S.Err, CER, TER, RTF
    scores = "long/dev/10/200/90.00/10.00/0.00/0.00/10.00/50.00/2.50/-/0.0123"
    assert cells(summary[6]) == scores
    for text in (
        "./run.sh --stage decode --model models/long.esp",
        "ab" * 32,
        "commit 0123abc",
        "seed 3",
        "Some CPU, 2 cores",
        "\npython -m espnet_lite.bin.train_asr --config conf/train_asr.yaml\n",
        "command is in the header of `conf/train_asr.yaml`:\n",
        "8.31 M parameters of the 10.24 M that were trained",
    ):
        assert text in page, text
    assert "None" not in page


@pytest.mark.parametrize(
    "config_file, command",
    [
        ("conf/decode_greedy.yaml", "models/long.esp\n"),
        ("conf/decode_x.yaml", "models/long.esp --inference_config conf/decode_x.yaml\n"),
    ],
)
def test_page_says_how_to_decode_again(rows, config_file, command):
    rows["long"]["decode"]["config_file"] = config_file
    assert f"./run.sh --stage decode --model {command}" in results_page(rows)


def cells(line: str) -> str:
    return "/".join(cell.strip(" *★") for cell in line.strip("|").split("|"))


def test_a_model_that_is_not_kept_is_not_promised(rows):
    rows["short"]["model"] |= {"file": "model_bf16.esp"}
    page = results_page(rows)
    assert "--model model_bf16.esp" not in page and "--model models/long.esp" in page
    assert page.count("Its model is not kept in `models/`") == 1


@pytest.mark.parametrize("content", [b"weights", b"other weights", None])
def test_a_model_is_kept_where_its_file_has_the_bytes_of_the_row(tmp_path, rows, content):
    (tmp_path / "models").mkdir()
    rows["long"]["model"]["sha256"] = hashlib.sha256(b"weights").hexdigest()
    rows["long"]["lm"] = {"file": "models/lm.esp", "bytes": 3, "sha256": "2" * 64}
    (tmp_path / "models" / "lm.esp").write_bytes(b"another")
    if content is not None:
        (tmp_path / "models" / "long.esp").write_bytes(content)
    page = draw(tmp_path, rows).page
    is_kept = content == b"weights"
    assert ("--stage lm --model models/long.esp --lm_config" in page) == is_kept
    # there is none of models/short.esp
    assert page.count("Its model is not kept in `models/`") == 2 - is_kept
    assert "--lm models/lm.esp" not in page and "models/short.esp" not in page
    assert rows["long"]["model"]["file"] == "models/long.esp"


def test_raw_table_is_padded_and_escapes_bars():
    assert markdown_table(["name", "n"], [["a|b", "1"], ["c", "12345"]]) == (
        "| name |     n |\n| ---- | ----: |\n| a\\|b |     1 |\n| c    | 12345 |"
    )


def test_notes_come_last_and_a_set_without_words_is_no_winner(rows):
    rows["short"]["scores"]["dev"]["wer"] = empty_kind()
    page = results_page(rows, notes="Beam search did not help.\n")
    assert "★ **long**" in page
    assert page.index("## Notes\n\nBeam search did not help.") > page.index("## short")
    assert "## Notes" not in results_page(rows, notes=" \n")


def test_rates_have_intervals_where_they_are_known(rows):
    test = rows["long"]["scores"]["test"]
    test["wer"]["interval"] = {"low": 12.04, "high": 19.96, "over": "utterances", "drawn": 10}
    page = results_page(rows)
    assert cells(page.splitlines()[8]).endswith("/10.00/15.50 [12.0, 20.0]")
    assert "/15.50 [12.0, 20.0]/50.00/" in "".join(map(cells, page.splitlines()))
    assert "of 1,000 bootstrap draws of the 10 utterances of `test`" in page
    # of an earlier row only the errors of speakers are known; of nine speakers they tell too little
    speakers = {f"s{i}": [i, 10] for i in range(20)}
    rows["short"]["scores"]["dev"]["wer"]["speakers"] = speakers
    rows["long"]["scores"]["dev"]["wer"]["speakers"] = {"s0": [20, 200]}
    page = results_page(rows)
    assert "draws of the 20 speakers of `dev`, the 10 utterances of `test`. " in page
    assert cells(page.splitlines()[8]).endswith("/10.00/15.50 [12.0, 20.0]")
    assert "/15.50 [" in cells(page.splitlines()[9])


def test_missing_hypotheses_are_said(rows):
    assert "Missing hypotheses" not in results_page(rows)
    rows["short"]["scores"]["dev"]["missing"] = 3
    page = results_page(rows)
    assert "**Missing hypotheses**, counted as deletions: short has none of 3 utterances" in page


def empty_kind() -> dict:
    counts = dict.fromkeys(("utterances", "tokens", "corr", "sub", "del", "ins", "err", "s_err"), 0)
    return {"counts": counts, "percent": {"err": None, "s_err": None}}


def phone_score(err: int) -> dict:
    rates = {"per": kind(err), "wer": None, "cer": None, "ter": None}
    return {"utterances": 10, "phones": 200, **rates}


def phone_row(name: str, *, dev: int, test: int) -> dict:
    scores = {"dev": phone_score(dev), "test": phone_score(test)}
    return row(name, dev=0, test=0) | {"scores": scores}


def test_phone_error_rates_stand_in_a_table_of_their_own_behind_the_words(rows):
    rows["phones"] = phone_row("phones", dev=2, test=3)
    check_row(rows["phones"], where="x")
    page = results_page(rows)
    assert "★ **long** is the headline row: the lowest WER on `dev` (10.00 %)" in page
    tables = [line for line in page.splitlines() if line.startswith("|")]
    assert cells(tables[0]).endswith("audio hours/dev CTC loss/WER dev/WER test/PER dev/PER test")
    assert cells(tables[2]).endswith("10.00/15.50/-/-")
    assert cells(tables[4]) == "phones/8.31 M/1,234,567/15.0/-/12,000/-/-/-/-/1.00/1.50"
    header = [index for index, line in enumerate(tables) if cells(line).startswith("model/set/")]
    assert [cells(tables[index]) for index in header] == [
        "model/set/Snt/Wrd/Corr/Sub/Del/Ins/WER/S.Err/CER/TER/RTF",
        "model/set/Snt/Phn/Corr/Sub/Del/Ins/PER/S.Err/RTF",
    ]
    assert [cells(line) for line in tables[header[1] + 2 :]] == [
        "phones/dev/10/200/99.00/1.00/0.00/0.00/1.00/50.00/0.0123",
        "phones/test/10/200/98.50/1.50/0.00/0.00/1.50/50.00/0.0200",
    ]
    assert "no word error rate" in page
    assert "None" not in page


def test_rows_of_phones_alone_have_the_lowest_per_as_headline():
    page = results_page({"a": phone_row("a", dev=9, test=1), "b": phone_row("b", dev=5, test=9)})
    assert "★ **b** is the headline row: the lowest PER on `dev` (2.50 %)" in page
    assert not any("WER" in line for line in page.splitlines() if line.startswith("|"))


def test_a_set_of_a_phone_row_without_its_per_is_refused():
    mixed = phone_row("x", dev=1, test=2)
    mixed["scores"]["test"] = score(3)
    with pytest.raises(InputError, match=r"x: missing key 'scores\.test\.phones'"):
        check_row(mixed, where="x")
    words = row("x", dev=1, test=2)
    words["scores"]["test"]["wer"] = None
    with pytest.raises(InputError, match=r"x: key 'scores\.test\.wer' is null, expected an object"):
        check_row(words, where="x")


def test_rows_of_different_dev_sets_are_refused(rows):
    rows["short"]["dev_sets"] = ["test"]
    with pytest.raises(InputError, match=r"results/short\.json: first dev set 'test', but 'dev'"):
        results_page(rows)


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (["model", "sha256"], None, "missing key 'model.sha256'"),
        (["record", "seed"], None, "missing key 'record.seed'"),
        (["record", "minutes"], "15", "key 'record.minutes' is \"15\", expected int or float"),
        (["model", "bytes"], True, "key 'model.bytes' is true, expected int"),
        (["scores"], {}, "key 'scores' is empty"),
        (["scores", "test", "wer", "counts", "err"], None, "missing key 'scores.test.wer.counts.e"),
        (["scores", "test", "cer", "counts"], {}, "missing key 'scores.test.cer.counts.utterances"),
        (["scores", "dev"], None, "missing key 'scores.dev', a dev set"),
        (["decode", "rtf", "test"], None, "missing key 'decode.rtf.test'"),
        (["dev_sets"], [], "key 'dev_sets' is empty"),
        (["environment"], 3, "key 'environment' is 3, expected dict"),
        (["row"], "other", "key 'row' is 'other', expected the file's name"),
    ],
)
def test_faulty_row_names_file_and_key(tmp_path, rows, keys, value, message):
    (tmp_path / "results").mkdir()
    inner = rows["long"]
    for key in keys[:-1]:
        inner = inner[key]
    if value is None:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = value
    path = tmp_path / "results" / "long.json"
    path.write_text(row_text(rows["long"]))
    with pytest.raises(InputError) as error:
        read_rows(tmp_path)
    assert str(error.value).startswith(f"{path}: {message}")


def test_row_that_is_not_json_names_the_line(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "x.json").write_text('{\n "row": ,\n}\n')
    with pytest.raises(InputError, match=r"x\.json:2: not JSON"):
        read_rows(tmp_path)


@pytest.fixture
def recipe(tmp_path):
    """Return a recipe folder with a model and a decoded, scored dev and test set."""
    model = tmp_path / "exp" / "model.esp"
    model.parent.mkdir()
    model.write_bytes(b"weights")
    for name, err in (("dev", 20), ("test", 31)):
        folder = tmp_path / "exp" / name
        (folder / "score").mkdir(parents=True)
        scored = score(err)
        scored["wer"]["speakers"] = {"s": kind(err)}
        scored["wer"]["interval"] = {"low": 1.0, "high": 2.0, "over": "utterances", "drawn": 10}
        scored |= {"missing": ["u1"], "analysis": {}}
        (folder / "score" / "score.json").write_text(json.dumps(scored))
        decoded = {"rtf": 0.02, "config": {"name": "greedy"}, "model": {"sha256": "1" * 64}}
        decoded |= {"environment": {"cpu": "Some CPU"}, "nj": 2, "threads": 1}
        (folder / "decode.json").write_text(json.dumps(decoded))
    return tmp_path


def test_the_language_model_of_a_row_is_told_with_the_command(recipe):
    record = {"kind": "ngram", "order": 6, "config": "lm_ngram.yaml"}
    record["text"] = {"words": 4361, "files": ["train", "more.gz"]}
    record["dev"] = {"dev": {"per_token": 2.768, "per_word": 22.56}}
    lm = {"sha256": "2" * 64, "bytes": 99, "family": "ngram", "record": record}
    lm["path"] = str(recipe / "exp" / "lm.esp")
    paths = [recipe / "exp" / name / "decode.json" for name in ("dev", "test")]
    for path in paths:
        path.write_text(json.dumps(json.loads(path.read_text()) | {"lm": lm}))
    built = build(recipe)
    assert built["lm"]["file"] == "exp/lm.esp" and "path" not in built["lm"]
    (recipe / "models").mkdir()
    for name, content in (("model.esp", b"weights"), ("lm.esp", b"n-gram")):
        (recipe / "models" / name).write_bytes(content)
    (recipe / "exp" / "lm.esp").write_bytes(b"other")
    page = results_page({"x": build(recipe)})
    assert "perplexity on dev 2.768 per token, 22.56 per word" in page
    assert '--lm_config conf/lm_ngram.yaml --lm_text "more.gz"' in page
    assert "./run.sh --stage lm --model models/model.esp --lm_config" in page  # it is made first
    (recipe / "exp" / "lm.esp").write_bytes(b"n-gram")
    assert "--model models/model.esp --lm models/lm.esp" in results_page({"x": build(recipe)})
    earlier = recipe / "row.json"
    earlier.write_text(json.dumps(build(recipe)))
    other = build(recipe)
    other["lm"]["sha256"], other["scores"] = "3" * 64, {"dev": other["scores"]["dev"]}
    assert set(with_earlier_sets(other, earlier)["scores"]) == {"dev"}
    told = json.loads(paths[1].read_text())
    told["lm"]["sha256"] = "3" * 64
    paths[1].write_text(json.dumps(told))
    with pytest.raises(InputError, match="another config or language model than dev"):
        build(recipe)


def build(recipe, **changes) -> dict:
    record = {"parameters": 9, "minutes": 1.5, "updates": 3, "seed": 0}
    record |= {"command": f"train_asr --config {recipe.resolve()}/conf/x.yaml"}
    given = {
        "title": "t",
        "model": recipe / "exp" / "model.esp",
        "sha256": "1" * 64,
        "parameters": 7,
        "record": record,
        "decode_dirs": {name: recipe / "exp" / name for name in ("dev", "test")},
        "dev_sets": ["dev"],
        "results_dir": recipe,
    }
    given |= changes
    name = given.pop("row", "x")
    return build_row(name, **given)


def test_row_joins_model_decoding_and_scores_without_machine_paths(recipe):
    built = build(recipe)
    speakers = built["scores"]["dev"]["wer"].pop("speakers")
    assert speakers == {"s": [20, 200]}  # errors and words
    interval = built["scores"]["dev"]["wer"].pop("interval")
    assert interval == {"low": 1.0, "high": 2.0, "over": "utterances", "drawn": 10}
    assert built["scores"]["dev"]["cer"].pop("interval") is None
    assert built["scores"]["dev"].pop("missing") == 1
    assert built["scores"]["dev"] == score(20)
    assert built["decode"] == {
        "config": {"name": "greedy"},
        "config_file": None,
        "nj": 2,
        "threads": 1,
        "rtf": {"dev": 0.02, "test": 0.02},
    }
    assert built["model"] == {
        "file": "exp/model.esp",
        "sha256": "1" * 64,
        "bytes": 7,
        "parameters": 7,
    }
    assert built["record"]["command"] == "train_asr --config conf/x.yaml"
    assert str(recipe) not in row_text(built)
    check_row(json.loads(row_text(built)), where="x")


@pytest.mark.parametrize(
    ("given", "kept"), [("conf/decode_beam.yaml", "conf/decode_beam.yaml"), ("/a/b.yaml", None)]
)
def test_row_names_the_decoding_config_of_the_recipe(recipe, given, kept):
    for name in ("dev", "test"):
        path = recipe / "exp" / name / "decode.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "config_file": given}))
    built = build(recipe)
    assert built["decode"]["config_file"] == kept
    assert ("--inference_config" in results_page({"x": built})) == (kept is not None)


def test_bits_and_agreement_are_columns_where_a_row_was_quantized(recipe, rows):
    assert "bits" not in results_page(rows)
    record = {"parameters": 9, "minutes": 1.5, "updates": 3, "seed": 0}
    record["dev"] = {"loss_ctc": 2.5, "agreement": 0.98765}
    few = build(recipe, bits="w1a8", record=record)
    assert few["model"]["bits"] == "w1a8"
    page = results_page({"x": few, "y": build(recipe, row="y")})
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines()]
    header = next(line for line in lines if "bits" in line)
    [best, other] = lines[lines.index(header) + 2 :][:2]
    found = dict(zip(header, best, strict=True))
    assert found["bits"] == "**w1a8**" and found["frames as fp32, %"] == "**98.8**"
    assert found["dev CTC loss"] == "**2.5**" and found["bytes"] == "**7**"
    assert dict(zip(header, other, strict=True))["bits"] == "-"
    assert header.index("bits") == header.index("bytes") + 1


def test_a_schedule_of_several_steps_costs_what_all_of_them_cost(recipe):
    step = {"minutes": 1.0, "core_minutes": 0.5, "updates": 200, "audio_hours": 2.0}
    last = {"minutes": 4.5, "core_minutes": 4.0, "updates": 700, "audio_hours": 7.0}
    last |= {"parameters": 9, "seed": 0, "quantization": {"earlier_steps": [step, step]}}
    page = results_page({"x": build(recipe, bits="w1a1", record=last)})
    (line,) = [line for line in page.splitlines() if line.startswith("| ★ **x**")][:1]
    assert "| **6.5** | **5.0** | **1,100** | **11.0** |" in " ".join(line.split())


def test_row_names_the_committed_copy_of_the_same_bytes(recipe):
    (recipe / "models").mkdir()
    (recipe / "models" / "a.esp").write_bytes(b"others!")
    (recipe / "models" / "b.esp").write_bytes(b"weights")
    assert build(recipe)["model"]["file"] == "models/b.esp"


def test_faults_of_building_a_row(recipe):
    with pytest.raises(InputError, match=r"row name '\.\./x', expected letters"):
        build(recipe, row="../x")
    with pytest.raises(
        InputError, match=r"dev set 'dev2' is not among .*: dev, test; the headline"
    ):
        build(recipe, dev_sets=["dev2"])
    with pytest.raises(InputError, match=r"dev/decode\.json: decoded with a model of sha256 111"):
        build(recipe, sha256="2" * 64)
    with pytest.raises(InputError, match=r"row 'x' of .*: missing key 'record\.seed'"):
        build(recipe, record={"parameters": 9, "minutes": 1, "updates": 3})
    with pytest.raises(InputError, match=r"row 'x' of .*: key 'model\.parameters' is null"):
        build(recipe, parameters=None)
    path = recipe / "exp" / "test" / "decode.json"
    decoded = json.loads(path.read_text())
    path.write_text(json.dumps({**decoded, "config": {"name": "beam"}}))
    with pytest.raises(
        InputError,
        match=r"test/decode\.json: decoded with another config or language model than dev",
    ):
        build(recipe)
    path.write_text(json.dumps({k: v for k, v in decoded.items() if k != "rtf"}))
    with pytest.raises(InputError, match=r"test/decode\.json: missing key 'rtf'; decode again"):
        build(recipe)
    path.write_text(json.dumps(decoded))
    (recipe / "exp" / "test" / "score" / "score.json").unlink()
    with pytest.raises(InputError, match=r"score\.json: no such file; score again: ./run.sh --sta"):
        build(recipe)


def test_check_row_leaves_the_row_as_it_was(rows):
    before = copy.deepcopy(rows["long"])
    check_row(rows["long"], where="x")
    assert rows["long"] == before


def test_the_same_model_on_further_sets_keeps_what_it_was_scored_on(tmp_path):
    path = tmp_path / "a.json"
    first = row("a", dev=10, test=20)
    path.write_text(json.dumps(first))
    further = {**row("a", dev=30, test=40), "dev_sets": ["own"]}
    further["scores"] = {"own": further["scores"]["dev"]}
    further["decode"] = {**further["decode"], "rtf": {"own": 0.5}}
    joined = with_earlier_sets(further, path)
    assert list(joined["scores"]) == ["dev", "test", "own"]
    assert joined["scores"]["dev"] == first["scores"]["dev"]
    assert joined["decode"]["rtf"] == {**first["decode"]["rtf"], "own": 0.5}
    assert joined["dev_sets"] == first["dev_sets"]

    other = {**further, "model": {**further["model"], "sha256": "0" * 64}}
    assert with_earlier_sets(other, path) == other
    path.write_text("{")
    assert with_earlier_sets(further, path) == further
    assert with_earlier_sets(further, tmp_path / "none.json") == further
