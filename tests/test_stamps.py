"""Stamps: a stage is stale exactly when its options, configs, inputs or outputs changed."""

import os

import pytest

from espnet_lite import stamps
from espnet_lite.errors import InputError


def plan(*words: str) -> dict[str, stamps.Stage]:
    return stamps.parse_plan("".join(f"{word}\0" for word in words).encode())


@pytest.fixture
def two(tmp_path, monkeypatch):
    """Return a function that makes the plan of two stages: make, whose output use reads."""
    monkeypatch.chdir(tmp_path)
    for name, text in (("in.txt", "a\n"), ("c.yaml", "x: {y: 1}\nz: 2\n")):
        (tmp_path / name).write_text(text)

    def build(*more: str) -> dict[str, stamps.Stage]:
        return plan(
            *("@stage", "1", "make", "@stamp", ".stamps/make.json", "@option", "n=3"),
            *("@input", "in.txt", "@config", "c.yaml#x", "@output", "mid.txt", *more),
            *("@stage", "4", "use", "@stamp", ".stamps/use.json", "@after", "make"),
            *("@input", "mid.txt", "@output", "out"),
        )

    return build


def run(stages, name: str, *files: tuple[str, str]) -> None:
    stamps.begin(stages[name])
    for path, text in files:
        stamps.write_text(path, text)
    stamps.finish(stages[name])


def run_both(stages) -> None:
    run(stages, "make", ("mid.txt", "m\n"))
    run(stages, "use", ("out/list", "o\n"))


def test_plan_words():
    stages = plan(
        *("@stage", "6", "train", "@what", "a model", "@after", "data", "dump"),
        *("@option", "set a.b=c=d", "e=", "@given_option", "corpus=", "f=1", "@always", "true"),
        *("@stage", "7", "pack", "@given", "@always", "false"),
    )
    train, pack = stages.values()
    assert (train.number, train.title()) == (6, "stage 6 train")
    assert train.after == ["data", "dump"]
    assert train.options == {"set a.b": "c=d", "e": ""}
    assert train.given_options == {"f": "1"}
    assert (train.always, train.may_be_given) == (True, False)
    assert (pack.always, pack.may_be_given) == (False, True)


def test_life_of_two_stages(two):
    stages = two()
    assert stamps.check(stages, "make") == stamps.Verdict(True, "has not run yet")
    with pytest.raises(InputError) as caught:
        stamps.check(stages, "use", command="./run.sh --nj 2")
    assert str(caught.value) == (
        "stage 4 use: needs stage 1 make, which has not run; "
        "run it: ./run.sh --nj 2 --stage make --stop_stage use"
    )
    run_both(stages)
    for name in stages:
        verdict = stamps.check(stages, name)
        assert not verdict.run and verdict.why.startswith("up to date")


@pytest.mark.parametrize(
    ("path", "text", "why"),
    [
        ("in.txt", "b\n", "in.txt changed"),
        ("c.yaml", "x: {y: 1e-3}\nz: 2\n", "c.yaml: x.y 1 → 0.001"),
        ("c.yaml", "x: {y: 1, w: NO}\nz: 2\n", 'c.yaml: x.w not given → "NO"'),
        ("c.yaml", "z: 2\n", "c.yaml: x.y 1 → not given"),
    ],
)
def test_a_change_is_named_and_stops_what_builds_on_it(two, path, text, why):
    stages = two()
    run_both(stages)
    stamps.write_text(path, text)
    assert stamps.check(stages, "make") == stamps.Verdict(True, why)
    with pytest.raises(InputError, match="needs stage 1 make, which is stale"):
        stamps.check(stages, "use")


@pytest.mark.parametrize("text", ["# comment\nx: {y: 1}\nz: 2\n", "z: 9\nx:\n  y: 1\n"])
def test_other_sections_comments_and_order_do_not_count(two, text):
    stages = two()
    run_both(stages)
    stamps.write_text("c.yaml", text)
    assert not stamps.check(stages, "make").run


def test_a_new_date_alone_does_not_count(two):
    stages = two()
    run_both(stages)
    for path in ("in.txt", "mid.txt"):
        os.utime(path, (1, 1))
    assert not stamps.check(stages, "make").run
    assert not stamps.check(stages, "use").run


