"""The error analysis of a quantized recognizer on a labelled set: networks run, sums and intervals made."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from espnet_lite.config import from_plain, name_of, to_plain
from espnet_lite.data.loader import Loader
from espnet_lite.data.utterance_table import UtteranceTable
from espnet_lite.decode.greedy import ctc_greedy
from espnet_lite.encoders.families import ENCODERS
from espnet_lite.errors import InputError
from espnet_lite.models.pretrained import architecture_differences
from espnet_lite.quantize.analysis import (
    KINDS,
    Disturbance,
    LayerNoise,
    Outcome,
    Recording,
    UnitErrors,
    find_units,
    hybrid,
    record,
    subsets,
    transcript_loss,
)
from espnet_lite.runtime.packed_model import Architecture, PackedModel
from espnet_lite.score.alignment import align
from espnet_lite.score.bootstrap import drawn_sums
from espnet_lite.score.transcripts import words
from espnet_lite.tasks.quantize import load_recognizer, read_trained
from espnet_lite.text.tokenizer import Tokenizer

DRAWS = 10_000  # of speakers, for intervals
MEASURES = (
    "wer",
    "disagreement",
    "loss_ctc",
)  # percent of words, percent of frames, nats an utterance
NOTHING, EVERYTHING = "reference", "quantized"
CLAIMED, OTHER = "attention+convolution", "attention+feed_forward"  # pairs of kinds


@dataclass(frozen=True)
class Network:
    """A recognizer to compare.

    Attributes:
        model: in evaluation mode.
        tokenizer: its.
        sample_rate: Hz.
        architecture: configuration with its front end and encoder.
        is_quantized: whether something of it is.
        method: "training" or "post-training", as far as it is known of a quantized one.
    """

    model: nn.Module
    tokenizer: Tokenizer
    sample_rate: int
    architecture: object
    is_quantized: bool
    method: str | None


def load_network(path: Path) -> Network:
    """Return the recognizer of a packed file or of an experiment folder, quantized or not."""
    if path.is_dir():
        model = load_recognizer(path)
        is_quantized = bool(read_trained(path).rules)
        return Network(
            model=model,
            tokenizer=Tokenizer.load(path / "tokenizer"),
            sample_rate=model.config.front_end.sample_rate,
            architecture=model.config,
            is_quantized=is_quantized,
            method="training" if is_quantized else None,
        )
    packed = PackedModel.load(path)
    return Network(
        model=packed,
        tokenizer=packed.tokenizer,
        sample_rate=packed.sample_rate,
        architecture=from_plain(Architecture, packed.header["architecture"], where=path),
        is_quantized=bool(packed.header.get("quantized")),
        method=packed.header.get("policy", {}).get("method"),
    )


def check_pair(
    reference: Network, reference_path: Path, quantized: Network, quantized_path: Path, *, rule: str
) -> None:
    """Raise unless the two can be compared and the reference is what `rule` says, as far as it is known.

    Args:
        reference: of the floating-point recognizer.
        reference_path: where it was read from.
        quantized: of the recognizer in few bits.
        quantized_path: where it was read from.
        rule: "own", what it was made from after its training, or "teacher", what it was trained from.

    Raises:
        InputError: a quantized reference, another architecture or table of tokens, or another rule.
    """
    if reference.is_quantized:
        raise InputError(
            "is quantized, expected the reference in floating point",
            where=reference_path,
            fix="give the recognizer that the quantized one was made from, or its first step's teacher",
        )
    right = {"training": "teacher", "post-training": "own"}.get(quantized.method, rule)
    if rule != right:
        raise InputError(
            f"{rule}, but {quantized_path} was quantized by {quantized.method}",
            where="--rule",
            fix=f"give --rule {right} and that reference",
        )
    differing = architecture_differences(
        to_plain(reference.architecture),
        to_plain(quantized.architecture),
        reference.architecture,
        where=quantized_path,
    )
    tokens, others = reference.tokenizer.tokens, quantized.tokenizer.tokens
    if len(tokens) != len(others):
        differing.append(f"{len(others)} tokens, not {len(tokens)}")
    elif tokens != others:
        number = next(i for i, token in enumerate(tokens) if token != others[i])
        differing.append(f"token {number} {others[number]!r}, not {tokens[number]!r}")
    if differing:
        raise InputError(
            f"is another network than the reference {reference_path}: {', '.join(differing)}",
            where=quantized_path,
            fix="give the recognizer that it was made from",
        )


def described(
    reference: Network, reference_path: Path, quantized: Network, quantized_path: Path
) -> dict[str, object]:
    """Return what is compared: files by name, encoder and policy."""
    policy = quantized_path.stem
    if quantized_path.is_file():
        policy = quantized.model.header.get("policy", {}).get("name", policy)
    return {
        "reference": reference_path.name,
        "quantized": quantized_path.name,
        "encoder": name_of(ENCODERS, reference.model.encoder.config),
        "policy": policy,
    }


@dataclass(frozen=True)
class Spoken:
    """One utterance: waveform (samples), token ids, text and speaker."""

    waveform: Tensor
    tokens: Tensor
    text: str
    speaker: str


def spoken(utterances: UtteranceTable, network: Network) -> Iterator[Spoken]:
    """Yield labelled utterances with their audio."""
    loader = Loader(
        utterances,
        network.tokenizer,
        sample_rate=network.sample_rate,
        batch_seconds=1e-3,  # each alone
        seed=0,
        shuffle=False,
    )
    by_id = {utterance.id: utterance for utterance in utterances}
    for batch in loader.batches(0):
        [name] = batch.ids
        yield Spoken(batch.waveform[0], batch.tokens[0], by_id[name].text, by_id[name].speaker)


def analyze(
    reference: Network, quantized: Network, utterances: UtteranceTable, *, where: object
) -> dict[str, object]:
    """Return the analysis, JSON-able.

    Keys: `units` (own, propagated, interaction and total error of each), `layers_sqnr_db`, `disturbance`
    ({kind quantized: {kind of unit: relative error of its output}}), `ablation` ({kinds quantized:
    measures with intervals}), `synergy` ({pair of kinds: measures with intervals}), `verdict`,
    `utterances`, `speakers`.

    Raises:
        InputError: nothing of the set can be heard.
    """
    units = find_units(reference.model)
    kinds = [kind for kind in KINDS if kind in units.values()]
    mixtures = subsets(kinds)
    errors, noise = UnitErrors(reference.model, quantized.model), LayerNoise()
    disturbances = {kind: Disturbance(units) for kind in kinds}
    names = [NOTHING, *map("+".join, mixtures), EVERYTHING]
    outcomes: dict[str, list[Outcome]] = {name: [] for name in names}
    speakers = []
    for one in spoken(utterances, reference):
        of_reference = record(reference.model, one.waveform, list(units))
        if not len(of_reference.log_probs):
            continue
        of_quantized = record(quantized.model, one.waveform, list(units))
        errors.add(of_reference, of_quantized)
        noise.add(of_reference, of_quantized)
        found = {NOTHING: of_reference, EVERYTHING: of_quantized}
        for mixture in mixtures:
            with hybrid(reference.model, quantized.model, mixture) as mixed:
                is_single = len(mixture) == 1
                found["+".join(mixture)] = record(
                    mixed, one.waveform, list(units) if is_single else ()
                )
        for kind, disturbance in disturbances.items():
            disturbance.add(of_reference, found[kind])
        for name, recording in found.items():
            outcomes[name].append(_outcome(recording, of_reference, one, reference.tokenizer))
        speakers.append(one.speaker)
    if not speakers:
        raise InputError("no utterance of the set is long enough for a frame", where=where)
    values = _drawn_values({name: _sums(of_all, speakers) for name, of_all in outcomes.items()})
    synergy = _synergies(values, kinds)
    return {
        "units": [asdict(error) for error in errors.errors()],
        "layers_sqnr_db": [round(value, 3) for value in noise.sqnr_db()],
        "disturbance": {kind: one.relative() for kind, one in disturbances.items()},
        "ablation": {
            name: {measure: _interval(values[name][measure]) for measure in MEASURES}
            for name in names
        },
        "synergy": synergy,
        "verdict": verdict(synergy),
        "utterances": len(speakers),
        "speakers": len(set(speakers)),
    }


def _outcome(found: Recording, reference: Recording, one: Spoken, tokenizer: Tokenizer) -> Outcome:
    frames = len(found.log_probs)
    [tokens] = ctc_greedy(found.log_probs[None], torch.tensor([frames]))
    counts = align(words(one.text), words(tokenizer.decode(tokens))).counts
    same = found.log_probs.argmax(dim=-1) == reference.log_probs.argmax(dim=-1)
    return Outcome(
        errors=counts.errors,
        words=counts.tokens,
        disagreeing=frames - int(same.sum()),
        frames=frames,
        loss_ctc=transcript_loss(found.log_probs, one.tokens),
    )


# What a measure is a ratio of: fields of an outcome, and a factor.
_RATIOS = {
    "wer": ("errors", "words", 100.0),
    "disagreement": ("disagreeing", "frames", 100.0),
    "loss_ctc": ("loss_ctc", None, 1.0),
}


def _sums(outcomes: Sequence[Outcome], speakers: Sequence[str]) -> np.ndarray:
    """Return what the measures are ratios of, summed by speaker: [measure, above and below, speaker]."""
    order = {speaker: index for index, speaker in enumerate(sorted(set(speakers)))}
    sums = np.zeros((len(MEASURES), 2, len(order)))
    for outcome, speaker in zip(outcomes, speakers, strict=True):
        values = asdict(outcome)
        for measure, (above, below, _) in enumerate(_RATIOS[name] for name in MEASURES):
            sums[measure, :, order[speaker]] += values[above], values[below] if below else 1
    return sums


def _drawn_values(sums: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Return `{network: {measure: its values}}`: the first value is that of the set itself, the others are
    those of draws of speakers, the same ones for all networks and measures."""
    stacked = np.stack(list(sums.values()))
    flat = stacked.reshape(-1, stacked.shape[-1])
    drawn = np.hstack([flat.sum(axis=1, keepdims=True), drawn_sums(flat, draws=DRAWS, seed=0)])
    drawn = drawn.reshape(*stacked.shape[:-1], -1)
    return {
        name: {
            measure: _RATIOS[measure][2] * above / np.maximum(below, 1)
            for measure, (above, below) in zip(MEASURES, of_network, strict=True)
        }
        for name, of_network in zip(sums, drawn, strict=True)
    }


