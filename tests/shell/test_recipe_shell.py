"""utils/recipe.sh and utils/asr.sh on a recipe whose programs only write files."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUN_SH = f"""#!/usr/bin/env bash
# A recipe for tests.
# Second line of its help.
set -euo pipefail
exec "{ROOT}/utils/asr.sh" "$(dirname "$(realpath "$0")")" --token_type bpe --vocab_size 30 -- "$@"
"""
DATA_SH = """#!/usr/bin/env bash
set -euo pipefail
printf 'data.sh' >> "$FAKE_LOG"; printf ' [%s]' "$@" >> "$FAKE_LOG"; echo >> "$FAKE_LOG"
for set_name in train dev test more; do
    mkdir -p "$2/$set_name"
    echo "u1 a.wav" > "$2/$set_name/wav.scp"
    echo "u1 100" > "$2/$set_name/utt2num_samples"
    [[ $set_name == more ]] || echo "u1 hello" > "$2/$set_name/text"
done
"""
ALL = ["data", "dump", "tokens", "finetune", "quantize", "decode", "score", "profile"]


class Recipe:
    """A recipe folder (with a blank in its path) and how to run it."""

    def __init__(self, folder: Path):
        self.folder = folder / "my recipe" / "asr1"
        self.log = folder / "log"
        self.environment = {
            **os.environ,
            "PYTHON": str(ROOT / "tests" / "shell" / "fake_python"),
            "REAL_PYTHON": sys.executable,
            "FAKE_LOG": str(self.log),
        }
        for name in ("conf", "local"):
            (self.folder / name).mkdir(parents=True)
        for name, text in (("run.sh", RUN_SH), ("local/data.sh", DATA_SH)):
            (self.folder / name).write_text(text)
            (self.folder / name).chmod(0o755)
        self.write_config(
            "train_asr.yaml", "train: {updates: 10}\nmodel: {front_end: {num_mels: 80}}"
        )
        self.write_config("quantize_bf16.yaml", "weights: bf16")
        self.write_config("decode_greedy.yaml", "method: greedy")

    def write_config(self, name: str, text: str) -> None:
        (self.folder / "conf" / name).write_text(text + "\n")

    def start(self, *arguments: str, cwd: Path | None = None, **environment: str):
        self.log.write_text("")
        return subprocess.Popen(
            [str(self.folder / "run.sh"), *arguments],
            cwd=cwd or self.folder,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, code: int = 0, **options) -> str:
        """Return standard output of a run that ends with `code` (of a failed one: standard error)."""
        process = self.start(*arguments, **options)
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, out + err
        return out if code == 0 else err

    def programs(self) -> list[str]:
        """Return the names of the programs the last run called."""
        return [line.split()[0] for line in self.log.read_text().splitlines()]

    def stages_run(self, out: str) -> list[str]:
        """Return the stages that end with their seconds."""
        return re.findall(r"^stage \d+ (\w+): \d+ s$", out, flags=re.M)


@pytest.fixture
def recipe(tmp_path) -> Recipe:
    return Recipe(tmp_path)


@pytest.fixture(scope="module")
def finished_once(tmp_path_factory) -> Recipe:
    recipe = Recipe(tmp_path_factory.mktemp("finished"))
    assert recipe.stages_run(recipe.run()) == ALL
    return recipe


@pytest.fixture
def finished(finished_once, recipe) -> Recipe:
    """A recipe all of whose stages have run: a copy, times of files included."""
    shutil.copytree(finished_once.folder, recipe.folder, dirs_exist_ok=True)
    shutil.copy(finished_once.log, recipe.log)
    return recipe


def test_help_shows_the_header_and_every_option(recipe):
    out = recipe.run("--help")
    assert out.startswith("A recipe for tests.\nSecond line of its help.\n\nOptions")
    assert "exec" not in out
    assert "--vocab_size VALUE" in out and "[30]" in out
    assert recipe.run("-h") == out


def test_list_names_the_stages_by_number(recipe):
    lines = recipe.run("--list").splitlines()
    numbers = ["1", "2", "3", "6", "7", "9", "10", "11"]
    assert [line.split()[:2] for line in lines] == [
        [number, name] for number, name in zip(numbers, ALL, strict=True)
    ]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--vocab_sise", "3"], "unknown option '--vocab_sise' (did you mean '--vocab_size'?)"),
        (["--stage", "decoed"], "unknown stage 'decoed' (did you mean 'decode'?), expected one of"),
        (["--stage", "4"], "unknown stage '4', expected one of: 1 data, 2 dump, 3 tokens,"),
        (["--stage", "9", "--stop_stage", "dump"], "--stage decode comes after --stop_stage dump"),
        (["--nj"], "option --nj needs a value"),
        (["--exp_tag", "--fresh"], "option --exp_tag needs a value"),
        (["--nj", "zero"], "--nj zero: expected a whole number from 1"),
        (["--fresh=maybe"], "--fresh maybe: expected true or false"),
        (["train"], "unexpected 'train', expected --option value"),
        (["--asr_config", "conf/none.yaml"], "conf/none.yaml: no such file or folder"),
        (["--corpus", "nowhere"], "nowhere: no such file or folder"),
        (["--stage", "1", "--stop_stage", "2", "--skip_stages", "data,2"], "nothing to run"),
    ],
)
def test_a_mistake_ends_in_one_line_and_exit_code_2(recipe, arguments, expected):
    err = recipe.run(*arguments, code=2)
    assert err.startswith("error: ") and expected in err
    assert err.count("\n") == 1
    assert recipe.programs() == []


def test_all_stages_run_in_order_with_their_files(finished):
    assert finished.programs() == [
        "data.sh",
        *["dump_data"] * 3,
        "compute_cmvn",
        *["make_tokens", "train_asr", "pack_model"],
        *["decode_asr"] * 2,
        *["score_asr"] * 2,
        *["write_results", "write_report"],
        *["profile_model", "draw_results", "write_report"],
    ]
    lines = finished.log.read_text().splitlines()
    assert lines[5] == (
        "make_tokens [--text] [dump/train/text] [--token_type] [bpe] [--vocab_size] [30] "
        "[--output_dir] [dump/tokens_bpe30]"
    )
    assert lines[6] == (
        "train_asr [--config] [conf/train_asr.yaml] [--train_dirs] [dump/train] [--dev_dirs] "
        "[dump/dev] [--tokenizer] [dump/tokens_bpe30] [--cmvn] [dump/train/cmvn.safetensors] "
        "[--expdir] [exp/asr_bpe30]"
    )
    assert lines[-5] == (
        "write_results [--row] [asr_bpe30_bf16_greedy] [--model] [exp/asr_bpe30/model_bf16.esp] "
        "[--decode_dirs] [dev=exp/asr_bpe30/decode_greedy_bf16/dev] "
        "[test=exp/asr_bpe30/decode_greedy_bf16/test] [--results_dir] [.] [--dev_sets] [dev]"
    )


def test_a_second_run_finds_everything_up_to_date(finished):
    out = finished.run()
    assert finished.programs() == []
    assert out.count("up to date: options, config, inputs and outputs are those of 20") == len(ALL)


def test_options_reach_the_programs_that_take_them(recipe):
    words = "--dry-run --vocab-size=7 --vocab_size 8 --nj 3 --set a.b=1 --set model.front_end.num_mels=40"
    out = recipe.run(
        *words.split(), "--exp_tag", "a b", "--set=c=x y", "--speed_factors", "0.9 1.1"
    )
    commands = {
        line.split()[3].rpartition(".")[2]: line for line in out.splitlines() if " -m " in line
    }
    assert "--vocab_size 8 " in commands["make_tokens"]  # the later of two wins
    assert "--expdir exp/asr_bpe8_a\\ b" in commands["train_asr"]
    assert commands["train_asr"].endswith(
        r" --set a.b=1 --set model.front_end.num_mels=40 --set c=x\ y"
        r" --set data.speed_factors=\[0.9\,\ 1.1\]"
    )
    assert commands["compute_cmvn"].endswith(".safetensors --set model.front_end.num_mels=40")
    assert commands["decode_asr"].endswith("--nj 3")


def test_dry_run_prints_commands_and_runs_nothing(recipe):
    out = recipe.run("--dry_run")
    assert recipe.programs() == []
    assert not (recipe.folder / "data").exists()
    commands = [line for line in out.splitlines() if line.startswith("+ ")]
    assert len(commands) == 17
    assert commands[0] == "+ local/data.sh --data_dir data"


def test_dry_run_of_a_finished_recipe_names_what_is_up_to_date(finished):
    finished.write_config("decode_greedy.yaml", "method: other")
    out = finished.run("--dry_run")
    assert "stage 7 quantize: up to date" in out
    assert 'stage 9 decode: would run, conf/decode_greedy.yaml: method "greedy" → "other"' in out
    assert "stage 10 score: would run, if stage 9 decode changes what it reads" in out


@pytest.mark.slow
def test_two_packings_of_a_training_keep_their_decodings_apart(finished):
    bf16 = finished.folder / "exp" / "asr_bpe30" / "decode_greedy_bf16"
    before = (bf16 / "test" / "text").read_text()
    finished.write_config("quantize_fp32.yaml", "weights: fp32")
    out = finished.run("--quantize_config", "conf/quantize_fp32.yaml")
    assert finished.stages_run(out) == ["quantize", "decode", "score", "profile"]
    assert (bf16.with_name("decode_greedy_fp32") / "test" / "text").exists()
    assert (bf16 / "test" / "text").read_text() == before
    assert finished.run().count("up to date") == len(ALL)


def test_a_policy_with_training_is_trained_beside_the_recognizer_and_then_packed(finished):
    rules = "rules: [{kinds: [head], weight_bits: 8}]"
    finished.write_config("quantize_w8.yaml", f"{rules}\ntraining: {{}}")
    options = ["--quantize_config", "conf/quantize_w8.yaml", "--quantize_tag", "short"]
    options += ["--quantize_set", "training.train.updates=5"]
    out = finished.run(*options)
    assert finished.stages_run(out) == ["quantize", "decode", "score", "profile"]
    train, pack = finished.log.read_text().splitlines()[:2]
    assert train.startswith("quantize_asr [--config] [conf/quantize_w8.yaml] [--teacher] ")
    student = "[exp/quantized_asr_bpe30_w8_short]"
    assert (
        "[--teacher] [exp/asr_bpe30] [--train_dirs] [dump/train] [--dev_dirs] [dump/dev] " in train
    )
    assert f"[--expdir] {student} [--set] [training.train.updates=5]" in train
    assert pack.startswith(f"pack_model [--expdir] {student}")
    assert "[--set] [training.train.updates=5]" in pack
    assert "[--output] [exp/asr_bpe30/model_w8_short.esp]" in pack and "--train_dirs" not in pack
    assert "up to date" in finished.run(*options, "--stage", "quantize", "--stop_stage", "quantize")
    options[-1] = "training.train.updates=6"
    assert finished.stages_run(finished.run(*options))[0] == "quantize"


def test_a_policy_without_training_measures_activations_while_it_is_packed(finished):
    finished.write_config("quantize_w8.yaml", "rules: [{kinds: [head], activation_bits: 8}]")
    options = ["--quantize_config", "conf/quantize_w8.yaml"]
    finished.run(*options, "--quantize_set", "calibration_utterances=64")
    pack = finished.log.read_text().splitlines()[0]
    assert pack.startswith("pack_model [--expdir] [exp/asr_bpe30] ")
    assert "[--set] [calibration_utterances=64]" in pack
    assert "[--train_dirs] [dump/train] [--dev_dirs] [dump/dev]" in pack


def test_profile_of_the_model_and_of_further_configs(finished):
    finished.write_config("train_asr_wide.yaml", "model: {encoder: {dim: 512}}")
    options = ["--profile_configs", "conf/train_asr_wide.yaml", "--profile_runs", "2"]
    out = finished.run(*options)
    assert finished.stages_run(out) == ["profile"]
    assert finished.log.read_text().splitlines() == [
        "profile_model [--model] [exp/asr_bpe30/model_bf16.esp] [--threads] [1] [2] [--runs] [2]"
        " [--output] [./results/profile/asr_bpe30_bf16.json]",
        "profile_model [--model] [conf/train_asr_wide.yaml] [--threads] [1] [2] [--runs] [2]"
        " [--output] [./results/profile/train_asr_wide.json]",
        "draw_results [--results_dir] [.]",
        "write_report [--results_dir] [.] [--expdir] [exp]",
    ]
    assert finished.stages_run(finished.run(*options)) == []
    finished.write_config("train_asr_wide.yaml", "model: {encoder: {dim: 640}}")
    assert "encoder.dim 512 → 640" in finished.run(*options)
    (finished.folder / "exp/asr_bpe30/model_bf16.esp").unlink()
    message = finished.run("--stage", "profile", code=2)
    assert "needs stage 7 quantize, which is stale" in message


def test_stages_by_number_and_name(recipe):
    assert recipe.stages_run(recipe.run("--stop_stage", "2")) == ["data", "dump"]
    out = recipe.run("--stage", "tokens", "--stop_stage", "quantize", "--skip_stages", "quantize")
    assert recipe.stages_run(out) == ["tokens", "finetune"]


def test_a_stage_without_its_upstream_is_refused_with_the_command(recipe):
    err = recipe.run("--stage", "decode", "--vocab_size", "30", "--exp_tag", "x y", code=2)
    assert err == (
        "error: stage 9 decode: needs stage 1 data, which has not run; "
        "run it: ./run.sh --vocab_size 30 --exp_tag x\\ y --stage data --stop_stage decode\n"
    )


def test_a_changed_training_config_reruns_training_and_refuses_decoding_alone(finished):
    finished.write_config(
        "train_asr.yaml", "train: {updates: 20}\nmodel: {front_end: {num_mels: 80}}"
    )
    err = finished.run("--stage", "decode", code=2)
    assert (
        "stage 9 decode: needs stage 6 finetune, which is stale: conf/train_asr.yaml: "
        "train.updates 10 → 20; run it: ./run.sh --stage finetune --stop_stage decode"
    ) in err
    out = finished.run()
    assert "stage 6 finetune: conf/train_asr.yaml: train.updates 10 → 20" in out
    assert finished.stages_run(out) == ["finetune", "quantize", "decode", "score", "profile"]


def test_a_comment_or_a_new_date_changes_nothing(finished):
    config = finished.folder / "conf" / "train_asr.yaml"
    config.write_text("# A comment.\n" + config.read_text())
    os.utime(finished.folder / "data" / "train" / "text", (1, 1))
    finished.run()
    assert finished.programs() == []


@pytest.mark.slow
def test_a_change_of_the_front_end_alone_reaches_the_statistics(finished):
    finished.write_config(
        "train_asr.yaml", "train: {updates: 10}\nmodel: {front_end: {num_mels: 40}}"
    )
    out = finished.run("--stop_stage", "dump")
    assert finished.stages_run(out) == ["dump"]
    assert "stage 2 dump: conf/train_asr.yaml: model.front_end.num_mels 80 → 40" in out


@pytest.mark.slow
def test_a_changed_list_runs_what_reads_it(finished):
    with (finished.folder / "data" / "train" / "text").open("a") as file:
        file.write("u2 more\n")
    out = finished.run("--stage", "dump")  # a data set mended by hand is taken as it is
    assert "stage 2 dump: data/train/text changed" in out
    assert "stage 3 tokens: dump/train/text changed" in out
    assert finished.stages_run(out) == ALL[1:]


@pytest.mark.slow
def test_a_redone_stage_with_the_same_result_stops_there(finished):
    (finished.folder / "dump" / "dev" / "text").write_text("edited\n")
    out = finished.run()
    assert "stage 2 dump: dump/dev/text changed after the stage had written it" in out
    assert finished.stages_run(out) == ["dump"]


def test_own_data_needs_no_stage_1(recipe):
    recipe.run("--stop_stage", "data")
    for path in (recipe.folder / "data" / ".stamps").iterdir():
        path.unlink()
    assert recipe.stages_run(recipe.run("--stage", "2", "--stop_stage", "2")) == ["dump"]


def test_corpus_not_given_again_stays_the_one_it_was(recipe, tmp_path):
    for name in ("the corpus", "other"):
        (tmp_path / name).mkdir()
    recipe.run("--corpus", str(tmp_path / "the corpus"), "--stop_stage", "data")
    assert f"[--corpus] [{tmp_path}/the corpus]" in recipe.log.read_text()
    recipe.run("--stop_stage", "data")
    assert recipe.programs() == []
    recipe.run("--corpus", str(tmp_path / "other"), "--stop_stage", "data")
    assert recipe.programs() == ["data.sh"]


@pytest.mark.slow
def test_a_failed_stage_says_so_and_leaves_no_lock(recipe):
    err = recipe.run(code=2, FAKE_FAIL="train_asr")
    assert "error: train_asr was told to fail" in err
    assert re.search(r"stage 6 finetune: failed after \d+ s \(exit 2\)", err)
    assert not list(recipe.folder.rglob("*.lock"))
    assert recipe.stages_run(recipe.run("--stop_stage", "6")) == ["finetune"]


def test_a_killed_stage_runs_again_and_its_lock_is_taken_over(recipe):
    recipe.run("--stop_stage", "tokens")
    process = recipe.start(FAKE_WAIT="train_asr")
    waiting = Path(f"{recipe.log}.waiting")
    wait_for(waiting.exists)
    lock = next(recipe.folder.rglob("*.lock"))
    err = recipe.run("--stage", "finetune", code=2)
    assert f"in use by process {process.pid} on host" in err and str(lock) in err
    process.kill()
    end_fakes(recipe)  # the training outlives its recipe; its own lock is another one
    process.communicate(timeout=20)
    err = recipe.run("--stage", "decode", code=2)
    assert "needs stage 6 finetune, which is stale: runs now, or was cut off before its end" in err
    out = recipe.run("--stop_stage", "finetune")
    assert "stage 6 finetune: runs now, or was cut off before its end" in out
    assert recipe.stages_run(out) == ["finetune"]
    assert not list(recipe.folder.rglob("*.lock"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_reaches_the_program_and_its_exit_code_comes_back(recipe, number):
    recipe.run("--stop_stage", "tokens")
    script = Path(recipe.environment["PYTHON"]).read_text().replace("75' TERM", "75' TERM USR1")
    python = recipe.folder / "python with USR1"
    python.write_text(script)
    python.chmod(0o755)
    process = recipe.start(FAKE_WAIT="train_asr", PYTHON=str(python))
    wait_for(Path(f"{recipe.log}.waiting").exists)
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 75
    assert recipe.log.read_text().endswith("saved\n")
    assert re.search(r"stage 6 finetune: stopped after \d+ s \(exit 75\)", err)
    assert not list(recipe.folder.rglob("*.lock"))


def wait_for(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def end_fakes(recipe) -> None:
    """End the fake training that outlived its killed recipe."""
    script = recipe.environment["PYTHON"]
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
                environment = (folder / "environ").read_bytes()
            except OSError:
                continue
            ours = f"FAKE_LOG={recipe.log}\0".encode() in environment
            if ours and script.encode() in words:
                os.kill(int(folder.name), signal.SIGKILL)


def test_fresh_trains_again(finished):
    out = finished.run("--fresh", "--stage", "finetune", "--stop_stage", "finetune")
    assert "stage 6 finetune: asked to run in any case" in out
    assert finished.log.read_text().splitlines()[0].endswith("[--fresh]")


@pytest.mark.slow
def test_an_exp_tag_is_another_experiment(finished):
    out = finished.run("--exp_tag", "wide", "--set", "model.dim=512")
    assert finished.stages_run(out) == ["finetune", "quantize", "decode", "score", "profile"]
    assert (finished.folder / "exp" / "asr_bpe30_wide" / "model.safetensors").exists()


@pytest.mark.slow
def test_a_missing_output_makes_its_stage_stale(finished):
    (finished.folder / "exp" / "asr_bpe30" / "model_bf16.esp").unlink()
    err = finished.run("--stage", "decode", code=2)
    assert "stage 7 quantize, which is stale: exp/asr_bpe30/model_bf16.esp is missing" in err
    assert finished.stages_run(finished.run()) == ["quantize", "decode", "score", "profile"]


@pytest.mark.slow
def test_a_given_model_needs_no_training(recipe):
    (recipe.folder / "models").mkdir()
    (recipe.folder / "models" / "best.esp").write_text("weights\n")
    recipe.run("--stop_stage", "dump")
    out = recipe.run("--model", "models/best.esp", "--stage", "decode")
    assert recipe.stages_run(out) == ["decode", "score", "profile"]
    lines = recipe.log.read_text().splitlines()
    assert lines[0].startswith("decode_asr [--model] [models/best.esp] [--data_dir] [dump/dev]")
    assert "[--output_dir] [exp/packed_best/decode_greedy/dev]" in lines[0]
    (written,) = [line for line in lines if line.startswith("write_results ")]
    assert written.startswith("write_results [--row] [best_greedy] [--model] [models/best.esp]")
    assert lines[-2:] == [
        "draw_results [--results_dir] [.]",
        "write_report [--results_dir] [.] [--expdir] [exp]",
    ]
    assert recipe.run("--model", "models/best.esp").count("up to date") == 5


@pytest.mark.slow
def test_a_language_model_is_made_of_text_and_decoded_with(recipe):
    recipe.write_config("lm_ngram.yaml", "order: 3")
    lm = ["--lm_config", "conf/lm_ngram.yaml"]
    out = recipe.run(*lm)
    assert recipe.stages_run(out) == [*ALL[:5], "lm", *ALL[5:]]
    (made,) = command_of(recipe, "train_lm")
    assert made == (
        "train_lm --config conf/lm_ngram.yaml --tokenizer dump/tokens_bpe30 "
        "--expdir exp/lm_ngram_bpe30 --text dump/train/text --dev_text dump/dev/text "
        "--held_out_text dump/test/text"
    )
    for line in command_of(recipe, "decode_asr"):
        assert line.endswith("--lm exp/lm_ngram_bpe30/lm.esp")
    assert recipe.stages_run(recipe.run(*lm)) == []
    (recipe.folder / "more.gz").write_text("text\n")
    more = [*lm, "--lm_text", "more.gz", "--lm_tag", "more", "--lm_set", "order=4"]
    assert recipe.stages_run(recipe.run(*more)) == ["lm", "decode", "score"]
    (made,) = command_of(recipe, "train_lm")
    assert "--expdir exp/lm_ngram_bpe30_more --set order=4 --text more.gz --dev_text" in made
    # A language model that is given is not made, and those who have none decode without.
    given = ["--lm", "exp/lm_ngram_bpe30/lm.esp"]
    assert recipe.stages_run(recipe.run(*given)) == ["decode", "score"]
    assert recipe.stages_run(recipe.run()) == ["decode", "score"]
    assert not command_of(recipe, "decode_asr")[0].count("--lm")
    assert "none.esp: no such file" in recipe.run("--lm", "none.esp", code=2)


@pytest.mark.slow
def test_on_a_cluster_a_language_model_is_made_by_one_process_of_one_machine(recipe):
    recipe.write_config("lm_ngram.yaml", "order: 3")
    slurm = ("--cmd_backend", "slurm", "--num_nodes", "2", "--ngpu", "4")
    out = recipe.run("--dry_run", "--lm_config", "conf/lm_ngram.yaml", *slurm)
    jobs = {}
    for line in out.splitlines():
        if line.startswith("+ ") and "espnet_lite.bin.run_jobs" in line:
            jobs[line.partition("--program ")[2].split()[0]] = line
    assert "run_processes --nproc 4 --num_nodes 2 train_asr" in jobs["train_asr"]
    assert "--resource=cpu=4 --resource=gpu=4 --resource=nodes=2" in jobs["train_asr"]
    assert "run_processes" not in jobs["train_lm"] and "nodes=" not in jobs["train_lm"]
    assert "--resource=gpu=1" in jobs["train_lm"]


@pytest.mark.slow
def test_a_packed_models_tokens_are_its_language_models(recipe):
    recipe.write_config("lm_ngram.yaml", "order: 3")
    (recipe.folder / "models").mkdir()
    (recipe.folder / "models" / "x.esp").write_text("packed\n")
    given = ["--model", "models/x.esp", "--lm_config", "conf/lm_ngram.yaml"]
    assert "no training set is prepared" in recipe.run(*given, code=2)
    recipe.run("--stop_stage", "dump")
    out = recipe.run(*given, "--stage", "lm")
    assert recipe.stages_run(out) == ["lm", "decode", "score", "profile"]
    (made,) = command_of(recipe, "train_lm")
    assert "--tokenizer models/x.esp --expdir exp/lm_ngram_x " in made


@pytest.mark.slow
def test_called_from_elsewhere_its_paths_are_those_of_the_caller(recipe, tmp_path):
    (tmp_path / "corpus here").mkdir()
    out = recipe.run(
        *("--corpus", "corpus here", "--expdir", "my exp", "--asr_config", "conf/train_asr.yaml"),
        cwd=tmp_path,
    )
    assert recipe.stages_run(out) == ALL
    assert (tmp_path / "my exp" / "asr_bpe30" / "model.safetensors").exists()
    assert f"[--corpus] [{tmp_path}/corpus here]" in recipe.log.read_text()
    err = recipe.run(
        "--stage", "tokens", "--vocab_size", "9", "--dumpdir", "d", cwd=tmp_path, code=2
    )
    assert "my\\ recipe/asr1/run.sh --vocab_size 9 --dumpdir d --stage dump" in err


def test_a_python_without_torch_is_named_with_the_command_that_mends_it(recipe, tmp_path):
    bare = tmp_path / "bare"
    bare.write_text("#!/bin/sh\necho False\n")
    bare.chmod(0o755)
    err = recipe.run(code=2, PYTHON=str(bare))
    assert err == f"error: {bare} has no torch; run: {ROOT}/tools/setup.sh\n"


def test_a_program_that_ends_without_its_output_is_a_fault(recipe, tmp_path):
    lazy = recipe.folder / "local" / "data.sh"
    lazy.write_text("#!/bin/sh\nexit 0\n")
    err = recipe.run(code=2)
    assert "stage 1 data: ended without writing data/train" in err


PRETRAIN = ["--pretrain_config", "conf/pretrain.yaml", "--pretrain_sets", "train more"]
TWICE = [*PRETRAIN, "--iters", "1,2", "--clusters", "100,200", "--unit_layers", "4", "--nj", "3"]
ALL_TWICE = [*ALL[:3], "units", "pretrain", "units_2", "pretrain_2", *ALL[3:]]


@pytest.fixture(scope="module")
def pretrained_once(tmp_path_factory) -> Recipe:
    recipe = Recipe(tmp_path_factory.mktemp("pretrained"))
    for name in ("pretrain.yaml", "pretrain_other.yaml"):
        recipe.write_config(name, "train: {updates: 10}\nmodel: {front_end: {num_mels: 80}}")
    assert recipe.stages_run(recipe.run(*TWICE)) == ALL_TWICE
    return recipe


@pytest.fixture
def pretrained(pretrained_once, recipe) -> Recipe:
    """A recipe whose two iterations of pre-training, and all after them, have run: a copy."""
    shutil.copytree(pretrained_once.folder, recipe.folder, dirs_exist_ok=True)
    shutil.copy(pretrained_once.log, recipe.log)
    return recipe


def command_of(recipe: Recipe, program: str) -> list[str]:
    """Return the lines of the log in which a program was called, without brackets."""
    lines = recipe.log.read_text().splitlines()
    return [re.sub(r" \[([^]]*)\]", r" \1", x) for x in lines if x.split()[0] == program]


def test_iterations_are_made_of_each_other(pretrained):
    dumps = command_of(pretrained, "dump_data")
    assert [("more" in line, "--no_text" in line) for line in dumps].count((True, True)) == 1
    assert sum("--no_text" in line for line in dumps) == 1
    assert command_of(pretrained, "make_units") == [
        "make_units --data_dirs dump/train dump/more --label_dirs dump/dev --features mfcc "
        "--sample_rate 16000 --clusters 100 --sample_megabytes 512 --nj 3 "
        "--output exp/units_pretrain_it1",
        "make_units --data_dirs dump/train dump/more --label_dirs dump/dev --model "
        "exp/pretrain_it1 --layer 4 --clusters 200 --sample_megabytes 512 --nj 3 "
        "--output exp/units_pretrain_it2",
    ]
    assert command_of(pretrained, "train_hubert")[1] == (
        "train_hubert --config conf/pretrain.yaml --train_dirs dump/train dump/more --dev_dirs "
        "dump/dev --units exp/units_pretrain_it2 --cmvn dump/cmvn_pretrain.safetensors "
        "--expdir exp/pretrain_it2"
    )
    (trained,) = command_of(pretrained, "train_asr")
    assert trained.endswith("--expdir exp/asr_bpe30_from_it2 --pretrained exp/pretrain_it2")
    assert pretrained.run(*TWICE).count("up to date") == len(ALL_TWICE)
    assert "make_units" not in pretrained.run(*TWICE, "--unit_mean", "keep", "--dry_run")
    centered = pretrained.run(*TWICE, "--unit_mean", "subtract", "--dry_run")
    assert "units: up to date" in centered
    assert "exp/pretrain_it1 --layer 4 --subtract_mean --clusters 200" in centered


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--iters", "2,1"], "--iters 2,1: expected rising numbers, as 1,2"),
        (["--iters", "two"], "--iters two: expected iterations from 1 to 9, as 1,2"),
        (["--clusters", "100,0"], "--clusters 100,0: expected whole numbers from 1, as 100,500"),
        (["--unit_mean", "no"], "--unit_mean no: expected keep or subtract"),
        (["--unit_layers", "-1"], "--unit_layers -1: expected whole numbers, as 6,9"),
        (["--pretrain_config", "conf/pretrain.yaml,conf/no.yaml"], "conf/no.yaml: no such file"),
        (["--pretrained", "exp/none"], "exp/none: no such file or folder"),
        (["--pretrain_sets", " ", "--train_sets", " "], "--train_sets are empty, expected names"),
        (["--pretrain_dev_sets", " "], "--pretrain_dev_sets and --dev_sets are empty, expected"),
        (["--pretrained", "none", "--stage", "units"], "unknown stage 'units'"),
        (["--stage", "units_2", "--stop_stage", "pretrain"], "--stage units_2 comes after --stop"),
        (["--alignments", "nowhere"], "nowhere: no such file or folder"),
    ],
)
def test_a_mistake_of_the_pre_training_is_one_line(pretrained, arguments, expected):
    err = pretrained.run(*TWICE, *arguments, code=2)
    assert err.startswith("error: ") and expected in err and err.count("\n") == 1
    assert pretrained.programs() == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--stage units --stop_stage units", ["units"]),
        ("--stage units_2 --stop_stage units_2", ["units_2"]),
        ("--stage 4 --stop_stage 5", ["units", "pretrain", "units_2", "pretrain_2"]),
        ("--stage pretrain --stop_stage units_2", ["pretrain", "units_2"]),
        ("--stage 5 --stop_stage 6 --skip_stages 5", ["units_2", "finetune"]),
        (
            "--stage 4 --stop_stage pretrain_2 --skip_stages units,pretrain",
            ["units_2", "pretrain_2"],
        ),
    ],
)
def test_a_range_of_stages_goes_by_their_order(pretrained, arguments, expected):
    out = pretrained.run(*TWICE, "--dry_run", *arguments.split())
    assert re.findall(r"^stage \d+ (\w+): up to date$", out, flags=re.M) == expected
    assert out.count("\n") == len(expected)


def test_iteration_2_alone_and_the_command_that_mends_what_it_is_made_of(pretrained):
    alone = [*PRETRAIN, "--clusters", "100,200", "--unit_layers", "4", "--iters", "2"]
    assert pretrained.run(*alone).count("up to date") == len(ALL_TWICE) - 2
    (pretrained.folder / "exp" / "pretrain_it1" / "model.safetensors").unlink()
    err = pretrained.run(*alone, "--stage", "units_2", code=2)
    assert "needs stage 5 pretrain, which is stale: exp/pretrain_it1/model.safetensors" in err
    words = err.partition("run it: ./run.sh ")[2].split()
    assert words[-6:] == ["--iters", "1,2", "--stage", "pretrain", "--stop_stage", "units_2"]
    words = [word.replace("\\", "") for word in words]
    place = words.index("--pretrain_sets") + 1
    words[place : place + 2] = ["train more"]
    assert pretrained.stages_run(pretrained.run(*words)) == ["pretrain", "units_2"]


def test_another_recognizer_leaves_the_pre_training_as_it_is(pretrained):
    """Its training set gets statistics, sets come and go; none of that is what units are made of."""
    other = [*TWICE, "--train_sets", "dev", "--dev_sets", "test", "--test_sets", ""]
    out = pretrained.run(*other, "--pretrain_dev_sets", "dev", "--stop_stage", "pretrain_2")
    assert pretrained.stages_run(out) == ["dump", "tokens"]
    assert (pretrained.folder / "dump" / "dev" / "cmvn.safetensors").exists()
    out = pretrained.run(*TWICE, "--stop_stage", "pretrain_2")
    assert pretrained.stages_run(out) == ["dump", "tokens"]
    scratch = [*TWICE, "--pretrained", "none"]  # asks for fewer sets
    out = pretrained.run(*scratch, "--stage", "finetune", "--stop_stage", "finetune")
    assert pretrained.stages_run(out) == ["finetune"]
    assert "exp/asr_bpe30]" in pretrained.log.read_text()


def test_a_given_encoder_names_the_recognizer(pretrained):
    tag = ["--pretrain_tag", "v1.5", "--stop_stage", "finetune"]
    pretrained.run(*TWICE, *tag)
    assert "--expdir exp/asr_bpe30_from_v1.5_it2 " in command_of(pretrained, "train_asr")[0]
    (pretrained.folder / "models").mkdir()
    (pretrained.folder / "models" / "base.safetensors").write_text("weights\n")
    for given, name in (
        ("exp/pretrain_v1.5_it1/", "v1.5_it1"),
        ("models/base.safetensors", "base"),
    ):
        pretrained.run(*TWICE, "--pretrained", given, "--stop_stage", "finetune")
        (trained,) = command_of(pretrained, "train_asr")
        assert trained.endswith(
            f"--expdir exp/asr_bpe30_from_{name} --pretrained {given.strip('/')}"
        )


def test_each_config_has_the_statistics_of_its_features(pretrained):
    pretrained.write_config("pretrain_other.yaml", "model: {front_end: {num_mels: 40}}")
    both = [*TWICE, "--pretrain_config", "conf/pretrain.yaml,conf/pretrain_other.yaml"]
    out = pretrained.run(*both, "--stop_stage", "pretrain_2")
    assert pretrained.stages_run(out) == ["dump", "pretrain_2"]
    made = [line.split("--config ")[1] for line in command_of(pretrained, "compute_cmvn")]
    assert made[-1] == ("conf/pretrain_other.yaml --output dump/cmvn_pretrain_other.safetensors")
    (trained,) = command_of(pretrained, "train_hubert")
    assert "--cmvn dump/cmvn_pretrain_other.safetensors --expdir exp/pretrain_it2" in trained


@pytest.mark.parametrize("config", ["train_asr.yaml", "pretrain.yaml"])
def test_features_that_change_in_one_config_alone_are_seen(pretrained, config):
    pretrained.write_config(config, "train: {updates: 10}\nmodel: {front_end: {num_mels: 40}}")
    out = pretrained.run(*TWICE, "--stop_stage", "dump")
    assert pretrained.stages_run(out) == ["dump"]
    assert f"conf/{config}" in out


def test_overrides_of_features_reach_the_statistics(pretrained):
    overrides = ["--pretrain_set", "model.front_end={name: log_mel, num_mels: 40}"]
    overrides += ["--pretrain_set", "model.front_end.cmvn=none", "--pretrain_set", "train.seed=3"]
    out = pretrained.run(*TWICE, *overrides, "--dry_run", "--stop_stage", "pretrain")
    assert "stage 5 pretrain: would run, if stage 4 units changes" in out
    made = [line for line in out.splitlines() if " -m espnet_lite.bin.compute_cmvn" in line]
    assert [line.count("--set") for line in made] == [0, 2]
    trained = next(line for line in out.splitlines() if "train_hubert" in line)
    assert trained.endswith("--set train.seed=3")


def test_phones_that_are_given_later_are_compared_without_new_units(pretrained):
    (pretrained.folder / "grids").mkdir()
    out = pretrained.run(*TWICE, "--alignments", "grids", "--stop_stage", "pretrain_2")
    # A training that is done writes the same weights again; that of the tests writes others.
    assert pretrained.stages_run(out) == ["pretrain", "units_2", "pretrain_2"]
    assert len(command_of(pretrained, "make_units")) == 1
    assert command_of(pretrained, "score_units")[0] == (
        "score_units --units exp/units_pretrain_it1 --alignments grids "
        "--output exp/units_pretrain_it1.phones.json"
    )
    (recorded, _) = command_of(pretrained, "write_pretraining")
    assert recorded.endswith("--results_dir . --phones exp/units_pretrain_it1.phones.json")
