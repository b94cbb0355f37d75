"""Damaged files of every kind that is read: a valid result, or one line that names the file.

Each reader gets mutants of a whole file: bytes changed, cut out, doubled, moved, words of its kind put
in, the end torn off. Whatever else than InputError comes out of a reader, or takes over five seconds,
fails. FUZZ_EXAMPLES says how many mutants of each kind the slow test tries.
"""

import gzip
import json
import os
import random
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from espnet_lite.config import from_plain, read_yaml
from espnet_lite.data.ark import ArchiveWriter
from espnet_lite.data.audio import audio_info, read_audio
from espnet_lite.data.data_dir import read_data_dir, write_data_dir
from espnet_lite.data.importers.entry import ImportOptions
from espnet_lite.data.importers.job import import_source
from espnet_lite.data.utterance_table import Utterance
from espnet_lite.data.validate import validate_data_dir
from espnet_lite.decode.config import load_decode_config
from espnet_lite.errors import InputError
from espnet_lite.features.cmvn import CmvnStatistics, load_cmvn, save_cmvn
from espnet_lite.features.frame_grid import FrameGrid
from espnet_lite.jobs.cluster import load_cluster
from espnet_lite.lm.arpa import read_arpa, write_arpa
from espnet_lite.lm.packed import read_ngram, write_ngram
from espnet_lite.lm.text import read_text
from espnet_lite.models.asr import AsrConfig
from espnet_lite.models.pretrained import read_pretrained
from espnet_lite.runtime.format import read_header, read_packed
from espnet_lite.runtime.packed_model import PackedModel
from espnet_lite.score.results import check_row, read_json
from espnet_lite.score.transcripts import read_pairs
from espnet_lite.stamps import read_stamp
from espnet_lite.text.lexicon import read_lexicon
from espnet_lite.text.tokenizer import Tokenizer, train_tokenizer
from espnet_lite.train.sharded_checkpoint import merged_weights
from espnet_lite.units.store import UnitStore, centroid_bytes, read_centroids, write_store
from espnet_lite.units.textgrid import read_textgrid

