"""The profile of a model as JSON: what score/efficiency.py reads."""

from collections.abc import Sequence

from espnet_lite.environment import describe
from espnet_lite.profile.bit_operations import bit_operations, factor_bits
from espnet_lite.profile.macs import SUPERB_RATE, SUPERB_SAMPLES, Shapes, profile_shapes
from espnet_lite.profile.network import Subject
from espnet_lite.profile.timing import Timing
from espnet_lite.runtime.format import file_sha256, read_checked_header, read_packed
from espnet_lite.runtime.packed_model import DECODER_PREFIX


def build_profile(name: str, subject: Subject) -> dict:
    """Return all of a profile but its timings, JSON-able: parameters, bytes, MACs, and what the bits
    of their factors make of them (`estimates`: of no bits known, as those of fp32).

    Of a model at another rate than SUPERB's 16 kHz the utterances last as long.
    """
    rate = subject.front_end.sample_rate
    samples = [count * rate // SUPERB_RATE for count in SUPERB_SAMPLES]
    shapes = profile_shapes(subject, samples)
    by_kind: dict[str, int] = {}
    for utterance in shapes.utterances:
        for kind, macs in utterance.by_kind.items():
            by_kind[kind] = by_kind.get(kind, 0) + macs
    bits = factor_bits(read_checked_header(subject.path)) if subject.source == "packed" else {}
    total, audio_seconds = sum(by_kind.values()), sum(samples) / rate
    return {
        "name": name,
        "source": subject.source,
        "weights": "random" if subject.source == "config" else "trained",
        "vocab": subject.vocab,
        "model": _stored(subject, shapes),
        "parameters": {"total": sum(shapes.parameters.values()), "by_kind": shapes.parameters},
        "macs": {
            "protocol": "SUPERB",
            "audio_seconds": round(audio_seconds, 3),
            "total": total,
            "per_second": round(total / audio_seconds),
            "by_kind": by_kind,
            "utterances": [
                {"samples": utterance.samples, "macs": utterance.total}
                for utterance in shapes.utterances
            ],
        },
        "estimates": bit_operations(shapes.by_module, bits),
        "timings": [],
    }


def with_timings(profile: dict, timings: Sequence[Timing]) -> dict:
    """Return the profile with its timings and the machine they were taken on."""
    plain = [
        {
            "threads": timing.threads,
            "audio_seconds": timing.audio_seconds,
            "rtf": round(timing.rtf, 6),
            "seconds": round(timing.seconds, 6),
            "fastest_seconds": round(timing.fastest_seconds, 6),
            "runs": timing.runs,
            "peak_bytes": timing.peak_bytes,
        }
        for timing in timings
    ]
    return {**profile, "timings": plain, "environment": describe()}


def _stored(subject: Subject, shapes: Shapes) -> dict:
    """Return where the weights are and how many bytes they have.

    `bytes` never count an attention decoder, which is neither timed nor in the MACs; of a model that
    is not packed they are those of its weights in bf16, as stage 7 stores them.
    """
    if subject.source != "packed":
        return {
            "file": subject.path.name,
            "sha256": None,
            "bytes": shapes.bf16_bytes,
            "bytes_of": "bf16 weights",
        }
    _, tensors = read_packed(subject.path)
    decoder = [tensor for name, tensor in tensors.items() if name.startswith(DECODER_PREFIX)]
    decoder_bytes = sum(tensor.nbytes for tensor in decoder)
    return {
        "file": subject.path.name,
        "sha256": file_sha256(subject.path),
        "bytes": subject.path.stat().st_size - decoder_bytes,
        "bytes_of": "file",
        "decoder_bytes": decoder_bytes,
        "decoder_parameters": sum(tensor.numel() for tensor in decoder),
    }
