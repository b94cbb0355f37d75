"""Archives of audio against kaldiio, which reads what is written here and writes what is read."""

import io
import os
import struct
import sys
from concurrent.futures import ThreadPoolExecutor

import kaldiio
import numpy as np
import pytest
import soundfile

from espnet_lite.data.ark import ArchiveWriter, archive_name
from espnet_lite.data.audio import audio_info, read_audio, to_int16
from espnet_lite.errors import InputError

RATE = 16000


def noise(num_samples, seed=0):
    return np.random.default_rng(seed).integers(-9000, 9000, num_samples).astype(np.int16)


def encoded(samples, kind="FLAC", subtype=None, rate=RATE):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


def read_int16(entry, **part):
    samples, rate = read_audio(entry, **part)
    assert rate == RATE
    return to_int16(samples)


def write_archive(path, contents):
    """Write contents one after the other, each with a key; return their wav.scp entries."""
    entries, archive = [], b""
    for number, content in enumerate(contents):
        archive += b"key%d " % number
        entries.append(f"{path}:{len(archive)}")
        archive += content
    path.write_bytes(archive)
    return entries


def test_what_is_written_is_byte_for_byte_what_kaldiio_writes(tmp_path):
    # Lengths whose count of bytes differs: one, two and three bytes.
    audio = {f"key-{n}": noise(n, n) for n in (1, 20, 3000, 50000)}
    audio["ключ"] = noise(100)
    writer = ArchiveWriter(tmp_path)
    places = {key: writer.add(key, encoded(samples)) for key, samples in audio.items()}
    writer.close()
    kaldiio.save_ark(
        str(tmp_path / "theirs.ark"),
        {key: (samples, RATE) for key, samples in audio.items()},
        scp=str(tmp_path / "theirs.scp"),
        write_function="soundfile",
        write_kwargs={"format": "flac", "subtype": "PCM_16"},
    )
    path = tmp_path / archive_name(1)
    assert path.read_bytes() == (tmp_path / "theirs.ark").read_bytes()
    (tmp_path / "ours.scp").write_text(
        "".join(f"{key} {path}:{offset}\n" for key, (_, offset) in places.items())
    )
    theirs = (tmp_path / "theirs.scp").read_text().replace("theirs.ark", path.name)
    assert (tmp_path / "ours.scp").read_text() == theirs
    loaded = kaldiio.load_scp(str(tmp_path / "ours.scp"))
    for key, samples in audio.items():
        rate, read = loaded[key]
        assert rate == RATE
        np.testing.assert_array_equal(to_int16(read), samples)
        entry = f"{path}:{places[key][1]}"
        np.testing.assert_array_equal(read_int16(entry), samples)
        assert audio_info(entry).is_lossless_16_bit
    sequence = [(key, len(read)) for key, (_, read) in kaldiio.load_ark(str(path))]
    assert sequence == [(key, len(samples)) for key, samples in audio.items()]


def test_a_new_archive_begins_when_one_is_full(tmp_path):
    writer = ArchiveWriter(tmp_path, max_bytes=1000)
    places = [writer.add(f"k{i}", bytes(400)) for i in range(7)]
    writer.close()
    assert [number for number, _ in places] == [1, 1, 1, 2, 2, 2, 3]
    assert [offset for _, offset in places][:4] == [3, 3 + 408 + 3, 3 + 2 * 411, 3]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "audio.1.ark",
        "audio.2.ark",
        "audio.3.ark",
    ]


@pytest.mark.parametrize("kind, subtype", [("WAV", "PCM_U8"), ("WAV", "PCM_24"), ("WAV", "FLOAT")])
def test_wav_that_kaldi_writes_in_archives(tmp_path, kind, subtype):
    samples = noise(3000)
    exact = (samples / 32768).astype(np.float32)
    contents = [encoded(samples[:1001], "WAV"), encoded(exact, kind, subtype), encoded(samples)]
    first, second, _ = write_archive(tmp_path / "x.ark", contents)
    np.testing.assert_array_equal(read_int16(first), samples[:1001])
    step = 256 if subtype == "PCM_U8" else 1
    assert np.abs(read_int16(second).astype(int) - samples).max() <= step - 1
    assert audio_info(first).is_lossless_16_bit and not audio_info(second).is_lossless_16_bit


@pytest.mark.parametrize("name, subtype", [("MP3", None), ("OGG", "OPUS"), ("OGG", "VORBIS")])
def test_lossy_audio_in_archives(tmp_path, name, subtype):
    data = encoded(noise(48000), name, subtype)
    (tmp_path / "alone").write_bytes(data)
    content = b"AUDIO\x03" + len(data).to_bytes(3, "little") + data
    entry = write_archive(tmp_path / "x.ark", [content, content])[0]
    np.testing.assert_array_equal(read_audio(entry)[0], read_audio(str(tmp_path / "alone"))[0])
    assert not audio_info(entry).is_lossless_16_bit