ROOT = Path(__file__).resolve().parents[2]
LONGEST_SECONDS = 5.0
IN_CI = 15  # mutants of each kind
# Words that mean something to one reader or another.
WORDS = (
    *(b"-1", b"0", b"nan", b"inf", b"1e999", b"9" * 30, b"\0", b"\xff\xfe", b"\xef\xbb\xbf"),
    *(b"\r\n", b"\n\n", b"\t", b" ", b'"', b"{", b"}", b"[", b"null", b"true", b"!!python/name:os"),
    *(b"&a [*a]", b"|", b"cat /dev/zero |", b"/dev/zero", b"..", b":0", b":-5", b"\xe2\x80\xa8"),
    *(b"\x7f\xff\xff\xff", b"\xff" * 8, b"data", b"RIFF", b"fLaC", b"AUDIO\x09", b"x" * 5000),
)


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        make: writes whole files into an empty folder.
        file: the one of them that is damaged.
        read: reads them all.
    """

    make: Callable[[Path], None]
    file: str
    read: Callable[[Path], object]


def write_audio(folder: Path) -> None:
    """Write noise as a.wav, a.flac, a.ogg and as two recordings of an archive."""
    noise = np.random.default_rng(0).normal(0, 0.1, 800).astype(np.float32)
    for suffix in ("wav", "flac", "ogg"):
        soundfile.write(folder / f"a.{suffix}", noise, 16000)
    archive = ArchiveWriter(folder)
    places = [archive.add(f"u{n}", (folder / "a.flac").read_bytes()) for n in (1, 2)]
    archive.close()
    (folder / "places").write_text(json.dumps(places))


def write_data(folder: Path) -> None:
    """Write a data directory with every table, its audio a pair of clips."""
    soundfile.write(folder / "a.wav", np.zeros(16000), 16000)
    write_data_dir(
        folder / "data",
        [
            Utterance(
                f"s{n}-{m}", str(folder / "a.wav"), m / 4, m / 4 + 0.2, "a b é", f"s{n}", 3200
            )
            for n in (1, 2)
            for m in (0, 1, 2)
        ],
    )


def read_data(folder: Path) -> None:
    for utterance in read_data_dir(folder / "data"):
        assert utterance.id
    validate_data_dir(folder / "data")


def write_units(folder: Path) -> None:
    grid = FrameGrid(16000, 400, 160)
    frames = [int(grid.num_frames(torch.tensor(n))) for n in (4000, 2000)]
    labels = np.arange(sum(frames), dtype=np.int16) % 7
    part = ([b"a-1", b"b-1"], np.array([4000, 2000]), np.array(frames), labels)
    centroids = torch.zeros(7, 3)
    write_store(
        folder / "units", [part], centroids=centroids, grid=grid, description={"quality": {}}
    )
    (folder / "centroids.safetensors").write_bytes(centroid_bytes(centroids, {"x": "y"}))


def read_units(folder: Path) -> None:
    store = UnitStore(folder / "units")
    for name in store.utterances():
        store.units_of(name)
    store.centroids()


def write_tokenizer(kind: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        lines = ["a b c", "ab bc ca abc", "cab a é"] * 4
        train_tokenizer(kind, lines, vocab_size=12, nlsyms=["<n>"]).save(folder / "tokens")

    return write


def read_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer.load(folder / "tokens")
    tokenizer.decode(tokenizer.encode("ab c"))


def write_safetensors(folder: Path) -> None:
    metadata = {"config": json.dumps({"front_end": {}, "encoder": {}})}
    path = folder / "encoder.safetensors"
    path.write_bytes(safetensors.torch.save({"encoder.w": torch.ones(4, 3)}, metadata=metadata))
    statistics = CmvnStatistics(5, torch.ones(4).double(), torch.ones(4).double())
    save_cmvn(folder / "cmvn.safetensors", statistics, {"name": "x"})


def write_shards(folder: Path) -> None:
    """Write the checkpoint of two processes that had two rows each."""
    for number, first in ((1, 0), (2, 2)):
        offsets = {"w": {"saved_offsets": [first, 0]}, "w|exp_avg": {"saved_offsets": [first, 0]}}
        rows = torch.arange(6.0).view(2, 3) + 3 * first
        content = safetensors.torch.save(
            {"w": rows, "w|exp_avg": rows + 1}, metadata={"DCP_SHARDING_INFO": json.dumps(offsets)}
        )
        (folder / f"shard-0000{number}-model-00001-of-00001.safetensors").write_bytes(content)
    (folder / "state.json").write_text(json.dumps({"shards": 2, "update": 1}))


def read_shards(folder: Path) -> None:
    assert merged_weights(folder)["w"].dim() == 2


def copied(path: Path, name: str) -> Callable[[Path], None]:
    def copy(folder: Path) -> None:
        (folder / name).write_bytes(path.read_bytes())

    return copy


def text(name: str, content: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_text(content, encoding="utf-8")

    return write


def imported(name: str, content: str) -> Kind:
    """Return a kind that is imported; its audio is there."""

    def make(folder: Path) -> None:
        (folder / "in").mkdir()
        soundfile.write(folder / "in" / "a.wav", np.zeros(1600), 16000)
        (folder / "in" / name).write_text(content, encoding="utf-8")

    def read(folder: Path) -> None:
        options = ImportOptions()
        import_source(folder / "in" / name, folder / "out", options=options, shares={})

    return Kind(make, f"in/{name}", read)


def read_ark(folder: Path) -> None:
    for _, offset in json.loads((folder / "places").read_text()):
        read_audio(f"{folder}/audio.1.ark:{offset}")


def read_esp(folder: Path) -> None:
    read_header(folder / "m.esp")
    read_packed(folder / "m.esp")
    PackedModel.load(folder / "m.esp")


def read_audio_file(name: str) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        audio_info(str(folder / name))
        read_audio(str(folder / name), sample_rate=8000, channel="mix")

    return read


def write_lm(name: str) -> Callable[[Path], None]:
    """Return what writes the trigrams of an ARPA file, in the format that the name asks for."""

    def write(folder: Path) -> None:
        (folder / "whole.arpa").write_text(ARPA, encoding="utf-8")
        model = read_arpa(folder / "whole.arpa")
        if name.endswith(".esp"):
            write_ngram(folder / name, model, unit="word", record={"text": "x"})
        else:
            write_arpa(folder / name, model)

    return write


def read_lm(name: str) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        model = read_ngram(folder / name)
        words = np.arange(len(model.words))
        _, states = model.score(np.array(model.start), words)
        model.score(states, words)

    return read


ARPA = """\\data\\
ngram 1=5
ngram 2=4
ngram 3=2

\\1-grams:
-1.2\t<unk>
-99\t<s>\t-0.4
-0.7\t</s>
-0.6\ta\t-0.3
-0.8\té\t-0.2