def test_large_files_count_by_size_and_time(two, monkeypatch):
    monkeypatch.setattr(stamps, "_HASHED_BYTES", 1)
    stages = two()
    run_both(stages)
    os.utime("in.txt", (1, 1))
    assert stamps.check(stages, "make").why == "in.txt changed"


def test_an_option_that_changed(two):
    run_both(two())
    stages = two("@option", "n=4", "more=1")
    assert stamps.check(stages, "make").why == '--more not given → "1"; --n "3" → "4"'


def test_an_option_not_given_stays_what_it_was(two):
    run_both(two("@given_option", "corpus=/a"))
    assert not stamps.check(two(), "make").run
    run_both(two())
    assert not stamps.check(two("@given_option", "corpus=/a"), "make").run
    verdict = stamps.check(two("@given_option", "corpus=/b"), "make")
    assert verdict == stamps.Verdict(True, '--corpus "/a" → "/b"')


def test_a_result_edited_by_hand_is_made_again_but_serves_as_input(two):
    stages = two()
    run_both(stages)
    stamps.write_text("mid.txt", "by hand\n")
    assert stamps.check(stages, "make").why == "mid.txt changed after the stage had written it"
    assert stamps.check(stages, "use").why == "mid.txt changed"


def test_a_cut_off_run_makes_the_old_stamp_invalid_only_if_it_wrote_something(two):
    stages = two()
    run_both(stages)
    stamps.begin(stages["make"])  # killed here, before it wrote anything
    assert not stamps.check(stages, "use").run
    stamps.write_text("mid.txt", "half\n")
    with pytest.raises(InputError, match=r"stage 1 make, which is stale: mid.txt changed after"):
        stamps.check(stages, "use")


def test_a_first_run_cut_off(two):
    stages = two("@given")
    stamps.begin(stages["make"])
    stamps.write_text("mid.txt", "half\n")
    assert stamps.check(stages, "make").why == "runs now, or was cut off before its end"
    with pytest.raises(InputError, match="was cut off before its end"):
        stamps.check(stages, "use")


def test_a_given_result_needs_no_run(two):
    stages = two("@given")
    stamps.write_text("mid.txt", "given\n")
    assert stamps.check(stages, "use").run


def test_what_changes_while_a_stage_runs_makes_it_stale(two):
    stages = two()
    stamps.begin(stages["make"])
    stamps.write_text("in.txt", "changed meanwhile\n")
    stamps.write_text("mid.txt", "m\n")
    stamps.finish(stages["make"])
    assert stamps.check(stages, "make").why == "in.txt changed"


def test_a_missing_input_or_output_is_named(two):
    stages = two()
    stamps.begin(stages["make"])
    with pytest.raises(InputError, match=r"stage 1 make: ended without writing mid\.txt"):
        stamps.finish(stages["make"])
    (stamps.Path("in.txt")).unlink()
    with pytest.raises(InputError, match=r"no such file or folder: in\.txt"):
        stamps.check(stages, "make")


def test_a_folder_counts_by_its_files_not_its_subfolders(two):
    stages = two()
    run_both(stages)
    stamps.write_text("out/score/wer.txt", "5 %\n")
    stamps.write_text("out/.hidden", "x\n")
    assert not stamps.check(stages, "use").run
    stamps.write_text("out/new", "x\n")
    assert stamps.check(stages, "use").why == "out/new is new after the stage had written it"


def test_many_changes_are_counted(two):
    run_both(two())
    stages = two("@option", *(f"o{number}=1" for number in range(5)))
    assert stamps.check(stages, "make").why.endswith(" and 2 more")


def test_dry_run_foresees(two):
    stages = two()
    run_both(stages)
    assert not stamps.foresee(stages, "use", set()).run
    verdict = stamps.foresee(stages, "use", {"make"})
    assert verdict == stamps.Verdict(True, "if stage 1 make changes what it reads")


