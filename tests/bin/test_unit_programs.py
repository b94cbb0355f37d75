"""make_units and score_units as a user calls them: files in, files out, one line for a fault."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import soundfile
import torch

from espnet_lite.bin import make_units, score_units
from espnet_lite.config import dump_yaml, from_plain, to_plain
from espnet_lite.data.data_dir import Utterance, write_data_dir
from espnet_lite.features.frame_grid import FrameGrid
from espnet_lite.features.mfcc import Mfcc
from espnet_lite.models.hubert import HubertConfig, HubertModel
from espnet_lite.tasks import units as tasks_units
from espnet_lite.units.features import (
    LayerUnitFeatures,
    MfccUnitFeatures,
    WithoutUtteranceMean,
)
from espnet_lite.units.store import UnitStore

ROOT = Path(__file__).resolve().parents[2]
FILES = ("units.int16", "index", "units.json", "centroids.safetensors")
# Seconds; "b-short" has no frame, "c-silent" digital silence.
TRAIN = {"a-1": 1.1, "a-2": 0.7, "B-3": 0.9, "b-short": 0.02, "c-silent": 0.5}
DEV = {"d-1": 0.6}


def write_set(folder: Path, seconds: dict[str, float]) -> None:
    utterances = []
    folder.parent.mkdir(parents=True, exist_ok=True)
    for number, (name, duration) in enumerate(seconds.items()):
        samples = round(duration * 16000)
        audio = 0.1 * np.random.default_rng(number).standard_normal(samples)
        audio *= np.sin(np.arange(samples) / 3000 * (number + 1))
        if "silent" in name:
            audio[:] = 0
        path = folder.parent / f"{folder.name}.{name}.wav"
        soundfile.write(path, audio, 16000, subtype="PCM_16")
        utterances.append(Utterance(name, str(path), None, None, None, name[0], samples))
    write_data_dir(folder, utterances)


@pytest.fixture(scope="module")
def dump(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dump")
    write_set(folder / "train", TRAIN)
    write_set(folder / "dev", DEV)
    return folder


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    """Several batches, so several shards."""
    monkeypatch.setattr(tasks_units, "BATCH_SECONDS", 1.2)


def arguments_of(dump: Path, output: Path, *more: str) -> list[str]:
    arguments = ["--data_dirs", str(dump / "train"), "--label_dirs", str(dump / "dev")]
    arguments += ["--clusters", "12", "--device", "cpu", "--output", str(output)]
    return [*arguments, *([] if "--model" in more else ["--features", "mfcc"]), *more]


@pytest.fixture(scope="module")
def made(dump, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("exp") / "units"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks_units, "BATCH_SECONDS", 1.2)
        assert make_units.main(arguments_of(dump, output)) == 0
    return output


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def test_every_frame_has_its_nearest_centroid(made, dump):
    """Against MFCCs of each utterance by itself, and distances by definition."""
    store = UnitStore(made)
    assert store.utterances() == ["B-3", "a-1", "a-2", "b-short", "c-silent", "d-1"]
    assert store.grid == FrameGrid(16000, 400, 160)
    centroids = store.centroids().double()
    features = MfccUnitFeatures()
    total = 0.0
    for name, seconds in {**TRAIN, **DEV}.items():
        folder = "dev" if name in DEV else "train"
        audio = soundfile.read(dump / f"{folder}.{name}.wav", dtype="float32")[0]
        assert store.num_samples(name) == len(audio) == round(seconds * 16000)
        frames, lengths = features(torch.from_numpy(audio)[None], torch.tensor([len(audio)]))
        assert frames.shape[1:] == (lengths[0], 39)
        distances = (frames[0].double()[:, None] - centroids).square().sum(dim=2)
        units = torch.from_numpy(store.units_of(name).astype(np.int64))
        assert len(units) == lengths[0]
        chosen = distances.gather(1, units[:, None])[:, 0]
        torch.testing.assert_close(chosen, distances.amin(dim=1) if len(units) else chosen)
        total += float(chosen.sum())
    assert len(store.units_of("b-short")) == 0
    assert len(set(store.units_of("c-silent").tolist())) == 1
    quality = store.description["quality"]
    assert quality["inertia_per_frame"] == pytest.approx(total / quality["frames"], rel=1e-4)
    assert quality["frames"] == sum(len(store.units_of(name)) for name in store.utterances())


def test_what_the_description_says(made):
    store = UnitStore(made)
    told = store.description
    assert told["features"] == {"name": "mfcc", "ceps": 13, "deltas": 2, "use_energy": False}
    assert told["fit"]["frames"] == sum(
        FrameGrid(16000, 400, 160).num_frames(round(16000 * seconds)) for seconds in TRAIN.values()
    )  # not those of dev
    quality = told["quality"]
    rows = [store.units_of(name).tolist() for name in store.utterances()]
    segments = sum(1 for row in rows for i, unit in enumerate(row) if i == 0 or row[i - 1] != unit)
    assert quality["mean_segment_ms"] == pytest.approx(quality["frames"] * 10 / segments)
    assert quality["used_clusters"] == len({unit for row in rows for unit in row})
    assert quality["utterances"] == 6
    assert not made.with_name("units.shards").exists()


def test_mfccs_are_hubert_s():
    features = MfccUnitFeatures()
    waveform = torch.randn(1, 8000, generator=torch.Generator().manual_seed(0)) * 0.1
    frames, lengths = features(waveform, torch.tensor([8000]))
    plain = Mfcc(16000, use_energy=False)(waveform, torch.tensor([8000]))[0]
    assert frames.shape == (1, 48, 39) and lengths.tolist() == [48]
    assert torch.equal(frames[..., :13], plain)
    assert features.grid == FrameGrid(16000, 400, 160) and features.dim == 39


def test_again_and_with_two_processes(made, dump, tmp_path, capsys):
    assert make_units.main(arguments_of(dump, tmp_path / "units", "--nj", "1")) == 0
    assert content(tmp_path / "units") == content(made)
    out = capsys.readouterr().out
    assert "12 centroids of 312 of 312 frames: inertia " in out
    assert "370 units of 10 ms in 6 utterances; inertia " in out and "mean segment" in out


def in_process(launcher, array):
    for task in array.tasks:
        assert make_units.main(array.command_of(task)[3:]) == 0


def test_processes_share_the_shards(made, dump, tmp_path, monkeypatch):
    monkeypatch.setattr("espnet_lite.jobs.launcher.Launcher.run", in_process)
    before = torch.get_num_threads()
    assert make_units.main(arguments_of(dump, tmp_path / "units", "--nj", "3")) == 0
    torch.set_num_threads(before)
    assert content(tmp_path / "units") == content(made)


def test_resumed_after_a_kill(made, dump, tmp_path, monkeypatch, capsys):
    """Centroids and finished shards stay; what is missing is made, and the bytes are the same."""

    class Killed(BaseException):
        pass

    written = []
    assign = tasks_units.assign

    def dies(frames, centroids):
        if len(written) == 2:
            raise Killed
        written.append(len(frames))
        return assign(frames, centroids)

    monkeypatch.setattr(tasks_units, "assign", dies)
    arguments = arguments_of(dump, tmp_path / "units")
    with pytest.raises(Killed):
        make_units.main(arguments)
    shards = tmp_path / "units.shards"
    assert len(list(shards.glob("shard.*.safetensors"))) == 2
    assert not (tmp_path / "units").exists()
    labelled = []
    monkeypatch.setattr(
        tasks_units, "assign", lambda x, c: (labelled.append(len(x)), assign(x, c))[1]
    )
    monkeypatch.setattr(tasks_units, "fit_kmeans", None)
    capsys.readouterr()
    assert make_units.main(arguments) == 0
    assert "centroids of a run that was cut off" in capsys.readouterr().out
    assert sum(labelled) + sum(written) == 370
    assert content(tmp_path / "units") == content(made)
    assert not shards.exists()


@pytest.mark.parametrize("more", [("--seed", "1"), ("--clusters", "11")])
def test_another_run_takes_nothing_over(made, dump, tmp_path, monkeypatch, more):
    arguments = arguments_of(dump, tmp_path / "units")
    with monkeypatch.context() as patch:
        patch.setattr(tasks_units, "_merge", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            make_units.main(arguments)
    assert make_units.main([*arguments, *more]) == 0
    assert UnitStore(tmp_path / "units").identity != UnitStore(made).identity


def test_a_small_sample(dump, tmp_path, capsys):
    """40 frames of 39 numbers are 6,240 bytes."""
    more = ("--sample_megabytes", "0.00624")
    assert make_units.main(arguments_of(dump, tmp_path / "units", *more)) == 0
    assert "12 centroids of 40 of 312 frames" in capsys.readouterr().out
    more = ("--sample_hours", "0.0004")  # 1.44 s: the longest utterance has 1.1
    assert make_units.main(arguments_of(dump, tmp_path / "hours", *more)) == 0
    assert UnitStore(tmp_path / "hours").description["fit"]["frames"] < 312


CONFIG = {
    "front_end": {"name": "log_mel", "num_mels": 20, "channels": 3, "cmvn": "utterance"},
    "encoder": {"name": "transformer", "dim": 16, "layers": 2, "heads": 2, "feed_forward": 16},
}


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> Path:
    """An experiment folder as pretrain_hubert leaves it, with random weights."""
    folder = tmp_path_factory.mktemp("exp") / "hubert_tiny"
    folder.mkdir()
    config = from_plain(HubertConfig, CONFIG)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = HubertModel(config, clusters=12)
    safetensors.torch.save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "config.yaml").write_text(dump_yaml({"model": to_plain(config)}))
    (folder / "model.json").write_text("{}")
    return folder


@pytest.mark.parametrize("mean", [[], ["--subtract_mean"], ["--subtract_mean", "--nj", "2"]])
def test_units_of_a_layer(pretrained, dump, tmp_path, monkeypatch, mean):
    monkeypatch.setattr("espnet_lite.jobs.launcher.Launcher.run", in_process)
    more = ("--model", str(pretrained), "--layer", "1", "--clusters", "5", *mean)
    assert make_units.main(arguments_of(dump, tmp_path / "units", *more)) == 0
    store = UnitStore(tmp_path / "units")
    assert store.grid == FrameGrid(16000, 1360, 640) and store.clusters == 5
    told = store.description["features"]
    assert (told["name"], told["layer"], told["model"]) == ("layer", 1, "hubert_tiny")
    model = tasks_units.load_pretrained(pretrained)
    audio = soundfile.read(dump / "train.a-2.wav", dtype="float32")[0]
    with torch.no_grad():
        output = model.encode(
            torch.from_numpy(audio)[None], torch.tensor([len(audio)]), return_layers=True
        )
    frames = output.layers[1][0]
    if mean:
        frames = frames - frames.mean(dim=0)
    assert told.get("subtract_mean", False) == bool(mean)
    distances = torch.cdist(frames, store.centroids())
    chosen = distances.gather(1, torch.from_numpy(store.units_of("a-2").astype(np.int64))[:, None])
    torch.testing.assert_close(chosen[:, 0], distances.amin(dim=1), atol=1e-3, rtol=1e-3)
    assert len(store.units_of("b-short")) == 0


def test_a_layer_that_is_not_there(pretrained, dump, tmp_path, capsys):
    more = ("--model", str(pretrained), "--layer", "3")
    assert make_units.main(arguments_of(dump, tmp_path / "units", *more)) == 2
    assert capsys.readouterr().err == (
        "error: --layer: layer 3 of a model with 2, expected 0 (the encoder's input) to 2\n"
    )


def test_the_mean_is_of_the_valid_frames_of_each_utterance():
    def features(waveform, lengths):
        return waveform[..., None].expand(-1, -1, 2), lengths

    features.grid, features.dim, features.description = FrameGrid(16000, 1, 1), 2, {"name": "x"}
    centered = WithoutUtteranceMean(features)
    frames, lengths = centered(
        torch.tensor([[1.0, 2.0, 6.0], [4.0, 8.0, 1e6], [7.0, 7.0, 7.0]]), torch.tensor([3, 2, 0])
    )
    assert frames[0, :, 1].tolist() == [-2.0, -1.0, 3.0]
    assert frames[1, :2, 0].tolist() == [-2.0, 2.0]
    assert lengths.tolist() == [3, 2, 0] and torch.isfinite(frames).all()
    assert centered.description == {"name": "x", "subtract_mean": True}


def test_layer_features_refuse_nothing_short():
    """A convolution would: what is shorter than its kernel has no frame, but comes through."""
    convolution = torch.nn.Conv1d(1, 4, kernel_size=400, stride=320)
    grid = FrameGrid(16000, 400, 320)

    class Output:
        def __init__(self, layer, lengths):
            self.layers, self.lengths = [layer], lengths

    def encode(waveform, lengths, *, return_layers):
        assert return_layers
        return Output(convolution(waveform[:, None]).transpose(1, 2), grid.num_frames(lengths))

    features = LayerUnitFeatures(encode, layer=0, grid=grid, description={"model": "x"})
    assert features.dim == 4 and features.description["layer"] == 0
    frames, lengths = features(torch.zeros(2, 100), torch.tensor([100, 7]))
    assert lengths.tolist() == [0, 0] and frames.size(2) == 4


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--clusters", "400"), "312 frames for 400 clusters"),
        (("--clusters", "0"), "--clusters: 0 clusters, expected 1 to 32767"),
        (("--clusters", "40000"), "--clusters: 40000 clusters, expected 1 to 32767"),
        (
            ("--sample_megabytes", "0.001"),
            "--sample_megabytes: 0.001 MB hold 6 frames of 39 numbers",
        ),
        (("--sample_hours", "nan"), "--sample_hours: nan, expected a number above 0"),
        (("--layer", "2"), "--layer: a layer of no model; give --model EXPDIR"),
        (("--model", "exp"), "--model: no layer of the model chosen"),
        (("--nj", "0"), "--nj: 0 processes"),
        (("--device", "tpu"), "--device: 'tpu' is not auto, cpu"),
        (("--sample_rate", "8000"), "sample rate 16000 Hz, expected 8000 Hz"),
    ],
)
def test_faults(dump, tmp_path, capsys, more, message):
    assert make_units.main(arguments_of(dump, tmp_path / "units", *more)) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1
    assert message in err
    assert not (tmp_path / "units").exists()


def test_an_utterance_in_two_folders(dump, tmp_path, capsys):
    arguments = arguments_of(dump, tmp_path / "units")
    arguments[3] = str(dump / "train")
    assert make_units.main(arguments) == 2
    assert "utterance 'B-3' stands in two of the folders" in capsys.readouterr().err


def test_neither_or_both_features(dump, tmp_path, capsys):
    arguments = arguments_of(dump, tmp_path / "units")
    both = [*arguments, "--model", "exp", "--layer", "1"]
    neither = [word for word in arguments if word not in ("--features", "mfcc")]
    for wrong in (both, neither):
        assert make_units.main(wrong) == 2
        assert "either --features mfcc or --model EXPDIR" in capsys.readouterr().err


@pytest.mark.slow
def test_kill_9(dump, made, tmp_path):
    """The program and its processes, killed in the middle, then run again."""
    write_set(tmp_path / "many", {f"a-{i:03}": 30.0 for i in range(40)})
    arguments = ["--data_dirs", str(tmp_path / "many"), "--features", "mfcc", "--clusters", "20"]
    arguments += ["--device", "cpu", "--nj", "2", "--sample_hours", "0.05"]
    command = [sys.executable, "-m", "espnet_lite.bin.make_units", *arguments, "--output"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    program = subprocess.Popen([*command, str(tmp_path / "units")], cwd=ROOT, env=environment)
    shards = tmp_path / "units.shards"
    deadline = time.monotonic() + 120
    while not list(shards.glob("shard.*")):
        assert time.monotonic() < deadline and program.poll() is None
        time.sleep(0.002)
    program.send_signal(signal.SIGKILL)
    program.wait()
    for output in ("units", "plain"):
        subprocess.run([*command, str(tmp_path / output)], cwd=ROOT, env=environment, check=True)
    assert content(tmp_path / "units") == content(tmp_path / "plain")


TEXTGRID = """\
"ooTextFile"
"TextGrid"
0 {end}
<exists> 1
"IntervalTier" "phones" 0 {end} 3
0 0.2 "AH0"
0.2 0.4 "sp"
0.4 {end} "T"
"""


@pytest.fixture
def aligned(tmp_path) -> Path:
    for name in ("a-1", "d-1", "e-9"):
        path = tmp_path / "alignments" / name[0] / f"{name}.TextGrid"
        path.parent.mkdir(parents=True)
        path.write_text(TEXTGRID.format(end={**TRAIN, **DEV}.get(name, 1)))
    return tmp_path / "alignments"


def test_score(made, aligned, tmp_path, capsys):
    arguments = ["--units", str(made), "--alignments", str(aligned)]
    assert score_units.main([*arguments, "--output", str(tmp_path / "score.json")]) == 0
    told = json.loads((tmp_path / "score.json").read_text())
    assert told["phones"] == ["sil", "AH", "T"] and told["utterances"] == 2
    frames = {name: FrameGrid(16000, 400, 160).num_frames(round(16000 * s)) for name, s in
              (("a-1", 1.1), ("d-1", 0.6))}  # fmt: skip
    assert told["with_silence"]["frames"] == sum(frames.values())
    # Middles 12.5 ms + 10 ms · j: in [0.2, 0.4) lie 20 of each.
    assert told["speech"]["frames"] == sum(frames.values()) - 40
    assert told["units_id"] == UnitStore(made).identity
    out = capsys.readouterr().out
    assert f"| all frames | {sum(frames.values())} | 3 | " in out
    assert f"| {told['with_silence']['pnmi']:.3f} |" in out
    assert "2 of 6 labelled utterances scored, 1 of 3 alignments not used" in out
    assert "silence (empty, sil, sp, spn, <eps>) is one phone" in out


def test_score_a_list(made, aligned, tmp_path, capsys):
    arguments = ["--units", str(made), "--alignments", str(aligned), "--utterances"]
    (tmp_path / "list").write_text("d-1 and what else stands there\n")
    assert score_units.main([*arguments, str(tmp_path / "list")]) == 0
    assert "1 of 6 labelled utterances scored" in capsys.readouterr().out
    for text, message in [
        ("d-1\ne-9\n", f"list:2: no units of 'e-9' in {made}"),
        ("a-2\n", "list:1: no a-2.TextGrid; name its folder too"),
        ("", "list: no utterance in it"),
    ]:
        (tmp_path / "list").write_text(text)
        assert score_units.main([*arguments, str(tmp_path / "list")]) == 2
        assert message in capsys.readouterr().err


def test_score_without_a_match(made, aligned, tmp_path, capsys):
    for path in aligned.glob("*/*.TextGrid"):
        path.rename(path.with_name(f"x{path.name}"))
    arguments = ["--units", str(made), "--alignments", str(aligned)]
    assert score_units.main(arguments) == 2
    assert "none of 6 utterances has an alignment, expected B-3.TextGrid" in capsys.readouterr().err
    assert score_units.main([*arguments, "--tier", "words"]) == 2