\\2-grams:
-0.3\t<s> a\t-0.1
-0.5\ta é\t-0.2
-0.4\té a
-0.6\té </s>

\\3-grams:
-0.2\t<s> a é
-0.1\ta é </s>

\\end\\
"""
TEXTGRID = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 1.5
tiers? <exists>
size = 1
item []:
    item [1]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = 1.5
        intervals: size = 2
        intervals [1]:
            xmin = 0
            xmax = 0.5
            text = "AH0"
        intervals [2]:
            xmin = 0.5
            xmax = 1.5
            text = "sil"
"""
ROW = ROOT / "egs/mini/asr1/results/asr_char_from_it1_bf16_greedy.json"
TRAIN_YAML = ROOT / "egs/mini/asr1/conf/train_asr.yaml"
DECODE_YAML = ROOT / "egs/mini/asr1/conf/decode_greedy.yaml"
GOLDEN = ROOT / "tests/golden/packed_v1_bf16.esp"
NEMO = '{"audio_filepath": "a.wav", "duration": 0.1, "text": "a b"}\n'
STAMP = ("options", "given_options", "configs", "inputs", "outputs")
KINDS = {
    **{s: Kind(write_audio, f"a.{s}", read_audio_file(f"a.{s}")) for s in ("wav", "flac", "ogg")},
    "ark": Kind(write_audio, "audio.1.ark", read_ark),
    **{
        table: Kind(write_data, f"data/{table}", read_data)
        for table in ("wav.scp", "text", "segments", "utt2spk", "spk2utt", "utt2num_samples")
    },
    "train.yaml": Kind(
        copied(TRAIN_YAML, "c.yaml"),
        "c.yaml",
        lambda folder: from_plain(
            AsrConfig, read_yaml(folder / "c.yaml").get("model", {}), where=folder / "c.yaml"
        ),
    ),
    "decode.yaml": Kind(
        copied(DECODE_YAML, "c.yaml"),
        "c.yaml",
        lambda folder: load_decode_config(folder / "c.yaml"),
    ),
    "cluster.yaml": Kind(
        copied(ROOT / "utils/cluster/slurm.yaml", "c.yaml"),
        "c.yaml",
        lambda folder: load_cluster("slurm", folder / "c.yaml"),
    ),
    "encoder.safetensors": Kind(
        write_safetensors,
        "encoder.safetensors",
        lambda folder: read_pretrained(folder / "encoder.safetensors"),
    ),
    "cmvn.safetensors": Kind(
        write_safetensors, "cmvn.safetensors", lambda folder: load_cmvn(folder / "cmvn.safetensors")
    ),
    "centroids.safetensors": Kind(
        write_units,
        "centroids.safetensors",
        lambda folder: read_centroids(folder / "centroids.safetensors"),
    ),
    "model.esp": Kind(copied(GOLDEN, "m.esp"), "m.esp", read_esp),
    "units.json": Kind(write_units, "units/units.json", read_units),
    "units.index": Kind(write_units, "units/index", read_units),
    "units.int16": Kind(write_units, "units/units.int16", read_units),
    "row.json": Kind(
        copied(ROW, "r.json"),
        "r.json",
        lambda folder: check_row(read_json(folder / "r.json"), where=folder / "r.json"),
    ),
    "stamp.json": Kind(
        text("s.json", json.dumps({key: {"a": "b"} for key in STAMP})),
        "s.json",
        lambda folder: read_stamp(folder / "s.json"),
    ),
    "tokenizer.json": Kind(write_tokenizer("char"), "tokens/tokenizer.json", read_tokenizer),
    "tokens.txt": Kind(write_tokenizer("char"), "tokens/tokens.txt", read_tokenizer),
    "bpe.model": Kind(write_tokenizer("bpe"), "tokens/bpe.model", read_tokenizer),
    "textgrid": Kind(
        text("a.TextGrid", TEXTGRID),
        "a.TextGrid",
        lambda folder: read_textgrid(folder / "a.TextGrid"),
    ),
    **{
        name: Kind(write_lm(name), name, read_lm(name))
        for name in ("lm.arpa", "lm.arpa.gz", "lm.esp")
    },
    "lm_text.gz": Kind(
        lambda folder: (
            (folder / "t.gz").write_bytes(gzip.compress(b"u1 A B\nu2 C \n" * 9)) and None
        ),
        "t.gz",
        lambda folder: list(read_text([folder / "t.gz"])),
    ),
    "shard": Kind(write_shards, "shard-00001-model-00001-of-00001.safetensors", read_shards),
    "lexicon": Kind(
        text("lexicon", ";;; words\nA  AH0\nA(1)  EY1\nBEE  B IY1\n"),
        "lexicon",
        lambda folder: read_lexicon(folder / "lexicon"),
    ),
    "hypotheses": Kind(
        lambda folder: [(folder / n).write_text("u1 a b\nu2 c\n") for n in ("ref", "hyp")],
        "hyp",
        lambda folder: read_pairs(folder / "ref", folder / "hyp"),
    ),
    "import.tsv": imported("t.tsv", "path\tsentence\na.wav\ta b\n"),
    "import.csv": imported("t.csv", 'path,sentence\na.wav,"a, ""b"""\n'),
    "import.nemo": imported("train_manifest.json", NEMO),
}


