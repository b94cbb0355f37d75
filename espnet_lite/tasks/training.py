"""What every training program does around the trainer: experiment folder, processes, record."""

import contextlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from espnet_lite import environment
from espnet_lite.config import check_numbers, to_plain
from espnet_lite.data.data_dir import read_data_dir
from espnet_lite.data.loader import Loader
from espnet_lite.data.text_loader import TextLoader
from espnet_lite.data.utterance_table import UtteranceTable, join_tables
from espnet_lite.errors import REQUEUE, InputError
from espnet_lite.features.cmvn import load_cmvn
from espnet_lite.files import write_text
from espnet_lite.locks import folder_lock
from espnet_lite.numerics import pick_device, use_fast_matmul
from espnet_lite.score.results import read_json
from espnet_lite.train.distributed import joined_processes
from espnet_lite.train.experiment import (
    fingerprint,
    move_aside,
    open_experiment,
    refuse_changed_steps,
)
from espnet_lite.train.trainer import Trainer


@dataclass(frozen=True)
class TextOptions:
    """What a batch of text is made of."""

    batch_tokens: int = 8192  # padded tokens in a batch, <sos/eos> of each sentence counted

    def __post_init__(self):
        check_numbers(self, "batch_tokens", at_least=1)


@dataclass
class Training:
    """What is trained, and on what.

    Attributes:
        config: the program's whole configuration; it has `train`, and for speech `model.front_end`.
        model: batch → Loss, with its first weights.
        inputs: a hash of each kind of input; a training goes on only with the same ones.
        save_beside: writes what else belongs into the experiment folder, given the folder.
        facts: further entries of the training's record.
        tag_option: of a recipe, with which another configuration gets a name of its own.
    """

    config: object
    model: nn.Module
    train_loader: Loader | TextLoader
    dev_loader: Loader | TextLoader
    inputs: dict[str, str | None]
    save_beside: Callable[[Path], None] | None
    facts: dict[str, object]
    tag_option: str = "--exp_tag"


def run_training(
    prepare: Callable[[], Training],
    *,
    expdir: Path,
    config_file: Path,
    fresh: bool,
    device_name: str,
    command: list[str],
    later: Sequence[tuple[Path, object]] = (),
) -> int:
    """Train, or go on training, in `expdir` and return the exit code (0, or 75 to requeue).

    Args:
        prepare: reads configuration and data and builds the model; called in each process.
        expdir: experiment folder.
        config_file: named in the record.
        fresh: move an experiment aside and start anew.
        device_name: auto, cpu or cuda.
        command: the program and its arguments, kept in run.sh and in the record.
        later: folders and configurations of the trainings that go on from this one, in their order:
            they are locked, checked and moved aside with it.

    Raises:
        InputError: anything the user can mend, each with its file or key.
    """
    folders = [expdir, *(folder for folder, _ in later)]
    with joined_processes() as processes, contextlib.ExitStack() as held:
        with processes.first_goes_first():
            if processes.is_first:
                for folder in folders:
                    held.enter_context(folder_lock(folder))
            # All that can fail comes before the old experiment is moved or changed.
            training = prepare()
            options = training.config.train
            device = pick_device(device_name, local_rank=processes.local_rank)
            use_fast_matmul(device)
            if options.threads is not None:
                torch.set_num_threads(options.threads)
            trainer = Trainer(
                training.model,
                options,
                train_loader=training.train_loader,
                dev_loader=training.dev_loader,
                folder=expdir,
                device=device,
                processes=processes,
            )
            if processes.is_first:
                trainer.check_criterion()
                if fresh:
                    for folder in folders:
                        move_aside(folder)
                if later:
                    steps = [(expdir, training.config), *later]
                    refuse_changed_steps(
                        [(folder, to_plain(config)) for folder, config in steps],
                        schema=type(training.config),
                        tag_option=training.tag_option,
                    )
                open_experiment(
                    expdir,
                    to_plain(training.config),
                    training.inputs,
                    command,
                    schema=type(training.config),
                    tag_option=training.tag_option,
                )
                if training.save_beside is not None:
                    training.save_beside(expdir)
                print(f"{expdir}: {_sizes(training)}")
        done = trainer.run()
        if processes.is_first and not done:
            print(f"{expdir}: saved after update {trainer.state.update}; run again to go on")
        if processes.is_first and done:
            record = training_record(training, trainer, config_file=config_file, command=command)
            write_text(expdir / "model.json", json.dumps(record, indent=1) + "\n")
    return 0 if done else REQUEUE


def read_sets(folders: list[Path], *, need_text: bool = True) -> UtteranceTable:
    """Return the utterances of several dump folders."""
    return join_tables([read_data_dir(folder, need_text=need_text) for folder in folders])