def _interval(values: np.ndarray) -> dict[str, float]:
    """Return the value of the set and the bounds that hold 95 % of the draws."""
    low, high = np.percentile(values[1:], [2.5, 97.5])
    numbers = {"value": values[0], "low": low, "high": high}
    return {name: round(float(number), 5) for name, number in numbers.items()}


def _synergies(
    values: dict[str, dict[str, np.ndarray]], kinds: Sequence[str]
) -> dict[str, dict[str, dict[str, float]]]:
    """Return of each pair of kinds what both lose together beyond what each loses alone, and of the
    first two pairs with attention their difference, convolution's less feed-forward's."""
    of_pairs: dict[str, dict[str, np.ndarray]] = {}
    for first, second in (pair for pair in subsets(kinds) if len(pair) == 2):
        of_pairs[f"{first}+{second}"] = {
            measure: values[f"{first}+{second}"][measure]
            - values[first][measure]
            - values[second][measure]
            + values[NOTHING][measure]
            for measure in MEASURES
        }
    found = {
        pair: {measure: _interval(of_pair) for measure, of_pair in measures.items()}
        for pair, measures in of_pairs.items()
    }
    if {CLAIMED, OTHER} <= of_pairs.keys():
        found[f"{CLAIMED} - {OTHER}"] = {
            measure: _interval(of_pairs[CLAIMED][measure] - of_pairs[OTHER][measure])
            for measure in MEASURES
        }
    return found


def verdict(synergy: dict) -> str:
    """Return what the synergies say of the hypothesis that errors of quantized attention and quantized
    convolution make each other worse: supported, not supported, undecided, or "no convolution".

    By the CTC loss, which tells most: supported if both together lose more than each alone, by a
    95 % interval, and by more than attention and feed-forward do; not supported if an interval says the
    contrary of either; else undecided.
    """
    if CLAIMED not in synergy:
        return "no convolution"
    claims = [synergy[key]["loss_ctc"] for key in (CLAIMED, f"{CLAIMED} - {OTHER}")]
    if all(claim["low"] > 0 for claim in claims):
        return "supported"
    return "not supported" if any(claim["high"] < 0 for claim in claims) else "undecided"