@st.composite
def mutations(draw):
    """Return how a file is damaged: a list of steps that `damaged` takes."""
    place = st.floats(0, 1, allow_nan=False, exclude_max=True)
    step = st.one_of(
        st.tuples(st.just("change"), place, st.binary(min_size=1, max_size=4)),
        st.tuples(st.just("insert"), place, st.sampled_from(WORDS) | st.binary(max_size=8)),
        st.tuples(st.just("replace"), place, st.sampled_from(WORDS)),
        st.tuples(st.just("cut"), place, st.integers(1, 64)),
        st.tuples(st.just("double"), place, st.integers(1, 256)),
        st.tuples(st.just("end"), place, st.none()),
        st.tuples(st.just("flip"), place, st.integers(0, 7)),
    )
    return draw(st.lists(step, min_size=1, max_size=4))


def damaged(whole: bytes, steps: list) -> bytes:
    """Return the file after each step; places are shares of its length, half of them of its first
    256 bytes, where the headers are."""
    content = bytearray(whole)
    for kind, place, what in steps:
        length = len(content) if place < 0.5 else min(256, len(content))
        at = int(place * 2 % 1 * length)
        if kind == "change":
            content[at : at + len(what)] = what
        elif kind == "insert":
            content[at:at] = what
        elif kind == "replace":  # a word between blanks or separators
            end = next((i for i in range(at, len(content)) if content[i] in b" \n,:"), len(content))
            content[at:end] = what
        elif kind == "cut":
            del content[at : at + what]
        elif kind == "double":
            content[at:at] = content[at : at + what]
        elif kind == "end":
            del content[at:]
        elif content:
            content[min(at, len(content) - 1)] ^= 1 << what
    return bytes(content)


def try_reader(kind: Kind, folder: Path, whole: bytes, content: bytes) -> bool:
    """Read one mutant; return whether it was taken.

    Raises:
        whatever else than InputError the reader raised; AssertionError where it took too long.
    """
    path = folder / kind.file
    path.write_bytes(content)
    started = time.process_time()  # a busy machine is not the reader's fault
    try:
        kind.read(folder)
        taken = True
    except InputError as error:
        assert "\n" not in str(error) and len(str(error)) > 10
        # The table that is damaged may be right by itself, and another one is named.
        assert path.name in str(error) or str(path.parent) in str(error), str(error)
        taken = False
    finally:
        path.write_bytes(whole)
    assert time.process_time() - started < LONGEST_SECONDS
    return taken


@pytest.fixture(scope="module", params=list(KINDS))
def whole_file(request, tmp_path_factory):
    """Return (kind, folder, content) of each kind of file, once it was read whole."""
    folder = tmp_path_factory.mktemp("fuzz")
    kind = KINDS[request.param]
    kind.make(folder)
    kind.read(folder)
    return kind, folder, (folder / kind.file).read_bytes()


def check_mutants(whole_file, count: int) -> None:
    kind, folder, whole = whole_file

    @settings(
        max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(mutations())
    def check(steps):
        try_reader(kind, folder, whole, damaged(whole, steps))

    check()


def test_some_mutants(whole_file):
    check_mutants(whole_file, IN_CI)


@pytest.mark.slow
def test_many_mutants(whole_file):
    """Over all kinds more than ten thousand."""
    check_mutants(whole_file, int(os.environ.get("FUZZ_EXAMPLES", "330")))


def test_no_file_at_all(whole_file):
    kind, folder, whole = whole_file
    for content in (
        b"",
        b"\n",
        b"\0" * 4096,
        random.Random(0).randbytes(4096),
        struct.pack("<Q", 2**63),
    ):
        try_reader(kind, folder, whole, content)