def set_cmvn(front_end: nn.Module, options, *, cmvn_file: Path | None) -> None:
    """Give a front end the global statistics of its features, where its `options` ask for them.

    Raises:
        InputError: no file was given, or its statistics are of other features.
    """
    if options.cmvn != "global":
        return
    if cmvn_file is None:
        raise InputError(
            "model.front_end.cmvn is global, but no statistics were given", fix="name --cmvn"
        )
    statistics, features = load_cmvn(cmvn_file)
    if features != options.feature_options():
        raise InputError(
            f"statistics are of {features}, the model's features are {options.feature_options()}",
            where=cmvn_file,
            fix="compute them with this configuration: ./run.sh --stage dump --stop_stage dump",
        )
    front_end.cmvn.set_statistics(statistics)


def data_fingerprints(
    train_dirs: list[Path], dev_dirs: list[Path], *, tables: tuple[str, ...]
) -> dict[str, str | None]:
    """Return a hash of the training and of the validation data, by the named tables."""
    return {
        name: fingerprint([folder / table for folder in folders for table in tables])
        for name, folders in (("train", train_dirs), ("dev", dev_dirs))
    }


def weights_file(pretrained: Path) -> Path:
    """Return the file with the weights of a pre-training, given its folder or that file."""
    return pretrained / "model.safetensors" if pretrained.is_dir() else pretrained


def pretraining_record(pretrained: Path) -> dict[str, object]:
    """Return what a results table says of the pre-training that a training began from.

    Raises:
        InputError: its model.json is damaged.
    """
    record, name = {}, pretrained.stem
    if pretrained.is_dir():
        name = pretrained.name
        if (pretrained / "model.json").is_file():
            record = read_json(pretrained / "model.json")
    kept = ("config", "seed", "updates", "minutes", "core_minutes", "clusters", "pretrained")
    return {"name": name, **{key: record[key] for key in kept if key in record}}


def _sizes(training: Training) -> str:
    """Return in words how large model and data are, and what of the data is left out."""
    parameters = count_parameters(training.model)
    return f"{parameters / 1e6:.2f} M parameters, {training.train_loader.size()}"


def count_parameters(model: nn.Module) -> int:
    """Return the number of weights."""
    return sum(parameter.numel() for parameter in model.parameters())


def training_record(
    training: Training, trainer: Trainer, *, config_file: Path, command: list[str]
) -> dict:
    """Return what a results table says of a training: length, cost, seed, commit, machine."""
    config, state = training.config, trainer.state
    return {
        "config": config_file.name,
        "command": recorded_command(command),
        "seed": config.train.seed,
        "updates": state.update,
        "epochs": state.epoch,
        "minutes": round(state.seconds / 60, 2),
        "core_minutes": round(state.core_seconds / 60, 2),
        **trainer.train_loader.record(state.audio_seconds),
        "criterion": config.train.criterion,
        # JSON has no infinity, which stands for a value that was not finite.
        "best": [[value if math.isfinite(value) else None, n] for value, n in state.best],
        "dev": _dev_metrics(trainer),
        "parameters": count_parameters(training.model),
        "processes": trainer.processes.size,
        "threads": torch.get_num_threads(),  # of each process
        "precision": trainer.precision,
        "date": time.strftime("%Y-%m-%d"),
        **_batch_size(config),
        **training.facts,
        **environment.describe(),
        **_gpu(trainer.device),
    }


def _batch_size(config: object) -> dict[str, float | int]:
    """Return how much data an update takes."""
    data, accumulate = config.data, config.train.accumulate
    if isinstance(data, TextOptions):
        return {"batch_tokens": data.batch_tokens * accumulate}
    return {"batch_seconds": data.batch_seconds * accumulate}


def _gpu(device: torch.device) -> dict[str, str]:
    """Return the name of the GPU that trained, where one did."""
    return {"gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else {}


def _dev_metrics(trainer: Trainer) -> dict[str, float | None]:
    """Return the validation's metrics at the best update, from the log; None: it was not finite."""
    best = trainer.state.best[0][1] if trainer.state.best else None
    for line in reversed((trainer.folder / "train.jsonl").read_text().splitlines()):
        entry = json.loads(line)
        if entry["kind"] == "dev" and entry["update"] == best:
            shown = [key for key in entry if key not in ("kind", "update", "minutes")]
            return {key: entry[key] if math.isfinite(entry[key]) else None for key in shown}
    return {}


def recorded_command(command: list[str]) -> str:
    """Return `python -m PROGRAM ARGUMENT…` as records keep it: without this machine's folders."""
    return " ".join([command[2].rpartition(".")[2], *_without_paths(command[3:])])


def _without_paths(arguments: list[str]) -> list[str]:
    """Return the command line with absolute paths cut to what a recipe folder holds of them."""
    return [
        _within_recipe(Path(argument)) if argument.startswith("/") else argument
        for argument in arguments
    ]


def _within_recipe(path: Path) -> str:
    """Return the path from its last folder conf, data, dump or exp on; without one, its last part."""
    places = [i for i, part in enumerate(path.parts) if part in ("conf", "data", "dump", "exp")]
    return "/".join(path.parts[max(places, default=-1) :])
