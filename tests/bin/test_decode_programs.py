"""pack_model and decode_asr as a user calls them: files in, files out, one line for a fault."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from espnet_lite.bin import decode_asr, pack_model
from espnet_lite.config import dump_yaml, from_plain, load_config, to_plain
from espnet_lite.data.data_dir import Utterance, write_data_dir
from espnet_lite.decode.config import load_decode_config
from espnet_lite.decode.greedy import ctc_greedy
from espnet_lite.decode.packed_decoder import load_decoder
from espnet_lite.errors import InputError
from espnet_lite.models.asr import AsrConfig, AsrModel
from espnet_lite.quantize.config import QuantizeConfig
from espnet_lite.runtime.format import read_header, read_packed
from espnet_lite.runtime.packed_model import PackedModel
from espnet_lite.text.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "egs" / "mini" / "asr1" / "conf"
TOKENS = ["<blank>", "<unk>", "<space>", "a", "b", "c", "<sos/eos>"]
MODEL = {
    "front_end": {"name": "log_mel", "num_mels": 20, "channels": 4, "cmvn": "utterance"},
    "encoder": {"name": "transformer", "dim": 16, "layers": 1, "heads": 2, "feed_forward": 32},
    "decoder": {"name": "transformer", "layers": 1, "heads": 2, "feed_forward": 32},
}
# Byte order of ids: capitals before small letters, and é (UTF-8 c3 a9) after them.
SAMPLES = {"B-1": 16000, "a-1": 1, "a-2": 40000, "a-3": 900, "a-é": 23456, "b-1": 8000}


@pytest.fixture(scope="module")
def expdir(tmp_path_factory) -> Path:
    """An experiment folder as train_asr leaves it, with untrained weights."""
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("exp") / "asr_tiny"
    folder.mkdir()
    config = from_plain(AsrConfig, MODEL)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = AsrModel(config, vocab=len(TOKENS))
    torch.nn.init.normal_(model.ctc_head.weight, generator=torch.Generator().manual_seed(0))
    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "config.yaml").write_text(dump_yaml({"model": to_plain(config), "train": {}}))
    (folder / "model.json").write_text(json.dumps({"updates": 12, "seed": 1}))
    Tokenizer.from_dict({"kind": "char", "nlsyms": [], "tokens": TOKENS}).save(folder / "tokenizer")
    return folder


@pytest.fixture(scope="module")
def packed(expdir) -> Path:
    path = expdir / "model_bf16.esp"
    assert run_pack(expdir, "quantize_bf16.yaml", path) == 0
    return path


def run_pack(expdir: Path, config: str, output: Path) -> int:
    arguments = ["--expdir", str(expdir), "--config", str(CONFIGS / config)]
    return pack_model.main([*arguments, "--output", str(output)])


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dump")
    utterances = []
    for number, (name, samples) in enumerate(SAMPLES.items()):
        time_axis = np.arange(samples) / 16000
        audio = 0.2 * np.sin(2 * np.pi * (200 + 150 * time_axis) * time_axis)
        audio += 0.05 * np.random.default_rng(number).standard_normal(samples)
        soundfile.write(folder / f"{number}.wav", audio, 16000)
        utterances.append(
            Utterance(name, str(folder / f"{number}.wav"), None, None, None, name[0], samples)
        )
    write_data_dir(folder / "test", utterances)
    return folder / "test"


def arguments_of(
    packed: Path, data_dir: Path, output_dir: Path, *more: str, config: Path | None = None
) -> list[str]:
    arguments = ["--model", str(packed), "--data_dir", str(data_dir)]
    arguments += ["--config", str(config or CONFIGS / "decode_greedy.yaml")]
    return [*arguments, "--output_dir", str(output_dir), *more]


@pytest.fixture(scope="module")
def single(tmp_path_factory) -> Path:
    """A decoding config that puts every utterance into a batch of its own."""
    path = tmp_path_factory.mktemp("conf") / "single.yaml"
    path.write_text("batch_seconds: 0.01\n")
    return path


@pytest.fixture(scope="module")
def decoded(packed, data_dir, single, tmp_path_factory) -> Path:
    """The output of two processes and six batches."""
    output_dir = tmp_path_factory.mktemp("decode") / "test"
    arguments = arguments_of(packed, data_dir, output_dir, "--nj", "2", config=single)
    assert decode_asr.main(arguments) == 0
    return output_dir


@pytest.fixture
def in_process(monkeypatch):
    """Run the jobs one after another in this process, which has torch loaded already."""

    def run_jobs(launcher, array):
        for task in array.tasks:
            assert decode_asr.main(array.command_of(task)[3:]) == 0

    threads = torch.get_num_threads()
    monkeypatch.setattr("espnet_lite.jobs.launcher.Launcher.run", run_jobs)
    yield
    torch.set_num_threads(threads)


def lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def test_what_is_packed(expdir, packed, capsys, tmp_path):
    header, tensors = read_packed(packed)
    assert header == read_header(packed)
    assert header["record"] == {"updates": 12, "seed": 1}
    assert header["policy"] == {"name": "bf16", "weights": "bf16", "decoder": False}
    assert header["sample_rate"] == 16000
    assert header["architecture"]["encoder"]["dim"] == 16
    assert header["architecture"]["encoder"]["activation"] == "relu"  # resolved, defaults too
    assert header["architecture"]["decoder"] is None
    assert header["architecture"]["vocab"] == 7
    assert Tokenizer.from_dict(header["tokenizer"]).encode("ab c") == [3, 4, 2, 5]
    model = AsrModel(from_plain(AsrConfig, {**MODEL, "decoder": None}), vocab=7)
    assert header["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert tensors.keys() == model.state_dict().keys()
    assert run_pack(expdir, "quantize_fp32.yaml", tmp_path / "fp32.esp") == 0
    told = capsys.readouterr().out
    assert f"fp32.esp: {(tmp_path / 'fp32.esp').stat().st_size} bytes" in told
    assert "1.00 times smaller" in told
    assert f"{header['parameters']} parameters" in told
    assert "at most 0.00e+00" in told


def test_packing_twice_gives_the_same_bytes(expdir, packed, tmp_path, capsys):
    assert run_pack(expdir, "quantize_bf16.yaml", tmp_path / "again.esp") == 0
    assert (tmp_path / "again.esp").read_bytes() == packed.read_bytes()
    assert f"{packed.stat().st_size} bytes" in capsys.readouterr().out


def test_the_decoder_section(expdir, tmp_path):
    (tmp_path / "policy.yaml").write_text("weights: bf16\ndecoder: true\n")
    assert run_pack(expdir, str(tmp_path / "policy.yaml"), tmp_path / "joint.esp") == 0
    header, tensors = read_packed(tmp_path / "joint.esp")
    assert header["architecture"]["decoder"]["feed_forward"] == 32
    assert any(name.startswith("decoder.") for name in tensors)
    PackedModel.load(tmp_path / "joint.esp")


def test_what_cannot_be_packed(expdir, tmp_path, capsys):
    assert run_pack(tmp_path / "absent", "quantize_bf16.yaml", tmp_path / "m.esp") == 2
    assert "absent/model.safetensors: no such file; train first" in capsys.readouterr().err
    (tmp_path / "policy.yaml").write_text("weights: int8\ndecodr: true\n")
    assert run_pack(expdir, str(tmp_path / "policy.yaml"), tmp_path / "m.esp") == 2
    assert "unknown key 'decodr' (did you mean 'decoder'?)" in capsys.readouterr().err
    assert not (tmp_path / "m.esp").exists()


def test_every_word_is_what_the_model_says(packed, data_dir, decoded):
    """Against each utterance alone, in this process; too short ones are empty, not left out."""
    model = PackedModel.load(packed)
    rows = [json.loads(line) for line in lines_of(decoded / "nbest.jsonl")]
    texts = dict(line.partition(" ")[::2] for line in lines_of(decoded / "text"))
    assert [row["id"] for row in rows] == ["B-1", "a-1", "a-2", "a-3", "a-é", "b-1"] == list(texts)
    assert any(texts.values())
    for number, (name, row) in enumerate(zip(SAMPLES, rows, strict=True)):
        samples, _ = soundfile.read(data_dir.parent / f"{number}.wav", dtype="float32")
        log_probs, frames = model.log_probs(
            torch.from_numpy(samples)[None], torch.tensor([len(samples)])
        )
        (tokens,) = ctc_greedy(log_probs, frames)
        (hypothesis,) = row["hyps"]
        assert hypothesis["tokens"] == [TOKENS[token] for token in tokens]
        words = model.tokenizer.decode(tokens).split()
        assert hypothesis["text"] == texts[name] == " ".join(words)
        score = log_probs[0, : int(frames[0])].max(dim=-1).values.sum().item()
        assert hypothesis["score"] == pytest.approx(score, abs=2e-3)
    assert texts["a-1"] == texts["a-3"] == ""
    assert lines_of(decoded / "text")[1] == "a-1"


def test_decode_json(packed, data_dir, decoded):
    import hashlib

    told = json.loads((decoded / "decode.json").read_text())
    seconds = sum(SAMPLES.values()) / 16000
    assert told["audio_seconds"] == pytest.approx(seconds, abs=1e-3)
    rounded = 1e-3 / seconds  # of milliseconds
    assert told["rtf"] == pytest.approx(told["wall_seconds"] / seconds, rel=1e-2, abs=rounded)
    assert told["wall_seconds"] > 0
    assert told["model"] == {
        "path": str(packed),
        "sha256": hashlib.sha256(packed.read_bytes()).hexdigest(),
        "bytes": packed.stat().st_size,
    }
    assert told["config"] == {"method": "ctc_greedy", "batch_seconds": 0.01}
    assert (told["nj"], told["batches"], told["reused_batches"]) == (2, 6, 0)
    assert told["utterances"] == 6
    assert told["threads"] == max(1, len(os.sched_getaffinity(0)) // 2)
    assert os.listdir(decoded.parent) == ["test"]


def test_words_depend_neither_on_batches_nor_on_processes(
    packed, data_dir, decoded, tmp_path, in_process
):
    assert decode_asr.main(arguments_of(packed, data_dir, tmp_path / "out", "--nj", "3")) == 0
    assert lines_of(tmp_path / "out" / "text") == lines_of(decoded / "text")
    told = json.loads((tmp_path / "out" / "decode.json").read_text())
    assert (told["nj"], told["batches"]) == (1, 1)  # no more processes than batches


def test_a_killed_run_goes_on_where_it_stopped(
    packed, data_dir, single, decoded, tmp_path, monkeypatch, in_process
):
    def killed(launcher, array):
        assert decode_asr.main(array.command_of(1)[3:]) == 0  # job 1 of 3: batches 0 and 3
        raise KeyboardInterrupt

    output_dir, results = tmp_path / "out", tmp_path / "out.shards"
    arguments = arguments_of(packed, data_dir, output_dir, "--nj", "3", config=single)
    with monkeypatch.context() as patched:
        patched.setattr("espnet_lite.jobs.launcher.Launcher.run", killed)
        with pytest.raises(KeyboardInterrupt):
            decode_asr.main(arguments)
    assert not output_dir.exists()
    (kept,) = results.glob("results.*.jsonl")
    whole = kept.read_text()
    kept.write_text(whole[:-20])  # the second of its two lines was cut short
    arguments[arguments.index("3")] = "2"  # another number of processes makes no difference
    assert decode_asr.main(arguments) == 0
    told = json.loads((output_dir / "decode.json").read_text())
    assert (told["reused_batches"], told["nj"]) == (1, 2)
    assert told["audio_seconds"] == pytest.approx(sum(SAMPLES.values()) / 16000, abs=1e-3)
    assert lines_of(output_dir / "text") == lines_of(decoded / "text")
    assert lines_of(output_dir / "nbest.jsonl") == lines_of(decoded / "nbest.jsonl")
    assert not results.exists()


def test_results_of_another_model_are_not_used(
    packed, expdir, data_dir, single, tmp_path, monkeypatch, in_process
):
    def killed(launcher, array):
        assert decode_asr.main(array.command_of(1)[3:]) == 0
        raise KeyboardInterrupt

    arguments = arguments_of(packed, data_dir, tmp_path / "out", config=single)
    with monkeypatch.context() as patched:
        patched.setattr("espnet_lite.jobs.launcher.Launcher.run", killed)
        with pytest.raises(KeyboardInterrupt):
            decode_asr.main(arguments)
    assert run_pack(expdir, "quantize_fp32.yaml", tmp_path / "other.esp") == 0
    arguments[1] = str(tmp_path / "other.esp")
    assert decode_asr.main(arguments) == 0
    told = json.loads((tmp_path / "out" / "decode.json").read_text())
    assert told["reused_batches"] == 0


def test_a_process_whose_parent_is_gone_writes_nothing(
    packed, data_dir, tmp_path, monkeypatch, capsys, in_process
):
    parents = iter([4711, 1])
    monkeypatch.setattr(os, "getppid", lambda: next(parents))
    (tmp_path / "out.shards").mkdir()
    arguments = arguments_of(packed, data_dir, tmp_path / "out")
    assert decode_asr.main([*arguments, "--job", "1", "--key", "0a", "--threads", "1"]) == 1
    assert "the program that started this one is gone" in capsys.readouterr().out
    assert os.listdir(tmp_path / "out.shards") == []


@pytest.fixture
def truncated(tmp_path) -> Path:
    """A data directory of a-0, which is whole, and a-1, of which half is missing."""
    utterances = [
        Utterance(f"a-{n}", str(tmp_path / f"{n}.wav"), None, None, None, "a", 8000)
        for n in range(2)
    ]
    for utterance in utterances:
        soundfile.write(utterance.audio, np.zeros(8000), 16000)
    write_data_dir(tmp_path / "data", utterances)
    os.truncate(utterances[1].audio, 9000)
    return tmp_path / "data"


def test_a_truncated_file_is_named_by_the_process_that_reads_it(
    packed, truncated, tmp_path, capsys, in_process
):
    arguments = arguments_of(packed, truncated, tmp_path / "out")
    assert decode_asr.main([*arguments, "--job", "1", "--key", "0a", "--threads", "1"]) == 2
    told = capsys.readouterr()
    assert told.out == "batch 0: a-0 a-1\n"
    assert told.err.startswith(f"error: utterance 'a-1': {tmp_path / '1.wav'}: ")


@pytest.mark.slow
def test_a_failing_process_is_told_with_its_log(packed, truncated, tmp_path, capsys):
    """The exit code passes, and nothing is written."""
    output_dir = tmp_path / "out"
    assert decode_asr.main(arguments_of(packed, truncated, output_dir)) == 2
    told = capsys.readouterr().err
    log = tmp_path / "out.shards" / "job.1.log"
    assert f"task 1 of 1 ended with code 2 while working on a-0, a-1; the end of {log}:" in told
    table = truncated / "wav.scp"
    assert f"  data: {table}:2: {table.read_text().splitlines()[1]}\n" in told
    assert f"error: utterance 'a-1': {tmp_path / '1.wav'}: " in told
    assert not output_dir.exists()


@pytest.mark.parametrize("count", ["0", "-2"])
def test_senseless_numbers_of_processes(packed, data_dir, tmp_path, capsys, count):
    assert decode_asr.main(arguments_of(packed, data_dir, tmp_path / "out", f"--nj={count}")) == 2
    assert f"--nj: {count} processes, expected 1 or more" in capsys.readouterr().err


def test_what_cannot_be_decoded(packed, data_dir, tmp_path, capsys):
    output_dir = tmp_path / "out"
    assert decode_asr.main(arguments_of(tmp_path / "m.esp", data_dir, output_dir)) == 2
    assert "m.esp: no such packed model" in capsys.readouterr().err
    damaged = bytearray(packed.read_bytes())
    damaged[damaged.index(b"sample_rate")] ^= 1
    (tmp_path / "damaged.esp").write_bytes(damaged)
    assert decode_asr.main(arguments_of(tmp_path / "damaged.esp", data_dir, output_dir)) == 2
    assert "damaged.esp: damaged: its bytes have SHA-256" in capsys.readouterr().err
    assert decode_asr.main(arguments_of(packed, tmp_path / "absent", output_dir)) == 2
    assert "absent/wav.scp: no such file" in capsys.readouterr().err
    config = tmp_path / "decode.yaml"
    config.write_text("method: ctc_greedi\nbatch_seconds: 0\n")
    assert decode_asr.main(arguments_of(packed, data_dir, output_dir, config=config)) == 2
    assert "unknown method 'ctc_greedi' (did you mean 'ctc_greedy'?)" in capsys.readouterr().err
    (data_dir / "utt2num_samples").rename(data_dir / "aside")
    assert decode_asr.main(arguments_of(packed, data_dir, output_dir)) == 2
    (data_dir / "aside").rename(data_dir / "utt2num_samples")
    assert "'B-1': no utt2num_samples beside it" in capsys.readouterr().err
    assert not list(tmp_path.glob("out*"))


@pytest.fixture(scope="module")
def joint(expdir) -> Path:
    """The model with its decoder section."""
    (expdir / "policy.yaml").write_text("weights: fp32\ndecoder: true\n")
    assert run_pack(expdir, str(expdir / "policy.yaml"), expdir / "joint.esp") == 0
    return expdir / "joint.esp"


@pytest.mark.parametrize(
    "text",
    [
        "method: ctc_beam\nbeam_size: 4\nnbest: 3\ntoken_beam: 5\npenalty: 0.5\n",
        "method: joint_beam\nbeam_size: 4\nnbest: 3\npenalty: -0.5\n",
        "method: joint_beam\nbeam_size: 4\nnbest: 3\nctc_weight: 1.0\n",
    ],
)
def test_beams_write_their_nbest_with_parts(
    text, joint, packed, data_dir, single, tmp_path, in_process
):
    """The n-best does not depend on the batches; what the parts say adds up to the score."""
    config = tmp_path / "decode.yaml"
    config.write_text(text)
    model = packed if "ctc_weight: 1.0" in text else joint  # needs no decoder then
    for name, seconds in (("together", "60"), ("alone", "0.01")):
        more = ["--set", f"batch_seconds={seconds}"]
        assert (
            decode_asr.main(arguments_of(model, data_dir, tmp_path / name, *more, config=config))
            == 0
        )
    rows = [json.loads(line) for line in lines_of(tmp_path / "together" / "nbest.jsonl")]
    alone = [json.loads(line) for line in lines_of(tmp_path / "alone" / "nbest.jsonl")]
    settings = json.loads((tmp_path / "alone" / "decode.json").read_text())["config"]
    weights = {"ctc": settings.get("ctc_weight", 1.0), "length_bonus": settings["penalty"]}
    weights["decoder"] = 1 - weights["ctc"]
    texts = [line.partition(" ")[2] for line in lines_of(tmp_path / "together" / "text")]
    assert any(texts)
    for text, row, other in zip(texts, rows, alone, strict=True):
        assert text == row["hyps"][0]["text"]
        scores = [hyp["score"] for hyp in row["hyps"]]
        assert scores == sorted(scores, reverse=True)
        assert [hyp["tokens"] for hyp in row["hyps"]] == [hyp["tokens"] for hyp in other["hyps"]]
        for hyp in row["hyps"]:
            total = sum(weights[name] * part for name, part in hyp["parts"].items())
            assert hyp["score"] == pytest.approx(total, abs=1e-3)
    assert max(len(row["hyps"]) for row in rows) == 3
    assert rows[1]["id"] == "a-1" and rows[1]["hyps"][0] == {  # one sample: no frame
        "text": "",
        "tokens": [],
        "score": 0.0,
        "parts": rows[1]["hyps"][0]["parts"],
    }


def test_a_model_without_decoder_cannot_be_decoded_jointly(packed, data_dir, tmp_path, capsys):
    (tmp_path / "joint.yaml").write_text("method: joint_beam\n")
    arguments = arguments_of(packed, data_dir, tmp_path / "out", config=tmp_path / "joint.yaml")
    assert decode_asr.main(arguments) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {packed}: method joint_beam needs an attention decoder")
    assert "`decoder: true`" in told and "ctc_weight 1.0" in told and len(told.splitlines()) == 1
    assert not list(tmp_path.glob("out*"))


def test_a_decoder_that_is_not_the_one_of_the_header(joint):
    assert load_decoder(joint, dim=16).output.weight.shape == (7, 16)
    with pytest.raises(
        InputError, match=r"joint.esp: tensor 'decoder.blocks.0.cross.* shape \[16\]"
    ):
        load_decoder(joint, dim=18)


@pytest.mark.parametrize("recipe", ["mini", "an4"])
def test_every_shipped_config_is_read(recipe):
    folder = ROOT / "egs" / recipe / "asr1" / "conf"
    decodings, packings = sorted(folder.glob("decode_*")), sorted(folder.glob("quantize_*"))
    assert decodings and packings
    for path in decodings:
        load_decode_config(path)
    for path in packings:
        config = load_config(path, QuantizeConfig)
        assert config.rules or config.weights == path.stem.partition("_")[2]


@pytest.mark.slow
def test_kill_9(packed, data_dir, tmp_path):
    """The program and its processes; what outlives the program leaves after its batch."""
    utterances = []
    for number in range(40):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, 0.1 * np.random.default_rng(number).standard_normal(64000), 16000)
        name = f"a-{number:02}"
        utterances.append(Utterance(name, str(path), None, None, None, "a", 64000))
    write_data_dir(tmp_path / "data", utterances)
    config = tmp_path / "single.yaml"
    config.write_text("batch_seconds: 0.01\n")
    arguments = arguments_of(
        packed, tmp_path / "data", tmp_path / "out", "--nj", "2", config=config
    )
    command = [sys.executable, "-m", "espnet_lite.bin.decode_asr", *arguments]
    program = subprocess.Popen(command, cwd=ROOT)
    shards = tmp_path / "out.shards"
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size for path in shards.glob("results.*.jsonl")):
        assert time.monotonic() < deadline and program.poll() is None
        time.sleep(0.002)
    program.send_signal(signal.SIGKILL)
    program.wait()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    told = json.loads((tmp_path / "out" / "decode.json").read_text())
    assert 0 < told["reused_batches"] < 40, done.stdout
    assert [line.split()[0] for line in lines_of(tmp_path / "out" / "text")] == [
        utterance.id for utterance in utterances
    ]
    reference = arguments_of(packed, tmp_path / "data", tmp_path / "plain")
    subprocess.run([*command[:3], *reference], cwd=ROOT, check=True)
    assert lines_of(tmp_path / "out" / "text") == lines_of(tmp_path / "plain" / "text")
