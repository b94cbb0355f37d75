"""The loader: what a batch holds, that it repeats, resumes, and names what it cannot read."""

import itertools
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from espnet_lite.data.batching import plan_batches
from espnet_lite.data.data_dir import read_data_dir, write_data_dir
from espnet_lite.data.loader import Loader
from espnet_lite.data.utterance import Batch
from espnet_lite.data.utterance_table import join_tables
from espnet_lite.errors import InputError

RATE = 16000
LENGTHS = tuple(1600 + 137 * i for i in range(17))


class Letters:
    """A tokenizer of bytes."""

    def encode(self, text: str) -> list[int]:
        return list(text.encode())


class Hiss:
    """Noise that tells its draw: a constant in [0, 1) on every sample."""

    def add(self, samples: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        return samples + np.float32(generator.random())


@pytest.fixture
def utterances(make_corpus):
    return read_data_dir(make_corpus(LENGTHS))


def make_loader(utterances, **options) -> Loader:
    options = {"sample_rate": RATE, "batch_seconds": 0.6, "seed": 5, **options}
    tokenizer = options.pop("tokenizer", Letters())
    return Loader(utterances, tokenizer, **options)


def same(one: Batch, other: Batch) -> bool:
    return (
        one.ids == other.ids
        and one.seed == other.seed
        and torch.equal(one.waveform, other.waveform)
        and torch.equal(one.waveform_lengths, other.waveform_lengths)
        and torch.equal(one.tokens, other.tokens)
    )


@pytest.mark.parametrize("prefetch", [0, 3])
@pytest.mark.parametrize("cache", [0.0, 1.0])
def test_batches_hold_the_files_samples_and_the_texts_tokens(utterances, prefetch, cache):
    loader = make_loader(utterances, prefetch_batches=prefetch, cache_gigabytes=cache)
    by_id = {utterance.id: utterance for utterance in utterances}
    for epoch in range(2):
        seen = []
        for batch in loader.batches(epoch):
            seen += batch.ids
            for row, key in enumerate(batch.ids):
                samples, _ = soundfile.read(by_id[key].audio, dtype="float32")
                length = int(batch.waveform_lengths[row])
                np.testing.assert_array_equal(batch.waveform[row, :length].numpy(), samples)
                assert not batch.waveform[row, length:].any()
                tokens = Letters().encode(by_id[key].text)
                assert batch.tokens[row].tolist()[: len(tokens)] == tokens
                assert (batch.tokens[row, len(tokens) :] == -1).all()
                assert batch.token_lengths[row] == len(tokens)
            assert batch.waveform.numel() <= 0.6 * RATE
        assert sorted(seen) == sorted(by_id)


def test_the_same_seed_and_epoch_give_the_same_batches(utterances):
    options = {"speed_factors": (0.9, 1.0, 1.1)}
    first = list(make_loader(utterances, **options).batches(3))
    again = list(make_loader(utterances, prefetch_batches=0, **options).batches(3))
    assert len(first) == len(again) and all(map(same, first, again))
    other_epoch = list(make_loader(utterances, **options).batches(4))
    assert [b.ids for b in first] != [b.ids for b in other_epoch]
    other_seed = list(make_loader(utterances, seed=6, **options).batches(3))
    assert [b.ids for b in first] != [b.ids for b in other_seed]
    seeds = {batch.seed for batch in first + other_epoch}
    assert len(seeds) == len(first) + len(other_epoch)


@pytest.mark.parametrize("start", [0, 1, 3, 100])
def test_resuming_gives_the_same_tail(utterances, start):
    options = {"speed_factors": (0.9, 1.1)}
    whole = list(make_loader(utterances, **options).batches(1))
    tail = list(make_loader(utterances, **options).batches(1, start=start))
    assert len(tail) == len(whole[start:]) and all(map(same, tail, whole[start:]))


@pytest.mark.parametrize("measured", [True, False])
def test_a_table_gives_the_batches_of_a_list(tmp_path, utterances, measured, monkeypatch):
    counts = LENGTHS if measured else [None] * len(LENGTHS)
    rows = [replace(u, num_samples=n) for u, n in zip(utterances, counts, strict=True)]
    write_data_dir(tmp_path / "dump", rows)
    table = read_data_dir(tmp_path / "dump")
    options = {"speed_factors": (0.9, 1.0, 1.1)}
    expected = list(make_loader(rows, **options).batches(1))
    if measured:  # then nothing looks at every utterance

        def refuse(self):
            raise AssertionError("all utterances were read")

        monkeypatch.setattr(type(table), "__iter__", refuse)
    found = list(make_loader(table, **options).batches(1))
    assert len(found) == len(expected) and all(map(same, found, expected))


def test_a_table_without_texts_is_refused_where_there_is_a_tokenizer(tmp_path, utterances):
    rows = [replace(u, text=None, num_samples=1) for u in utterances]
    write_data_dir(tmp_path / "dump", rows)
    table = read_data_dir(tmp_path / "dump", need_text=False)
    with pytest.raises(InputError, match=f"'{rows[0].id}': no text"):
        make_loader(table)


@pytest.mark.parametrize("step", [1, 2, 3, 100])
def test_every_nth_batch_is_that_of_the_whole_epoch(utterances, step):
    options = {"speed_factors": (0.9, 1.1), "noise": Hiss()}
    whole = list(make_loader(utterances, **options).batches(1))
    assert make_loader(utterances, **options).num_batches(1) == len(whole)
    for start in range(step if step < 100 else 4):
        part = list(make_loader(utterances, **options).batches(1, start=start, step=step))
        assert len(part) == len(whole[start::step])
        assert all(map(same, part, whole[start::step]))


def test_two_epochs_in_turn_are_planned_once_each(utterances, monkeypatch):
    planned = []

    def counted(lengths, **options):
        planned.append(len(lengths))
        return plan_batches(lengths, **options)

    monkeypatch.setattr("espnet_lite.data.loader.plan_batches", counted)
    loader = make_loader(utterances)
    counts = [loader.num_batches(epoch) for epoch in (0, 1, 0, 1, 0, 1, 2, 1)]
    assert len(planned) == 3
    assert counts == [make_loader(utterances).num_batches(e) for e in (0, 1, 0, 1, 0, 1, 2, 1)]
    loader.num_batches(0)  # of the three, the one not used for the longest time had to go
    assert len(planned) == 3 + 8 + 1


def test_noise_is_added_after_the_speed_change_and_moves_nothing_else(utterances):
    options = {"speed_factors": (0.9, 1.0, 1.1)}
    plain = list(make_loader(utterances, **options).batches(2))
    noisy = list(make_loader(utterances, noise=Hiss(), **options).batches(2))
    added = []
    for one, other in zip(plain, noisy, strict=True):
        assert one.ids == other.ids and one.seed == other.seed
        assert torch.equal(one.waveform_lengths, other.waveform_lengths)
        for row, length in enumerate(one.waveform_lengths.tolist()):
            difference = (other.waveform - one.waveform)[row]
            assert not difference[length:].any()
            added.append(round(float(difference[0]), 5))
            assert float((difference[:length] - difference[0]).abs().max()) < 1e-6
    assert len(set(added)) == len(utterances)  # another draw for every utterance
    again = list(make_loader(utterances, noise=Hiss(), **options).batches(2))
    assert all(map(same, noisy, again))


def test_without_shuffle_longest_first_in_every_epoch(utterances):
    loader = make_loader(utterances, shuffle=False)
    batches = list(loader.batches(0))
    longest = [int(batch.waveform_lengths.max()) for batch in batches]
    assert longest == sorted(longest, reverse=True)
    assert [b.ids for b in batches] == [b.ids for b in loader.batches(7)]


def test_short_first_epochs_count_from_zero(utterances):
    loader = make_loader(utterances, short_first_epochs=1)
    first = [int(batch.waveform_lengths.max()) for batch in loader.batches(0)]
    # In order but for the jitter of 5 % up or down.
    assert all(after > 0.9 * before for before, after in itertools.pairwise(first))
    assert first[-1] > 1.5 * first[0]
    plain = make_loader(utterances)
    assert [b.ids for b in loader.batches(1)] == [b.ids for b in plain.batches(1)]


SHORT = {"short_only_epochs": 2, "short_only_seconds": 2500 / RATE}


def test_short_only_epochs_have_the_utterances_that_are_short_after_the_speed_change(utterances):
    options = {"speed_factors": (0.9, 1.0, 1.1)}
    loader = make_loader(utterances, short_first_epochs=1, **SHORT, **options)
    plain = make_loader(utterances, **options)

    def lengths(batches) -> dict[str, int]:
        return {
            key: length
            for batch in batches
            for key, length in zip(batch.ids, batch.waveform_lengths.tolist(), strict=True)
        }

    for epoch in range(2):
        batches, everything = list(loader.batches(epoch)), lengths(plain.batches(epoch))
        assert loader.num_batches(epoch) == len(batches)
        expected = {key: length for key, length in everything.items() if length <= 2500}
        assert 0 < len(expected) < len(utterances)
        assert lengths(batches) == expected  # at the speeds that the epoch has anyway
        assert sum(len(batch.ids) for batch in batches) == len(expected)
    # Then one from short to long, then the epochs as they are without all this.
    longest = [int(batch.waveform_lengths.max()) for batch in loader.batches(2)]
    assert all(after > 0.9 * before for before, after in itertools.pairwise(longest))
    assert len(lengths(loader.batches(2))) == len(utterances)
    assert all(map(same, loader.batches(3), plain.batches(3)))


def test_short_only_epochs_are_shuffled_resumed_and_shared(utterances):
    options = {**SHORT, "short_only_epochs": 9, "batch_seconds": 0.2, "speed_factors": (0.9, 1.1)}
    orders = []
    for epoch in range(9):
        whole = list(make_loader(utterances, **options).batches(epoch))
        orders.append(tuple(int(batch.waveform_lengths.max()) for batch in whole))
        assert len(whole) > 2
    assert not all(list(order) == sorted(order) for order in orders)
    for step in (1, 2, 3):
        loader = make_loader(utterances, **options)
        parts = [list(loader.batches(8, start=start, step=step)) for start in range(step)]
        assert sum(map(len, parts)) == len(whole)
        for start, part in enumerate(parts):
            assert all(map(same, part, whole[start::step]))
    assert all(map(same, make_loader(utterances, **options).batches(8, start=3), whole[3:]))


def test_short_only_epochs_need_a_short_utterance(utterances):
    def fault(**options) -> str:
        with pytest.raises(InputError) as caught:
            make_loader(utterances, **options)
        return str(caught.value)

    assert fault(short_only_epochs=1, short_only_seconds=0.05) == (
        "short_only_seconds: no utterance of 0.05 s or less, the shortest has 0.1 s at speed 1; "
        "raise it, or set short_only_epochs to 0"
    )
    # 1600 samples fit as they are, and not at speed 0.9: some epoch could have no batch.
    options = {"short_only_epochs": 1, "short_only_seconds": 0.1}
    make_loader(utterances, **options)
    assert "no utterance of 0.1 s" in fault(speed_factors=(0.9, 1.0), **options)
    for seconds in (0, -1.0, float("nan"), float("inf")):
        assert f"short_only_seconds {seconds}" in fault(short_only_seconds=seconds)
    make_loader(utterances, short_only_seconds=0.05)  # not used
    unshuffled = make_loader(
        utterances, shuffle=False, short_only_epochs=1, short_only_seconds=0.05
    )
    assert sum(len(batch.ids) for batch in unshuffled.batches(0)) == len(utterances)


def test_an_id_in_two_sets_is_two_utterances(tmp_path, make_corpus):
    """Two training sets may name utterances alike: neither takes the place of the other."""
    tables = [read_data_dir(make_corpus((1600 + 160 * i,), name=f"d{i}")) for i in range(3)]
    loader = make_loader(join_tables([*tables, tables[0]]), speed_factors=(1.0,))
    for _ in range(2):  # the second time from the cache
        found = [
            (key, length)
            for batch in loader.batches(0)
            for key, length in zip(batch.ids, batch.waveform_lengths.tolist(), strict=True)
        ]
        assert sorted(found) == [("spk000-utt000", n) for n in (1600, 1600, 1760, 1920)]


def test_speed_is_drawn_for_each_utterance_and_counted_exactly(utterances):
    loader = make_loader(utterances, speed_factors=(0.9, 1.0, 1.1))
    lengths = {utterance.id: n for utterance, n in zip(utterances, LENGTHS, strict=True)}
    drawn = {}
    for epoch in range(3):
        for batch in loader.batches(epoch):
            for key, length in zip(batch.ids, batch.waveform_lengths.tolist(), strict=True):
                [factor] = [f for f in (0.9, 1.0, 1.1) if abs(lengths[key] / f - length) <= 0.5]
                drawn[key, epoch] = factor
    assert set(drawn.values()) == {0.9, 1.0, 1.1}
    by_utterance = [{drawn[u.id, epoch] for epoch in range(3)} for u in utterances]
    assert sum(len(factors) > 1 for factors in by_utterance) > len(utterances) // 2


def test_the_cache_keeps_to_its_limit(utterances):
    loader = make_loader(utterances, cache_gigabytes=10000 / 1e9)
    list(loader.batches(0))
    held = sum(samples.nbytes for samples in loader._cache.values())
    assert 5000 < held <= 10000


def test_cached_audio_is_read_once(utterances):
    loader = make_loader(utterances)
    before = list(loader.batches(0))
    for utterance in utterances:
        Path(utterance.audio).unlink()
    assert all(map(same, before, loader.batches(0)))


def test_without_a_tokenizer_there_are_no_tokens(utterances):
    unlabelled = [replace(utterance, text=None) for utterance in utterances]
    batch = next(make_loader(unlabelled, tokenizer=None).batches(0))
    assert batch.tokens is None and batch.token_lengths is None
    assert batch.to("cpu").tokens is None
    with pytest.raises(InputError, match=f"'{utterances[0].id}': no text"):
        make_loader(unlabelled)


def test_empty_text_gives_a_row_of_no_tokens(utterances):
    batch = next(make_loader([replace(utterances[0], text="")]).batches(0))
    assert batch.tokens.shape == (1, 0) and batch.token_lengths.tolist() == [0]


def test_segments_are_read_from_their_recording(utterances):
    part = replace(utterances[-1], start_seconds=0.05, end_seconds=0.1)
    batch = next(make_loader([part]).batches(0))
    samples, _ = soundfile.read(part.audio, dtype="float32")
    np.testing.assert_array_equal(batch.waveform[0].numpy(), samples[800:1600])


@pytest.mark.parametrize("prefetch", [0, 2])
def test_faults_name_the_utterance_and_the_file(utterances, prefetch):
    measured = [replace(u, num_samples=n) for u, n in zip(utterances, LENGTHS, strict=True)]
    victim = measured[4]

    def fault() -> str:
        loader = make_loader(measured, prefetch_batches=prefetch)
        with pytest.raises(InputError) as caught:
            list(loader.batches(0))
        assert victim.id in str(caught.value) and victim.audio in str(caught.value)
        return str(caught.value)

    whole = Path(victim.audio).read_bytes()
    Path(victim.audio).write_bytes(whole[:-100])
    assert "truncated: the header says 2148 frames, the file has 2098" in fault()
    soundfile.write(victim.audio, np.zeros(LENGTHS[4], dtype=np.int16), 8000)
    assert "sample rate 8000 Hz, expected 16000 Hz" in fault()
    soundfile.write(victim.audio, np.zeros(99, dtype=np.int16), RATE)
    assert "99 samples in the audio, 2148 in utt2num_samples" in fault()
    Path(victim.audio).unlink()
    assert "No such file" in fault()
    assert not [t for t in threading.enumerate() if t.name == "read_ahead"]


def test_senseless_options_are_refused(utterances):
    with pytest.raises(InputError, match="no utterances"):
        make_loader([])
    with pytest.raises(InputError, match="batch_seconds 0"):
        make_loader(utterances, batch_seconds=0)
    with pytest.raises(InputError, match=r"speed_factors \[1.0, -1.0\]"):
        make_loader(utterances, speed_factors=(1.0, -1.0))


class Places:
    """Labels that tell which samples they are of: one for each 100 samples of the part."""

    def units_for(self, utterance, *, num_samples, start_samples, part_samples):
        frames = np.arange(part_samples // 100, dtype=np.int64)
        return int(utterance[-3:]) * 10**7 + num_samples * 10**3 + start_samples + 0 * frames


def test_crops_and_their_units_are_of_the_same_place(utterances):
    loader = make_loader(utterances, crop_seconds=0.15, targets=Places(), batch_seconds=0.45)
    by_id = {utterance.id: utterance for utterance in utterances}
    starts = set()
    for epoch in range(3):
        seen = []
        for batch in loader.batches(epoch):
            seen += batch.ids
            for row, key in enumerate(batch.ids):
                whole, _ = soundfile.read(by_id[key].audio, dtype="float32")
                length = int(batch.waveform_lengths[row])
                assert length == min(len(whole), 2400)
                label = int(batch.units[row, 0])
                assert label // 10**7 == int(key[-3:])
                start = label % 10**7 - 10**3 * len(whole)
                assert 0 <= start <= len(whole) - length
                starts.add((key, start))
                samples = batch.waveform[row, :length].numpy()
                np.testing.assert_array_equal(samples, whole[start : start + length])
                assert (batch.units[row, : length // 100] == label).all()
                assert (batch.units[row, length // 100 :] == -1).all()
        assert sorted(seen) == sorted(by_id)
    assert len(starts) > 2 * len(by_id)  # other places in other epochs


def test_crops_stay_when_nothing_is_shuffled_and_resume_in_the_middle(utterances):
    options = {"crop_seconds": 0.12, "targets": Places()}
    loader = make_loader(utterances, shuffle=False, **options)
    first, second = list(loader.batches(0)), list(make_loader(utterances, **options).batches(4))
    assert all(map(same, first, loader.batches(0)))
    rest = make_loader(utterances, **options).batches(4, start=3)
    assert all(map(same, second[3:], rest))


def test_short_utterances_are_left_out(utterances):
    loader = make_loader(utterances, min_seconds=0.15)
    seen = sorted(key for batch in loader.batches(0) for key in batch.ids)
    assert seen == [u.id for u, n in zip(utterances, LENGTHS, strict=True) if n >= 2400]


def test_nothing_long_enough_names_the_longest(utterances):
    said = r"no utterance of 2 s or more, the longest, 'spk008-utt016', has 0\.24 s"
    with pytest.raises(InputError, match=said):
        make_loader(utterances, min_seconds=2)
    with pytest.raises(InputError, match=r"crop_seconds 0\.1 are less than min_seconds 0\.2"):
        make_loader(utterances, min_seconds=0.2, crop_seconds=0.1)


def test_units_and_speed_factors_are_refused_together(utterances):
    with pytest.raises(InputError, match=r"speed_factors \[0\.9, 1\.1\] with labels of frames"):
        make_loader(utterances, speed_factors=(0.9, 1.1), targets=Places())
