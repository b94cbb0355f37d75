"""What is profiled: a packed model, an experiment, a pre-trained encoder, or a bare configuration."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from jaxtyping import Float, Int
from torch import Tensor, nn

from espnet_lite.config import build_class, from_plain, read_overridden
from espnet_lite.encoders.families import ENCODERS, check_frame_rate
from espnet_lite.encoders.front_end import FRONT_ENDS
from espnet_lite.errors import InputError
from espnet_lite.models.asr import AsrConfig
from espnet_lite.models.hubert import HubertConfig
from espnet_lite.models.pretrained import load_pretrained_weights, read_pretrained
from espnet_lite.runtime.format import read_checked_header
from espnet_lite.runtime.packed_model import Architecture

HEAD = "ctc_head."
_SECTIONS = ("model", "data", "train")  # of a training's YAML


class Network(nn.Module):
    """Front end, encoder and, of a recognizer, the CTC head: what runs for every frame of speech."""

    def __init__(self, front_end: nn.Module, encoder: nn.Module, *, vocab: int | None):
        super().__init__()
        self.front_end = front_end
        self.encoder = encoder
        self.ctc_head = nn.Linear(encoder.dim, vocab) if vocab else None
        self.eval()

    def forward(
        self, waveform: Float[Tensor, "batch samples"], waveform_lengths: Int[Tensor, "batch"]
    ) -> tuple[Float[Tensor, "batch time _"], Int[Tensor, "batch"]]:
        """Return log-probabilities, or encoded frames without a head; and their lengths."""
        features, lengths = self.front_end(waveform, waveform_lengths, None)
        output = self.encoder(features, lengths)
        if self.ctc_head is None:
            return output.encoded, output.lengths
        return self.ctc_head(output.encoded).log_softmax(dim=-1), output.lengths


@dataclass(frozen=True)
class Subject:
    """A model to be profiled.

    Attributes:
        path: the file or folder given.
        source: "packed", "experiment", "encoder" or "config".
        front_end, encoder: configurations of FRONT_ENDS and ENCODERS.
        vocab: width of the CTC head; None: only front end and encoder are looked at.
    """

    path: Path
    source: str
    front_end: object
    encoder: object
    vocab: int | None


def read_subject(path: Path, *, vocab: int | None = None, overrides: Sequence[str] = ()) -> Subject:
    """Return what is at `path`, without building it.

    Args:
        path: packed model (*.esp), experiment folder, encoder (*.safetensors) or training
            configuration (*.yaml).
        vocab: tokens of a configuration's CTC head; None: it is profiled without.
        overrides: `key.sub=value` of a configuration.

    Raises:
        InputError: no such file, another kind of file, or one that is damaged or too new.
    """
    if path.suffix in (".yaml", ".yml"):
        config = _training_model(path, overrides)
        return Subject(path, "config", config.front_end, config.encoder, vocab)
    if vocab is not None or overrides:
        raise InputError(
            "--vocab and --set are for a training configuration (*.yaml); a model has its own",
            where=path,
        )
    if path.suffix == ".esp":
        header = read_checked_header(path)
        architecture = from_plain(Architecture, header["architecture"], where=path)
        return Subject(
            path, "packed", architecture.front_end, architecture.encoder, architecture.vocab
        )
    if path.is_dir() or path.suffix == ".safetensors":
        weights, plain = read_pretrained(path)
        head = weights.get(f"{HEAD}weight")
        config = _model_config(plain, where=path)
        return Subject(
            path,
            "experiment" if path.is_dir() else "encoder",
            config.front_end,
            config.encoder,
            None if head is None else head.size(0),
        )
    raise InputError(
        "neither a model nor a configuration" if path.exists() else "no such file or folder",
        where=path,
        fix="give a packed model (*.esp), the folder of an experiment, a pre-trained encoder "
        "(*.safetensors) or a training configuration (*.yaml)",
    )


def _training_model(path: Path, overrides: Sequence[str]) -> AsrConfig | HubertConfig:
    """Return the `model` of conf/train_asr*.yaml or conf/pretrain*.yaml."""
    plain = read_overridden(path, list(overrides))
    unknown = [key for key in plain if key not in _SECTIONS]
    if unknown or not isinstance(plain.get("model"), dict):
        what = f"unknown key '{unknown[0]}'" if unknown else "no mapping 'model'"
        raise InputError(
            f"{what}, expected a training configuration of {', '.join(_SECTIONS)}",
            where=path,
            fix="give conf/train_asr*.yaml or conf/pretrain*.yaml",
        )
    return _model_config(plain["model"], where=path)


def _model_config(plain: dict, *, where: Path) -> AsrConfig | HubertConfig:
    """Return the schema filled that the keys of `plain` are those of."""
    known = {
        schema: {field.name for field in fields(schema)} for schema in (AsrConfig, HubertConfig)
    }
    only_hubert = known[HubertConfig] - known[AsrConfig]
    schema = HubertConfig if only_hubert & plain.keys() else AsrConfig
    return from_plain(schema, plain, where=where)


def build_network(
    subject: Subject, *, mode: contextlib.AbstractContextManager | None = None
) -> Network:
    """Return the subject's network in eval mode, weights as initialized.

    Args:
        mode: in which encoder and head are made. In torch's FakeTensorMode they have shapes and no
            memory, whatever their size. The front end is always made in full, as its constants
            (mel filters) are checked by their values.

    Raises:
        InputError: a window in seconds of an encoder that counts on frames of another length.
    """
    mode = mode or contextlib.nullcontext()
    with mode:
        encoder = build_class(ENCODERS, subject.encoder)(subject.encoder)
    front_end = build_class(FRONT_ENDS, subject.front_end)(subject.front_end, dim=encoder.dim)
    check_frame_rate(subject.encoder, front_end.grid)
    with mode:
        return Network(front_end, encoder, vocab=subject.vocab)


def load_network(subject: Subject) -> Network:
    """Return the network of an experiment or encoder with its weights; of a configuration, random.

    Raises:
        InputError: weights that are not those of the configuration beside them.
    """
    network = build_network(subject)
    if subject.source != "config":
        weights, _ = read_pretrained(subject.path)
        load_pretrained_weights(network, weights, where=subject.path)
        if network.ctc_head is not None:
            head = {
                name.removeprefix(HEAD): tensor
                for name, tensor in weights.items()
                if name.startswith(HEAD)
            }
            network.ctc_head.load_state_dict(head)
    return network
