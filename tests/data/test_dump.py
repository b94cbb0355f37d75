"""The dump stage: what stays, what is converted and to what samples, what is refused."""

import math

import kaldiio
import numpy as np
import pytest
import soundfile

import espnet_lite.data.recording as recording_module
from espnet_lite.data.audio import audio_info, read_audio, resample, to_int16
from espnet_lite.data.data_dir import Utterance, read_data_dir, write_data_dir
from espnet_lite.data.dump import dump_data_dir
from espnet_lite.data.validate import validate_data_dir
from espnet_lite.errors import InputError


def noise(num_samples, seed=0):
    return np.random.default_rng(seed).integers(-9000, 9000, num_samples).astype(np.int16)


def utterance(key, audio, start=None, end=None, text="words") -> Utterance:
    return Utterance(key, str(audio), start, end, text, key.split("-")[0], None)


def dump(tmp_path, rows, **options):
    write_data_dir(tmp_path / "data", rows)
    report = dump_data_dir(tmp_path / "data", tmp_path / "dump", **options)
    read = read_data_dir(tmp_path / "dump", need_text=options.get("need_text", True))
    assert validate_data_dir(tmp_path / "dump", need_text=options.get("need_text", True))
    for row in read:  # the counts are those of the files
        if ".ark" not in row.audio:
            info = soundfile.info(row.audio)
            assert (info.frames, info.channels) == (row.num_samples, 1)
    return report, read