@pytest.mark.parametrize("layout", ["riff", "flac", "audio"])
def test_a_part_of_a_recording_reads_only_its_own_bytes(tmp_path, layout, monkeypatch):
    samples = noise(10 * RATE)
    data = encoded(samples, "WAV" if layout == "riff" else "FLAC")
    content = b"AUDIO\x04" + len(data).to_bytes(4, "little") + data if layout == "audio" else data
    contents = [content, content, b"AUDIO\x04" + struct.pack("<I", 10**7) + bytes(10**7)]
    other = encoded(noise(10 * RATE, 1), "WAV" if layout == "riff" else "FLAC")
    entry = write_archive(tmp_path / "x.ark", [*contents[:2], *[other] * 3, contents[2]])[1]
    counted = []
    plain = io.BufferedReader.readinto

    class Counting(io.BufferedReader):
        def readinto(self, buffer):
            counted.append(plain(self, buffer))
            return counted[-1]

    monkeypatch.setattr("espnet_lite.data.ark.io.BufferedReader", Counting)
    np.testing.assert_array_equal(
        read_int16(entry, start_seconds=8.0, end_seconds=9.5), samples[128000:152000]
    )
    np.testing.assert_array_equal(read_int16(entry, start_seconds=9.0), samples[144000:])
    assert 0 < sum(counted) < 2.2 * len(data)


def test_damaged_archives(tmp_path):
    samples = noise(3000)
    flac, wav = encoded(samples), encoded(samples, "WAV")
    audio = b"AUDIO\x02" + struct.pack("<H", len(flac)) + flac
    path = tmp_path / "x.ark"

    def fault(content):
        entry = write_archive(path, [content])[0]
        with pytest.raises(InputError) as caught:
            read_audio(entry)
        assert str(caught.value).startswith(f"{entry}: ")
        return str(caught.value)

    said = f"truncated: {len(flac)} bytes promised, the archive has {len(flac) - 10}"
    assert said in fault(audio[:-10])
    assert "truncated: the header says 3000 frames, the file has 2950" in fault(wav[:-100])
    assert "cannot be decoded as audio" in fault(flac[: len(flac) // 2])
    assert "'0' after AUDIO is no size of a length" in fault(b"AUDIO\x00")
    assert "'9' after AUDIO is no size of a length" in fault(b"AUDIO\x09" + bytes(50))
    assert "'2' after AUDIO is no size of a length" in fault(b"AUDIO\x02a")
    assert "'0' after AUDIO" in fault(b"AUDIO")
    assert "cannot be decoded as audio" in fault(b"AUDIO\x01\x05hello")
    streamed = wav[:4] + b"\xff\xff\xff\xff" + wav[8:]
    assert "WAV of unknown length, expected one in its header; write the archive again" in fault(
        streamed
    )
    assert r"bytes b'\x00BFM ' at this offset, expected RIFF, fLaC or AUDIO" in fault(
        b"\x00BFM \x04"
    )
    assert "expected RIFF, fLaC or AUDIO" in fault(b"PKLcos\nsystem")
    inside = b"AUDIO\x02" + struct.pack("<H", len(wav) - 100) + wav[:-100]
    assert "the header says 3000 frames, the file has 2950" in fault(inside)


def test_offsets_beyond_32_bits(tmp_path):
    """An archive of 6 GB, nearly all of which is a hole that takes no disk."""
    hole = 6 * 10**9
    path = tmp_path / archive_name(1)
    writer = ArchiveWriter(tmp_path, max_bytes=10**12)
    assert writer.add("first", encoded(noise(500))) == (1, 6)
    writer._file.seek(hole)
    places = [writer.add(f"k{i}", encoded(noise(3000 + i, i))) for i in range(2)]
    writer.close()
    assert places[0] == (1, hole + 3) and path.stat().st_size > hole
    for i, (_, offset) in enumerate(places):
        np.testing.assert_array_equal(read_int16(f"{path}:{offset}"), noise(3000 + i, i))
        rate, samples = kaldiio.load_mat(f"{path}:{offset}")
        assert rate == RATE and len(samples) == 3000 + i
    part = read_int16(f"{path}:{places[1][1]}", start_seconds=0.1, end_seconds=0.15)
    np.testing.assert_array_equal(part, noise(3001, 1)[1600:2400])
    with pytest.raises(InputError, match="offset beyond the archive's end"):
        read_audio(f"{path}:{2 * hole}")


def test_many_readers_of_one_archive(tmp_path):
    contents = [encoded(noise(2000 + i, i)) for i in range(20)]
    wrapped = [b"AUDIO\x04" + len(data).to_bytes(4, "little") + data for data in contents]
    entries = write_archive(tmp_path / "x.ark", wrapped)
    before = len(os.listdir("/proc/self/fd")) if sys.platform.startswith("linux") else None
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(read_int16, entries * 10))
    for number, samples in enumerate(found):
        np.testing.assert_array_equal(samples, noise(2000 + number % 20, number % 20))
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) == before


def test_a_moved_archive_is_named(tmp_path):
    entry = write_archive(tmp_path / "x.ark", [encoded(noise(100), "WAV")])[0]
    (tmp_path / "x.ark").rename(tmp_path / "y.ark")
    with pytest.raises(InputError, match=r"x\.ark:5: cannot open .*correct the path in wav\.scp"):
        read_audio(entry)
