"""Probing what a frozen encoder has learned: joins data, labels, encoder, probe and trainer."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from espnet_lite import environment
from espnet_lite.config import check_numbers, from_plain, load_config, to_plain
from espnet_lite.data.loader import Loader
from espnet_lite.data.utterance_table import Utterance
from espnet_lite.errors import REQUEUE, InputError
from espnet_lite.files import write_text
from espnet_lite.locks import folder_lock
from espnet_lite.models.hubert import HubertConfig, HubertModel
from espnet_lite.models.pretrained import PARTS, read_pretrained
from espnet_lite.models.probe import (
    CtcProbe,
    EncoderUpstream,
    FbankUpstream,
    HiddenStates,
    PhoneProbe,
    Upstream,
)
from espnet_lite.numerics import pick_device, use_fast_matmul
from espnet_lite.tasks.hubert import PretrainConfig, load_pretrained
from espnet_lite.tasks.phone_targets import PhoneTargets
from espnet_lite.tasks.training import data_fingerprints, read_sets, set_cmvn
from espnet_lite.text.tokenizer import TOKENIZER_FILES, Tokenizer
from espnet_lite.train.experiment import fingerprint, move_aside, open_experiment
from espnet_lite.train.options import TrainOptions
from espnet_lite.train.trainer import Trainer
from espnet_lite.units.textgrid import find_textgrids, read_phones

TASKS = ("phones", "ctc")
_RESULT_DIGITS = 5


@dataclass(frozen=True)
class ProbeConfig:
    """How a probe is trained; kept as config.yaml in its folder."""

    upstream: str  # experiment or file of a pre-training | random:PATH | fbank | fbank:MS
    task: str = "phones"  # phones: of each frame | ctc: tokens of the text
    test_speakers: tuple[str, ...] = ()  # left out of the training, to test on
    normalize_layers: bool = False  # each frame of each layer to mean 0, variance 1; SUPERB: no
    batch_seconds: float = 60.0  # padded seconds in a batch
    sample_rate: int = 16000  # Hz, of fbank; an encoder knows its own
    train: TrainOptions = field(default_factory=TrainOptions)

    def __post_init__(self):
        if self.task not in TASKS:
            raise ValueError(f"task '{self.task}' is not one of {', '.join(TASKS)}")
        check_numbers(self, "batch_seconds", above=0)
        check_numbers(self, "sample_rate", at_least=1000)


def probe_options(*, updates: int, lr: float, seed: int) -> dict:
    """Return plain train options by which the last update is the result: test data chooses nothing."""
    return {
        "updates": updates,
        "seed": seed,
        "precision": "fp32",
        "optimizer": {"name": "adamw", "lr": lr, "weight_decay": 0.0},
        "schedule": {"name": "warmup_linear", "warmup_updates": updates // 10},
        "log_every": max(1, updates // 10),
        "validate_every": updates,
        "save_every": updates,
        "average_best": 1,
    }


def load_upstream(
    name: str, *, seed: int, sample_rate: int, cmvn_file: Path | None, device: torch.device
) -> Upstream:
    """Return what `name` says, computing on `device`.

    Args:
        name: the experiment folder or file of a pre-training; `random:` before one of these, or
            before a pretrain*.yaml, is the same model with random weights; `fbank` has frames of
            40 ms, `fbank:20` of 20 ms.
        seed: of random weights.
        sample_rate: of fbank, in Hz.
        cmvn_file: statistics, for a random model of a YAML file with global CMVN.
        device: where it computes.

    Raises:
        InputError: no such model.
    """
    kind, _, rest = name.partition(":")
    if kind == "fbank":
        frame_ms = rest or "40"
        if not frame_ms.isdecimal() or int(frame_ms) == 0 or int(frame_ms) % 10:
            raise InputError(f"'{name}' has no frames of 10, 20, … ms", where="--upstream")
        return FbankUpstream(sample_rate, frame_ms=int(frame_ms)).to(device)
    if kind == "random":
        model = _random_model(Path(rest), seed=seed, cmvn_file=cmvn_file)
    else:
        model = load_pretrained(Path(name))
    model = model.to(device).eval()
    return EncoderUpstream(
        model.encode,
        grid=model.front_end.grid,
        layers=model.config.encoder.layers + 1,
        dim=model.encoder.dim,
    )


def _random_model(path: Path, *, seed: int, cmvn_file: Path | None) -> HubertModel:
    """Return a model with random weights, and the CMVN of the pre-trained one where it is of one."""
    weights = None
    if path.suffix in (".yaml", ".yml"):
        config = load_config(path, PretrainConfig).model
    else:
        weights, plain = read_pretrained(path)
        config = from_plain(HubertConfig, {part: plain[part] for part in PARTS}, where=path)
    torch.manual_seed(seed)
    model = HubertModel(config, clusters=1)
    if weights is None:
        set_cmvn(model.front_end, config.front_end, cmvn_file=cmvn_file)
    else:
        cmvn = {name: w for name, w in weights.items() if name.startswith("front_end.cmvn.")}
        model.load_state_dict(cmvn, strict=False)
    return model


def split_sets(
    data_dirs: list[Path],
    test_dirs: list[Path],
    *,
    test_speakers: Sequence[str],
    need_text: bool,
) -> tuple[list[Utterance], list[Utterance]]:
    """Return utterances to train and to test on, which share no speaker.

    Args:
        data_dirs: dump folders.
        test_dirs: dump folders to test on; none where `test_speakers` are given.
        test_speakers: they are left out of `data_dirs` and tested on.
        need_text: whether every utterance must have a text.

    Raises:
        InputError: both or neither are given, no such speaker, or a speaker in both sets.
    """
    if bool(test_dirs) == bool(test_speakers):
        found = "both" if test_dirs else "neither"
        raise InputError(f"expected one of --test_dirs and --test_speakers, found {found}")
    train = list(read_sets(data_dirs, need_text=need_text))
    speakers = {utterance.speaker for utterance in train}
    if test_speakers:
        missing = [speaker for speaker in test_speakers if speaker not in speakers]
        if missing:
            raise InputError(f"no utterance of speaker '{missing[0]}'", where="--test_speakers")
        if speakers == set(test_speakers):
            raise InputError("no speaker is left to train on", where="--test_speakers")
        test = [utterance for utterance in train if utterance.speaker in test_speakers]
        return [utterance for utterance in train if utterance.speaker not in test_speakers], test
    test = list(read_sets(test_dirs, need_text=need_text))
    shared = sorted(speakers & {utterance.speaker for utterance in test})
    if shared:
        raise InputError(
            f"speakers to train and to test on: {', '.join(shared[:5])}{', …' * (len(shared) > 5)}",
            where="--test_dirs",
            fix="leave some speakers out of --data_dirs with --test_speakers NAMES",
        )
    return train, test


@dataclass
class _Labels:
    """Whom to train and test on, and what is to be told of them."""

    train: list[Utterance]
    test: list[Utterance]
    classes: int
    files: list[Path]  # that they are read from
    targets: PhoneTargets | None = None
    tokenizer: Tokenizer | None = None


def _phone_labels(
    train: list[Utterance], test: list[Utterance], upstream: Upstream, folder: Path | None
) -> _Labels:
    """Return phones of frames; utterances without an alignment are left out."""
    if folder is None:
        raise InputError(
            "--task phones needs alignments", fix="name their folder: --alignments DIR"
        )
    found = find_textgrids([folder])
    kept = [[u for u in part if u.id in found] for part in (train, test)]
    for name, part, aligned in zip(("train", "test"), (train, test), kept, strict=True):
        if not aligned:
            raise InputError(
                f"no alignment of the {len(part)} utterances to {name} on, expected for example"
                f" {part[0].id}.TextGrid",
                where=folder,
            )
        if len(aligned) < len(part):
            print(
                f"{folder}: {len(aligned)} of {len(part)} utterances to {name} on have alignments"
            )
    paths = {u.id: found[u.id] for part in kept for u in part}
    targets = PhoneTargets(
        {name: read_phones(path) for name, path in paths.items()}, grid=upstream.grid
    )
    return _Labels(*kept, len(targets.phones), list(paths.values()), targets=targets)


def _token_labels(train: list[Utterance], test: list[Utterance], folder: Path | None) -> _Labels:
    if folder is None:
        raise InputError("--task ctc needs tokens", fix="name make_tokens' folder: --tokenizer DIR")
    tokenizer = Tokenizer.load(folder)
    files = [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
    return _Labels(train, test, tokenizer.vocab, files, tokenizer=tokenizer)


def train_probe(
    config: ProbeConfig,
    *,
    data_dirs: list[Path],
    test_dirs: list[Path],
    alignments_dir: Path | None,
    tokenizer_dir: Path | None,
    cmvn_file: Path | None,
    output: Path,
    fresh: bool,
    device_name: str,
    command: list[str],
) -> int:
    """Train a probe in `output`, write probe.json there and return the exit code (0, 75 to requeue).

    Raises:
        InputError: anything the user can mend, each with its file or option.
    """
    with folder_lock(output):
        device = pick_device(device_name)
        use_fast_matmul(device)
        train, test = split_sets(
            data_dirs,
            test_dirs,
            test_speakers=config.test_speakers,
            need_text=config.task == "ctc",
        )
        upstream = load_upstream(
            config.upstream,
            seed=config.train.seed,
            sample_rate=config.sample_rate,
            cmvn_file=cmvn_file,
            device=device,
        )
        by_phones = config.task == "phones"
        labels = (
            _phone_labels(train, test, upstream, alignments_dir)
            if by_phones
            else _token_labels(train, test, tokenizer_dir)
        )
        states = HiddenStates(upstream, normalize=config.normalize_layers)
        torch.manual_seed(config.train.seed)
        probe = (PhoneProbe if by_phones else CtcProbe)(states, classes=labels.classes)
        train_loader, test_loader = (
            Loader(
                utterances,
                labels.tokenizer,
                sample_rate=upstream.grid.sample_rate,
                batch_seconds=config.batch_seconds,
                seed=config.train.seed,
                shuffle=shuffle,
                targets=labels.targets,
            )
            for utterances, shuffle in ((labels.train, True), (labels.test, False))
        )
        trainer = Trainer(
            probe,
            config.train,
            train_loader=train_loader,
            dev_loader=test_loader,
            folder=output,
            device=device,
        )
        inputs = data_fingerprints(data_dirs, test_dirs, tables=("wav.scp", "utt2spk"))
        inputs["labels"] = fingerprint(labels.files)
        inputs["upstream"] = _upstream_fingerprint(config.upstream)
        inputs["cmvn"] = fingerprint([cmvn_file]) if cmvn_file else None
        if fresh:
            move_aside(output)
        open_experiment(output, to_plain(config), inputs, command)
        if not trainer.run():
            print(f"{output}: saved after update {trainer.state.update}; run again to go on")
            return REQUEUE
        result = probe_result(config, trainer, probe)
        write_text(output / "probe.json", json.dumps(result, indent=1) + "\n")
        print(json.dumps(result, indent=1))
        return 0


def _upstream_fingerprint(name: str) -> str | None:
    """Return a hash of what the upstream is read from; None for fbank."""
    kind, _, rest = name.partition(":")
    if kind == "fbank":
        return None
    path = Path(rest if kind == "random" else name)
    return fingerprint([path / "model.safetensors" if path.is_dir() else path])


def probe_result(config: ProbeConfig, trainer: Trainer, probe: PhoneProbe | CtcProbe) -> dict:
    """Return what a results table says of a probe; metrics are of the test utterances."""
    upstream = probe.states.upstream
    metrics = {name: round(value, _RESULT_DIGITS) for name, value in trainer.evaluate().items()}
    described = {}
    for name, loader in (("train", trainer.train_loader), ("test", trainer.dev_loader)):
        described[name] = {
            "utterances": len(loader.utterances),
            "speakers": len({utterance.speaker for utterance in loader.utterances}),
            "minutes": round(int(loader.num_samples.sum()) / loader.sample_rate / 60, 2),
        }
    return {
        "upstream": config.upstream,
        "task": config.task,
        **metrics,
        "layer_weights": [round(w, _RESULT_DIGITS) for w in probe.layer_sum.weights().tolist()],
        "normalize_layers": config.normalize_layers,
        "frame_ms": upstream.grid.frame_ms,
        "dim": upstream.dim,
        "classes": probe.head.out_features,
        **described,
        "updates": trainer.state.update,
        "lr": config.train.optimizer.lr,
        "seed": config.train.seed,
        "minutes": round(trainer.state.seconds / 60, 2),
        "date": time.strftime("%Y-%m-%d"),
        **environment.describe(),
    }