def test_lossless_audio_of_the_right_rate_stays_where_it_is(tmp_path, make_corpus, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = make_corpus((1600, 3200, 2400))
    for name in ("x.flac", "x.sph"):
        kind = "NIST" if name == "x.sph" else None
        soundfile.write(tmp_path / name, noise(4000), 16000, format=kind, subtype="PCM_16")
    rows = [*read_data_dir(folder), utterance("x-1", "x.flac"), utterance("x-2", "x.sph")]
    report, read = dump(tmp_path, rows)
    assert [row.num_samples for row in read] == [1600, 3200, 2400, 4000, 4000]
    assert read[3].audio == str(tmp_path / "x.flac")  # absolute
    assert report.written == 0 and not (tmp_path / "dump/audio").exists()
    assert (report.utterances, report.speakers) == (5, 3)
    assert report.seconds == pytest.approx(15200 / 16000)
    assert (tmp_path / "dump/utt2dur").read_text().startswith("spk000-utt000 0.100000\n")


def test_other_rates_are_resampled(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(22050), 22050)
    report, [row] = dump(tmp_path, [utterance("a-1", tmp_path / "a.wav")])
    assert row.audio == str(tmp_path / "dump/audio/a-1.flac") and row.num_samples == 16000
    assert soundfile.info(row.audio).subtype == "PCM_16"
    written, rate = soundfile.read(row.audio, dtype="int16")
    expected = to_int16(resample(noise(22050) / np.float32(32768), 22050, 16000))
    assert rate == 16000
    np.testing.assert_array_equal(written, expected)
    assert report.resampled_from_hz == {22050: 1} and report.written == 1


@pytest.mark.parametrize("name, subtype", [("a.mp3", None), ("a.ogg", "OPUS"), ("a.ogg", None)])
def test_lossy_audio_is_decoded_once(tmp_path, name, subtype, monkeypatch):
    soundfile.write(tmp_path / name, noise(48000), 16000, subtype=subtype)
    decoded, _ = soundfile.read(tmp_path / name, dtype="float32")
    opened = []
    plain = recording_module._open_soundfile
    monkeypatch.setattr(
        recording_module, "_open_soundfile", lambda *a: opened.append(a[0]) or plain(*a)
    )
    rows = [utterance(f"a-{i}", tmp_path / name, i * 0.5, i * 0.5 + 1.0) for i in range(4)]
    report, read = dump(tmp_path, rows)
    assert opened == [str(tmp_path / name)]
    assert report.written == 4
    for i, row in enumerate(read):
        samples, _ = read_audio(row.audio)
        # Half a step of 16 bits by rounding; libmpg123 varies by less with the size of the reads.
        wanted = decoded[i * 8000 : i * 8000 + 16000]
        np.testing.assert_allclose(samples, wanted, atol=0.6 / 32768)


def test_segments_are_cut_whatever_their_order_and_overlap(tmp_path):
    samples = noise(160000)
    soundfile.write(tmp_path / "r.wav", samples, 16000)
    spans = {"a-1": (5.0, 6.0), "a-2": (0.0, 9.0), "a-3": (1.0, 1.5), "a-4": (9.5, None)}
    rows = [utterance(key, tmp_path / "r.wav", *span) for key, span in spans.items()]
    _, read = dump(tmp_path, rows)
    for row in read:
        start, end = spans[row.id]
        want = samples[round(start * 16000) : None if end is None else round(end * 16000)]
        np.testing.assert_array_equal(soundfile.read(row.audio, dtype="int16")[0], want)


def test_a_segment_outside_names_its_utterance(tmp_path):
    soundfile.write(tmp_path / "r.wav", noise(16000), 16000)
    rows = [
        utterance("a-1", tmp_path / "r.wav", 0.0, 0.5),
        utterance("a-2", tmp_path / "r.wav", 0.5, 2.0),
    ]
    with pytest.raises(InputError, match=r"utterance 'a-2': .*r\.wav: segment from 0\.5 s to 2 s"):
        dump(tmp_path, rows)
    assert not (tmp_path / "dump").exists()


def test_archives_stay_or_are_converted(tmp_path):
    with kaldiio.WriteHelper(f"ark,scp:{tmp_path / 'x.ark'},{tmp_path / 'x.scp'}") as writer:
        writer("a-1", (16000, noise(3000, 1)))
        writer("a-2", (8000, noise(3000, 2)))
    scp = dict(line.split() for line in (tmp_path / "x.scp").read_text().splitlines())
    report, read = dump(tmp_path, [utterance(key, entry) for key, entry in scp.items()])
    assert read[0].audio == scp["a-1"] and read[0].num_samples == 3000
    assert read[1].audio.endswith("a-2.flac") and read[1].num_samples == 6000
    assert report.written == 1


def test_channels(tmp_path):
    left, right = noise(8000, 1), noise(8000, 2)
    soundfile.write(tmp_path / "s.wav", np.stack([left, right], axis=1), 16000)
    rows = [utterance("a-1", tmp_path / "s.wav")]
    with pytest.raises(InputError, match=r"'a-1': .*s\.wav: 2 channels, expected 1.*--channel"):
        dump(tmp_path, rows)
    for channel, want in ((0, left), (1, right)):
        _, [row] = dump(tmp_path, rows, channel=channel)
        np.testing.assert_array_equal(soundfile.read(row.audio, dtype="int16")[0], want)
    _, [row] = dump(tmp_path, rows, channel="mix")
    want = (left.astype(np.int32) + right) / 2
    mixed = soundfile.read(row.audio, dtype="int16")[0]
    assert np.abs(mixed - want).max() <= 0.5


def test_too_short_and_too_long_are_left_out_and_counted(tmp_path, make_corpus):
    rows = read_data_dir(make_corpus((1599, 1600, 16000, 16001)))
    report, read = dump(tmp_path, rows, min_seconds=0.1, max_seconds=1.0)
    assert [row.num_samples for row in read] == [1600, 16000]
    assert report.too_short == ["spk000-utt000"] and report.too_long == ["spk001-utt003"]
    with pytest.raises(
        InputError, match=r"no utterance left: 2 shorter than 0\.2 s, 2 longer than"
    ):
        dump(tmp_path, rows, min_seconds=0.2, max_seconds=0.3)


@pytest.mark.parametrize("audio_format", ["flac", "ark"])
def test_nothing_is_left_out_when_all_is_kept(tmp_path, make_corpus, audio_format):
    rows = list(read_data_dir(make_corpus((1, 2, 399, 640000), rate=8000)))
    report, read = dump(
        tmp_path, rows, min_seconds=0.0, max_seconds=math.inf, audio_format=audio_format
    )
    assert [row.num_samples for row in read] == [2, 4, 798, 1280000]
    assert [len(read_audio(row.audio)[0]) for row in read] == [2, 4, 798, 1280000]
    assert report.too_short == report.too_long == []


def test_an_id_too_long_for_a_file_name(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(800), 8000)
    fits, too_long = "a-" + "x" * 248, "a-" + "é" * 125
    _, [row] = dump(tmp_path, [utterance(fits, tmp_path / "a.wav")], min_seconds=0)
    assert row.audio.endswith(f"/{fits}.flac")
    with pytest.raises(InputError, match=r"a file name of 257 bytes.*--audio_format ark"):
        dump(tmp_path, [utterance(too_long, tmp_path / "a.wav")])
    _, [row] = dump(tmp_path, [utterance(too_long, tmp_path / "a.wav")], audio_format="ark")
    assert row.num_samples == 1600


def test_a_folder_that_holds_other_things_is_not_replaced(tmp_path, make_corpus):
    source = make_corpus(name="train")
    (tmp_path / "data").mkdir()
    source = source.rename(tmp_path / "data/train")
    with pytest.raises(
        InputError, match=r"/data: would replace its source .*/data/train; write it"
    ):
        dump_data_dir(source, tmp_path / "data")
    (tmp_path / "exp").mkdir()
    dump_data_dir(source, tmp_path / "exp")  # empty
    dump_data_dir(source, tmp_path / "exp")  # a data directory
    (tmp_path / "exp/wav.scp").unlink()
    (tmp_path / "exp/utt2spk").unlink()
    (tmp_path / "exp/.made_of.json").unlink()
    (tmp_path / "exp/a.model").touch()
    said = r"/exp: holds 'a\.model' and no wav\.scp, so it is not replaced; choose a new folder"
    with pytest.raises(InputError, match=said):
        dump_data_dir(source, tmp_path / "exp")
    with pytest.raises(InputError, match=said):
        write_data_dir(tmp_path / "exp", read_data_dir(source))
    with pytest.raises(InputError, match=r"a\.model: a file is there"):
        dump_data_dir(source, tmp_path / "exp/a.model")
    assert (tmp_path / "exp/a.model").exists() and validate_data_dir(source) == 4


@pytest.mark.parametrize("name", ["t.wav", "t.flac", "t.sph"])
def test_truncated_audio_names_utterance_and_file(tmp_path, name):
    kind = "NIST" if name == "t.sph" else None
    soundfile.write(tmp_path / name, noise(16000), 16000, format=kind, subtype="PCM_16")
    raw = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(raw[: len(raw) // 2])
    with pytest.raises(InputError, match=rf"'a-1': .*{name}: truncated") as caught:
        dump(tmp_path, [utterance("a-1", tmp_path / name)])
    assert "\n" not in str(caught.value) and "16000" in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", name]


def test_unlabelled_data_and_odd_ids(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(8000), 8000)
    _, read = dump(tmp_path, [utterance("a/b%-1", tmp_path / "a.wav", text=None)], need_text=False)
    assert read[0].audio == str(tmp_path / "dump/audio/a%2Fb%25-1.flac")


def test_a_source_that_breaks_a_rule_stops_the_dump(tmp_path, make_corpus):
    folder = make_corpus()
    (folder / "text").write_text("x y\n")
    with pytest.raises(InputError, match="fix_data"):
        dump_data_dir(folder, tmp_path / "dump")
    assert not (tmp_path / "dump").exists()
    with pytest.raises(InputError, match="would replace its source"):
        dump_data_dir(make_corpus(name="other"), tmp_path / "other")


def test_pipes(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(8000), 16000)
    rows = [utterance("a-1", f"cat {tmp_path / 'a.wav'} |")]
    with pytest.raises(InputError, match=r"wav\.scp:1: pipe .*--allow_pipes"):
        dump(tmp_path, rows)
    report, [row] = dump(tmp_path, rows, allow_pipes=True)
    assert report.written == 1
    np.testing.assert_array_equal(soundfile.read(row.audio, dtype="int16")[0], noise(8000))


def mixed_corpus(tmp_path):
    """Return utterances of WAV that could stay, of another rate, of MP3 segments, and an odd id."""
    soundfile.write(tmp_path / "a.wav", noise(16000, 1), 16000)
    soundfile.write(tmp_path / "b.wav", noise(8000, 2), 8000)
    soundfile.write(tmp_path / "c.wav", noise(32000, 3), 16000)
    return [
        utterance("a-1", tmp_path / "a.wav"),
        utterance("b/%-1", tmp_path / "b.wav"),
        utterance("c-2", tmp_path / "c.wav"),
    ]


def test_archives_hold_what_the_files_would(tmp_path):
    rows = mixed_corpus(tmp_path)
    _, files = dump(tmp_path, rows)
    wanted = {row.id: (read_audio(row.audio)[0], row.num_samples) for row in files}
    report, read = dump(tmp_path, rows, audio_format="ark", archive_bytes=10000)
    assert (report.written, report.archives, report.utterances) == (3, 3, 3)
    assert sorted(path.name for path in (tmp_path / "dump/audio").iterdir()) == [
        "audio.1.ark",
        "audio.2.ark",
        "audio.3.ark",
    ]
    assert read[1].audio == f"{tmp_path}/dump/audio/audio.2.ark:6"
    theirs = kaldiio.load_scp(str(tmp_path / "dump/wav.scp"))
    for row in read:
        samples, num_samples = wanted[row.id]
        assert row.num_samples == num_samples
        np.testing.assert_array_equal(read_audio(row.audio)[0], samples)
        rate, loaded = theirs[row.id]
        assert rate == 16000
        np.testing.assert_array_equal(loaded.astype(np.float32), samples)
    report, read = dump(tmp_path, rows, audio_format="ark")
    assert report.archives == 1 and [p.name for p in (tmp_path / "dump/audio").iterdir()] == [
        "audio.1.ark"
    ]


def test_a_dump_in_archives_is_a_source_that_stays(tmp_path):
    dump(tmp_path, mixed_corpus(tmp_path), audio_format="ark")
    report = dump_data_dir(tmp_path / "dump", tmp_path / "again")
    assert report.written == 0
    for name in ("wav.scp", "text", "utt2num_samples", "utt2dur", "spk2utt"):
        assert (tmp_path / "again" / name).read_text() == (tmp_path / "dump" / name).read_text()


@pytest.mark.parametrize("audio_format", ["flac", "ark"])
def test_the_number_of_threads_changes_nothing(tmp_path, audio_format):
    rows = []
    for i in range(30):
        samples = noise(1600 + 997 * (i * 7 % 11), i)
        soundfile.write(tmp_path / f"r{i}.wav", samples, 8000)
        rows += [utterance(f"a-{i:02d}-{j}", tmp_path / f"r{i}.wav", j * 0.1) for j in (1, 0)]
    contents = []
    for threads in (1, 5):
        dump(tmp_path, rows, audio_format=audio_format, threads=threads, archive_bytes=40000)
        contents.append(
            {
                str(path.relative_to(tmp_path)): path.read_bytes()
                for path in sorted((tmp_path / "dump").rglob("*"))
                if path.is_file() and path.name != ".made_of.json"  # has the times of files
            }
        )
    assert contents[0] == contents[1] and len(contents[0]) > 8


def test_a_fault_in_an_archive_dump_leaves_what_was_there(tmp_path):
    rows = mixed_corpus(tmp_path)
    dump(tmp_path, rows, audio_format="ark")
    before = (tmp_path / "dump/audio/audio.1.ark").read_bytes()
    (tmp_path / "c.wav").write_bytes((tmp_path / "c.wav").read_bytes()[:-100])
    with pytest.raises(InputError, match=r"'c-2': .*c\.wav: truncated"):
        dump(tmp_path, rows, audio_format="ark")
    assert (tmp_path / "dump/audio/audio.1.ark").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"a.wav", "b.wav", "c.wav", "data", "dump"}
    with pytest.raises(InputError, match=r"unknown audio format 'arc'.*did you mean 'ark'"):
        dump(tmp_path, rows, audio_format="arc")


def write_ark(path, samples):
    with kaldiio.WriteHelper(f"ark,scp:{path},{path}.scp") as writer:
        writer("before", (16000, noise(5000, 5)))
        writer("r", (16000, samples))
        writer("behind", (16000, noise(5000, 6)))
    return dict(line.split() for line in open(f"{path}.scp"))["r"]


@pytest.mark.parametrize("kind", ["wav", "flac", "sph", "ark", "mp3", "opus"])
@pytest.mark.parametrize("audio_format", ["flac", "ark"])
def test_segments_of_every_kind_of_recording(tmp_path, kind, audio_format):
    """Overlapping, equal, unsorted, to the end; in a folder as people write it, not as we do."""
    samples = noise(64000)
    entry = str(tmp_path / f"r.{kind}")
    if kind == "ark":
        entry = write_ark(entry, samples)
    elif kind == "opus":
        soundfile.write(entry, samples, 16000, format="OGG", subtype="OPUS")
    else:
        soundfile.write(entry, samples, 16000, format="NIST" if kind == "sph" else None)
    decoded, rate = read_audio(entry)
    assert rate == 16000
    soundfile.write(tmp_path / "s.wav", noise(16000, 7), 16000)
    folder = tmp_path / "data"
    folder.mkdir()
    spans = {"a-1": (2.5, 3.25), "a-2": (0.0, 2.75), "a-3": (2.5, 3.25), "a-4": (3.1, -1.0)}
    spans |= {"b-1": (0.33331, 0.71119), "b-2": (3.5, 4.4)}  # the last ends up to 0.5 s late
    lines = [f"{key} r {start} {end}\n" for key, (start, end) in spans.items()]
    (folder / "segments").write_text("".join([*lines, "b-3 s 0 -1\n"]))
    (folder / "wav.scp").write_text(f"none {tmp_path}/s.wav\nr {entry}\ns {tmp_path}/s.wav\n")
    (folder / "utt2spk").write_text("".join(f"{key} {key[0]}\n" for key in [*spans, "b-3"]))
    (folder / "text").write_text("".join(f"{key} said {key}\n" for key in [*spans, "b-3"]))
    dump_data_dir(folder, tmp_path / "dump", audio_format=audio_format)
    read = {row.id: row for row in read_data_dir(tmp_path / "dump")}
    assert list(read) == [*spans, "b-3"] and read["a-3"].text == "said a-3"
    direct = {row.id: row for row in read_data_dir(folder)}
    for key, (start, end) in spans.items():
        last = len(decoded) if end == -1.0 else round(end * 16000)
        want = decoded[round(start * 16000) : last]
        tolerance = 0.6 / 32768 if kind in ("mp3", "opus") else 0
        assert read[key].num_samples == len(want)
        np.testing.assert_allclose(read_audio(read[key].audio)[0], want, atol=tolerance)
        row = direct[key]
        part = {"start_seconds": row.start_seconds, "end_seconds": row.end_seconds}
        np.testing.assert_allclose(read_audio(row.audio, **part)[0], want, atol=tolerance)
        assert audio_info(row.audio, **part).frames == len(want)
    if audio_format == "flac":  # a segment that is a whole lossless recording needs no copy
        assert read["b-3"].audio == str(tmp_path / "s.wav")
    np.testing.assert_array_equal(to_int16(read_audio(read["b-3"].audio)[0]), noise(16000, 7))


def test_a_dump_of_the_same_is_left_as_it_is(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(22050), 22050)
    soundfile.write(tmp_path / "b.wav", noise(8000), 16000)
    rows = [utterance("a-1", tmp_path / "a.wav"), utterance("b-1", tmp_path / "b.wav")]
    dump(tmp_path, rows)

    def again(**options):
        return dump_data_dir(tmp_path / "data", tmp_path / "dump", only_if_changed=True, **options)

    (tmp_path / "dump" / "cmvn.safetensors").write_text("statistics")
    before = (tmp_path / "dump" / "wav.scp").stat().st_mtime_ns
    assert again() is None
    assert (tmp_path / "dump" / "wav.scp").stat().st_mtime_ns == before
    assert (tmp_path / "dump" / "cmvn.safetensors").is_file()
    # Audio that is another one under the same name and of the same length:
    soundfile.write(tmp_path / "b.wav", noise(8000, seed=1), 16000)
    assert again().utterances == 2 and again() is None
    (tmp_path / "dump" / "text").write_text("edited\n")
    assert again().utterances == 2 and again() is None
    (tmp_path / "dump" / "audio" / "a-1.flac").unlink()
    assert again().utterances == 2 and again() is None
    write_data_dir(tmp_path / "data", rows[:1])
    assert again().utterances == 1 and again() is None
    assert again(min_seconds=0.2).utterances == 1 and again(min_seconds=0.2) is None
    assert again(max_seconds=math.inf).utterances == 1 and again(max_seconds=math.inf) is None
    assert again(audio_format="ark").archives == 1 and again(audio_format="ark") is None