def test_a_stamp_that_is_none(two):
    stages = two()
    run_both(stages)
    stages["make"].stamp.write_text("{")
    with pytest.raises(InputError, match=r"make\.json: not a stamp; remove it: rm "):
        stamps.check(stages, "make")


def test_two_configs_that_agree_in_a_section_are_one_config_to_a_stage(tmp_path):
    (tmp_path / "a.yaml").write_text("model: {mels: 80}\nlr: 1\n")
    (tmp_path / "b.yaml").write_text("model: {mels: 80}\nlr: 2\n")
    stages = [
        stamps.Stage(2, "dump", configs=[f"{tmp_path / name}#model.mels"])
        for name in ("a.yaml", "b.yaml")
    ]
    assert (
        stamps.differences(stages[1], stamps.resolve(stages[0], {}), stamps.resolve(stages[1], {}))
        == []
    )


def test_a_refused_run_that_wrote_nothing_is_forgotten(two):
    stages = two()
    stamps.begin(stages["make"])
    stamps.withdraw(stages["make"])
    assert not stages["make"].pending().exists()
    assert stamps.staleness(stages["make"], trust_outputs=True) == "has not run"
    run(stages, "make", ("mid.txt", "m\n"))
    stamps.begin(stages["make"])
    stamps.withdraw(stages["make"])
    assert stamps.staleness(stages["make"], trust_outputs=True) == ""


def test_a_refused_run_that_wrote_something_counts_as_cut_off(two):
    stages = two()
    run(stages, "make", ("mid.txt", "m\n"))
    stamps.begin(stages["make"])
    stamps.write_text("mid.txt", "half\n")
    stamps.withdraw(stages["make"])
    assert stages["make"].pending().exists()


def test_of_two_files_that_disagree_in_a_section_a_change_of_either_is_seen(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stage = stamps.Stage(2, "dump", configs=["a.yaml#mels", "b.yaml#mels", "b.yaml#unset"])

    def record(first: int, second: int) -> dict:
        (tmp_path / "a.yaml").write_text(f"mels: {first}\n")
        (tmp_path / "b.yaml").write_text(f"mels: {second}\n")
        return stamps.resolve(stage, {})

    before = record(80, 80)
    assert stamps.differences(stage, before, record(40, 80)) == [
        "b.yaml#mels is newly its config",
        "a.yaml: mels 80 → 40",
    ]
    assert stamps.differences(stage, before, record(80, 40)) == ["b.yaml#mels is newly its config"]
    before = record(80, 40)
    assert stamps.differences(stage, before, record(80, 20)) == ["b.yaml: mels 40 → 20"]
    assert stamps.differences(stage, before, record(20, 40)) == ["a.yaml: mels 80 → 20"]
    # A section that an older stamp did not know, and that nobody sets, is no change.
    del before["configs"]["unset"]
    assert stamps.differences(stage, before, record(80, 40)) == []


def test_a_separate_stage_stands_where_fewer_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        stamps.write_text(tmp_path / "data" / name / "list", f"{name}\n")

    def stages(*names: str, separate: bool = True) -> dict[str, stamps.Stage]:
        return plan(
            *("@stage", "2", "dump", "@stamp", "dump.json", *(["@separate"] * separate)),
            *("@option", "rate=16000", *(f"limits of {name}=30" for name in names)),
            *("@input", *(f"data/{name}" for name in names)),
            *("@output", *(f"dump/{name}" for name in names)),
        )

    both = stages("one", "two")
    run(both, "dump", ("dump/one/list", "1\n"), ("dump/two/list", "2\n"))
    assert not stamps.check(stages("two"), "dump").run
    assert stamps.check(stages("two", separate=False), "dump").run
    for folder in ("data", "dump"):
        stamps.write_text(tmp_path / folder / "three" / "list", "three\n")
    assert "--limits of three not given" in stamps.check(stages("two", "three"), "dump").why
    (tmp_path / "data/two/list").unlink()
    assert stamps.check(stages("two"), "dump").why == "data/two/list is gone"
    assert not stamps.check(stages("one"), "dump").run
    (tmp_path / "dump/one/list").write_text("edited\n")
    assert "dump/one/list changed" in stamps.check(stages("one"), "dump").why
