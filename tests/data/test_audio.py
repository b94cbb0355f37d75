"""Audio reading, resampling and speed against sines, kaldiio and what was written."""

import io
import sys

import kaldiio
import numpy as np
import pytest
import soundfile

from espnet_lite.data.audio import (
    audio_info,
    change_speed,
    read_audio,
    resample,
    resampled_length,
    speed_length,
    speed_lengths,
    to_int16,
)
from espnet_lite.errors import InputError

RATE = 16000


def noise(num_samples, seed=0):
    return np.random.default_rng(seed).integers(-9000, 9000, num_samples).astype(np.int16)


def sine(hz, rate, num_samples):
    return np.sin(2 * np.pi * hz * np.arange(num_samples) / rate).astype(np.float32) * 0.5


def pitch_hz(samples, rate):
    """Return the frequency of the strongest line of the spectrum."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return np.argmax(spectrum) * rate / len(samples)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "NIST", "AIFF"])
def test_lossless_files_give_their_samples(tmp_path, kind):
    samples = noise(5000)
    path = tmp_path / "a.audio"
    soundfile.write(path, samples, RATE, format=kind, subtype="PCM_16")
    read, rate = read_audio(str(path))
    assert rate == RATE and read.dtype == np.float32
    np.testing.assert_array_equal(read, samples / np.float32(32768))
    np.testing.assert_array_equal(to_int16(read), samples)
    info = audio_info(str(path))
    assert (info.frames, info.sample_rate, info.channels) == (5000, RATE, 1)
    assert info.is_lossless_16_bit


def test_lossy_and_24_bit_files_are_known_as_such(tmp_path):
    for name, subtype in (("a.mp3", None), ("a.ogg", "OPUS"), ("a.wav", "PCM_24")):
        soundfile.write(tmp_path / name, noise(16000), RATE, subtype=subtype)
        assert not audio_info(str(tmp_path / name)).is_lossless_16_bit
        assert len(read_audio(str(tmp_path / name))[0]) == 16000


def test_part_of_a_file(tmp_path):
    samples = noise(RATE)
    soundfile.write(tmp_path / "a.wav", samples, RATE)
    read, _ = read_audio(str(tmp_path / "a.wav"), start_seconds=0.25, end_seconds=0.5)
    np.testing.assert_array_equal(to_int16(read), samples[4000:8000])
    read, _ = read_audio(str(tmp_path / "a.wav"), start_seconds=0.75)
    np.testing.assert_array_equal(to_int16(read), samples[12000:])
    # Kaldi cuts a segment that ends up to half a second late.
    assert len(read_audio(str(tmp_path / "a.wav"), start_seconds=0.75, end_seconds=1.4)[0]) == 4000
    with pytest.raises(InputError, match=r"a\.wav: segment from 0\.75 s to 1\.6 s.* has 1\.000 s"):
        read_audio(str(tmp_path / "a.wav"), start_seconds=0.75, end_seconds=1.6)
    with pytest.raises(InputError, match="segment from 1 s to its end"):
        read_audio(str(tmp_path / "a.wav"), start_seconds=1.0)


def test_kaldi_archive_of_wav(tmp_path):
    data = {"a": noise(3000, 1), "b": noise(2000, 2)}
    with kaldiio.WriteHelper(f"ark,scp:{tmp_path / 'x.ark'},{tmp_path / 'x.scp'}") as writer:
        for key, samples in data.items():
            writer(key, (8000, samples))
    for line in (tmp_path / "x.scp").read_text().splitlines():
        key, entry = line.split()
        read, rate = read_audio(entry)
        assert rate == 8000
        np.testing.assert_array_equal(to_int16(read), data[key])
        assert audio_info(entry).is_lossless_16_bit


def test_kaldi_archive_of_flac(tmp_path):
    archive = b""
    offsets = {}
    for seed in (1, 2):
        encoded = io.BytesIO()
        soundfile.write(encoded, noise(3000, seed), RATE, format="FLAC")
        archive += b"key%d " % seed
        offsets[seed] = len(archive)
        archive += encoded.getvalue()
    (tmp_path / "x.ark").write_bytes(archive)
    for seed, offset in offsets.items():
        read, rate = read_audio(f"{tmp_path / 'x.ark'}:{offset}")
        assert rate == RATE
        np.testing.assert_array_equal(to_int16(read), noise(3000, seed))


def test_archive_of_something_else_is_refused(tmp_path):
    with kaldiio.WriteHelper(f"ark,scp:{tmp_path / 'x.ark'},{tmp_path / 'x.scp'}") as writer:
        writer("a", np.zeros((3, 4), dtype=np.float32))
    entry = (tmp_path / "x.scp").read_text().split()[1]
    with pytest.raises(InputError, match="expected RIFF, fLaC or AUDIO"):
        read_audio(entry)
    with pytest.raises(InputError, match="offset beyond the archive's end"):
        read_audio(f"{tmp_path / 'x.ark'}:99999")


def test_truncated_archive(tmp_path):
    with kaldiio.WriteHelper(f"ark,scp:{tmp_path / 'x.ark'},{tmp_path / 'x.scp'}") as writer:
        writer("a", (RATE, noise(3000)))
    entry = (tmp_path / "x.scp").read_text().split()[1]
    path = tmp_path / "x.ark"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match="says 3000 frames, the file has 2500"):
        read_audio(entry)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.ogg", "a.sph"])
@pytest.mark.parametrize("part", [0.6, 0.98])
def test_truncated_files(tmp_path, name, part, capfd):
    kind = "NIST" if name == "a.sph" else None
    path = tmp_path / name
    soundfile.write(path, noise(64000), RATE, format=kind, subtype="PCM_16" if kind else None)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(InputError, match=r"truncated|no samples") as caught:
        read_audio(str(path))
    assert str(path) in str(caught.value) and "fetch the file again" in str(caught.value)
    capfd.readouterr()  # libmpg123 grumbles on stderr


def test_truncated_wav_names_both_counts(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(16000), RATE)
    path = tmp_path / "a.wav"
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(InputError, match="says 16000 frames, the file has 15000"):
        audio_info(str(path))


def test_wav_streamed_into_a_pipe_is_not_truncated(tmp_path):
    buffer = io.BytesIO()
    soundfile.write(buffer, noise(1000), RATE, format="WAV", subtype="PCM_16")
    raw = bytearray(buffer.getvalue())
    data = raw.index(b"data")
    raw[data + 4 : data + 8] = b"\xff\xff\xff\xff"
    raw[4:8] = b"\xff\xff\xff\xff"
    (tmp_path / "a.wav").write_bytes(raw)
    assert len(read_audio(str(tmp_path / "a.wav"))[0]) == 1000


def test_missing_empty_and_foreign_files(tmp_path):
    with pytest.raises(InputError, match=r"none\.wav: cannot open audio file: No such file"):
        read_audio(str(tmp_path / "none.wav"))
    (tmp_path / "empty.wav").touch()
    with pytest.raises(InputError, match=r"empty\.wav: empty file"):
        read_audio(str(tmp_path / "empty.wav"))
    (tmp_path / "text.wav").write_text("hello, this is no audio at all")
    with pytest.raises(InputError, match=r"text\.wav: cannot be decoded as audio"):
        read_audio(str(tmp_path / "text.wav"))
    soundfile.write(tmp_path / "zero.wav", np.zeros(0, dtype=np.int16), RATE)
    with pytest.raises(InputError, match=r"zero\.wav: no samples"):
        read_audio(str(tmp_path / "zero.wav"))
    with pytest.raises(InputError, match="cannot open audio file: Is a directory"):
        read_audio(str(tmp_path))


def test_not_a_number_is_refused(tmp_path):
    samples = np.zeros(100, dtype=np.float32)
    samples[7] = np.nan
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    with pytest.raises(InputError, match="not numbers"):
        read_audio(str(tmp_path / "a.wav"))


def test_channels(tmp_path):
    left, right = noise(1000, 1), noise(1000, 2)
    path = str(tmp_path / "a.wav")
    soundfile.write(path, np.stack([left, right], axis=1), RATE)
    with pytest.raises(InputError, match=r"2 channels, expected 1.*--channel"):
        read_audio(path)
    np.testing.assert_array_equal(to_int16(read_audio(path, channel=0)[0]), left)
    np.testing.assert_array_equal(to_int16(read_audio(path, channel=1)[0]), right)
    mixed = (left.astype(np.float32) + right) / 2 / 32768
    np.testing.assert_allclose(read_audio(path, channel="mix")[0], mixed, atol=1e-7)
    with pytest.raises(InputError, match="no channel 2, it has 2"):
        read_audio(path, channel=2)


def test_pipes_only_when_allowed_and_without_a_shell(tmp_path):
    path = tmp_path / "a b.wav"
    soundfile.write(path, noise(1000), RATE)
    copy = "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())"
    pipe = f"cat '{path}' | {sys.executable} -c '{copy}' |"
    with pytest.raises(InputError, match=r"expected a path or ark:offset.*--allow_pipes"):
        read_audio(pipe)
    np.testing.assert_array_equal(to_int16(read_audio(pipe, allow_pipes=True)[0]), noise(1000))
    victim = tmp_path / "made"
    for command, fault in (
        (f"cat '{path}' ; touch {victim} |", "needs a shell for ';'"),
        (f"cat '{path}' > {victim} |", "needs a shell for '>'"),
        (f"echo $(touch {victim}) |", "needs a shell"),
        ("no_such_program_here x |", "cannot run 'no_such_program_here'"),
        ("cat /no/such/file |", "ended with status 1"),
        ("cat 'a |", "No closing quotation"),
        ("| cat |", "empty part"),
    ):
        with pytest.raises(InputError) as caught:
            read_audio(command, allow_pipes=True)
        assert fault in str(caught.value)
    assert not victim.exists()


@pytest.mark.parametrize("from_hz, to_hz", [(22050, 16000), (8000, 16000), (48000, 16000)])
def test_resampled_sine_is_the_sine_at_the_new_rate(from_hz, to_hz):
    samples = resample(sine(440, from_hz, from_hz), from_hz, to_hz)
    expected = sine(440, to_hz, to_hz)
    assert samples.shape == expected.shape
    # The edges ring, because the sine begins and ends at once there.
    np.testing.assert_allclose(samples[800:-800], expected[800:-800], atol=1e-3)


def test_resampling_removes_what_the_new_rate_cannot_hold():
    samples = resample(sine(7000, 16000, 16000), 16000, 8000)
    assert np.abs(samples[400:-400]).max() < 1e-3


@pytest.mark.parametrize("num_samples", [1, 2, 3, 7, 100, 16001])
@pytest.mark.parametrize("factor", [0.9, 1.0, 1.1, 2.0])
def test_speed_lengths(num_samples, factor):
    samples = sine(440, RATE, num_samples)
    assert len(change_speed(samples, factor)) == speed_length(num_samples, factor)
    assert abs(speed_length(num_samples, factor) - num_samples / factor) <= 0.5 or num_samples == 1
    pair = speed_lengths(np.array([num_samples]), np.array([factor]))
    assert pair.tolist() == [speed_length(num_samples, factor)]
    assert resampled_length(num_samples, factor, 1.0) == speed_length(num_samples, factor)


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_speed_moves_the_pitch(factor):
    faster = change_speed(sine(440, RATE, RATE), factor)
    assert abs(pitch_hz(faster, RATE) - 440 * factor) < 2
    assert change_speed(faster, 1.0) is faster


def test_reading_resamples_when_asked(tmp_path):
    soundfile.write(tmp_path / "a.wav", sine(440, 22050, 22050), 22050)
    samples, rate = read_audio(str(tmp_path / "a.wav"), sample_rate=RATE)
    assert rate == RATE and len(samples) == RATE
    assert abs(pitch_hz(samples, RATE) - 440) < 1.5


def test_16_bit_conversion_clips_and_rounds():
    assert to_int16(np.array([2.0, -2.0, 0.6 / 32768, 1.0])).tolist() == [32767, -32768, 1, 32767]
