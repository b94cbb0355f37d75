"""The training loop of every model: batch → Loss is all it knows of the model."""

import contextlib
import math
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from espnet_lite.config import build_class
from espnet_lite.data.loader import Loader
from espnet_lite.data.text_loader import TextBatch, TextLoader
from espnet_lite.data.utterance import Batch
from espnet_lite.errors import InputError
from espnet_lite.numerics import pick_precision
from espnet_lite.train.averages import Averages
from espnet_lite.train.checkpoint import (
    average_weights,
    checkpoints,
    folder_name,
    is_sharded,
    keep_last,
    load_checkpoint,
    save_checkpoint,
    save_weights,
)
from espnet_lite.train.distributed import ALONE, Processes
from espnet_lite.train.freezing import parameters_of
from espnet_lite.train.log import NoLog, TrainLog, duration
from espnet_lite.train.optimizers import OPTIMIZERS, parameter_groups
from espnet_lite.train.options import TrainOptions
from espnet_lite.train.schedules import SCHEDULES

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
_DROPOUT = 0x5D0  # keeps dropout's numbers apart from those that the model draws with batch.seed


@dataclass
class TrainState:
    """All that is needed, beside weights, optimizer and generators, to go on to the bit."""

    update: int = 0
    epoch: int = 0
    position: int = 0  # batches of this epoch already used, by all processes
    seconds: float = 0.0  # wall time, validations and checkpoints included
    core_seconds: float = 0.0  # processor time of all processes
    audio_seconds: float = 0.0  # seen, unpadded; where the loader reads text, tokens
    since_best: int = 0  # validations without a new best
    best: list[list[float | int]] = field(default_factory=list)  # [criterion, update], best first
    sums: dict[str, list[float]] = field(default_factory=dict)  # since the last log line


class Trainer:
    """Trains `model` on `train_loader`, keeps what is needed to resume, averages the best.

    An update takes `options.accumulate` batches, however many processes share them: process r of n
    takes batches r, r + n, … of each update. Gradients are summed and divided by the number of
    items in all of them, and each batch brings the seed of all that is random in its forward pass,
    so the training is the same with any number of processes, up to the order of sums, and may be
    resumed with another number. Not so with nn.batch_norm, as in Conformer: it normalizes together
    the batches that the processes hold at the same moment.

    Frozen parts of the model get no gradient, no weight decay and no state of the optimizer, and
    no backward pass goes through them; their dropout and SpecAugment stay on, as in fairseq.

    With `options.sharding` each of several processes holds a share of the parameters, and trains the
    same. One process alone has nothing to share.
    """

    def __init__(
        self,
        model: nn.Module,
        options: TrainOptions,
        *,
        train_loader: Loader | TextLoader,
        dev_loader: Loader | TextLoader,
        folder: Path,
        device: torch.device,
        processes: Processes = ALONE,
    ):
        """Freeze what is not trained from the start and give the optimizer all that ever is.

        Raises:
            InputError: the processes cannot share an update's batches evenly, a part to freeze is
                unknown, or nothing is left to train.
        """
        if options.accumulate % processes.size:
            raise InputError(
                f"{options.accumulate} batches per update cannot be shared by {processes.size} "
                "processes",
                where="train.accumulate",
                fix=f"--set train.accumulate={processes.size} and a smaller data.batch_seconds keep"
                " the size of an update",
            )
        self.model = model.to(device)
        self.processes = processes
        self.options = options
        self.is_sharded = options.sharding == "fsdp" and processes.size > 1  # once `run` has begun
        self.train_loader = train_loader
        self.dev_loader = dev_loader
        self.folder = folder
        self.device = device
        self.precision = pick_precision(options.precision, device)
        for parameter in parameters_of(model, options.frozen_parts, where="train.frozen_parts"):
            parameter.requires_grad_(False)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        groups = parameter_groups(
            model,
            options.optimizer.weight_decay,
            layer_decay=options.optimizer.layer_decay,
            scale_lr_factor=options.optimizer.scale_lr_factor,
        )
        self.optimizer = build_class(OPTIMIZERS, options.optimizer)(options.optimizer, groups)
        self._waiting = self._freeze_for_now()  # parameters that are trained later
        self.schedule = build_class(SCHEDULES, options.schedule)(options.schedule)
        self.state = TrainState()
        self._shared_model: nn.Module = self.model  # what is called: exchanges gradients
        self.stop_signal = 0  # number of the signal that asked to stop
        self._clock = (0.0, 0.0)
        self._interval = {"wall": 0.0, "wait": 0.0, "audio": 0.0}

    def run(self) -> bool:
        """Train to `options.updates`, or to the last update before a stop signal.

        Returns:
            True when done (`model.safetensors` holds the average of the best checkpoints), False
            when a signal of STOP_SIGNALS asked to stop: the state is saved, run again to go on.

        Raises:
            InputError: the loss or its gradient is not finite; names the module whose weights are
                not, or else the utterances.
        """
        if self.is_sharded:
            self._shard()
        self._resume()
        begun = self.state.update
        first = self.processes.is_first
        log = TrainLog(self.folder, update=self.state.update) if first else NoLog()
        handlers = {number: signal.signal(number, self._on_signal) for number in STOP_SIGNALS}
        try:
            done = self._train(log)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            log.close()
        path = self.folder / "model.safetensors"
        # One that was done before is left as it is: what was made of it is not stale then.
        if done and first and not (begun == self.state.update and path.is_file()):
            save_weights(path, self._average())
        return done

    def _freeze_for_now(self) -> list[nn.Parameter]:
        """Freeze `freeze_parts` and return their parameters that are to be trained later."""
        parts = parameters_of(self.model, self.options.freeze_parts, where="train.freeze_parts")
        waiting = [p for p in parts if p.requires_grad]
        for parameter in waiting:
            parameter.requires_grad_(False)
        if not any(p.requires_grad for p in self.parameters):
            raise InputError(
                "nothing of the model is left to train",
                where="train.freeze_parts" if waiting else "train.frozen_parts",
                fix="name fewer parts",
            )
        return waiting

    @cached_property
    def _sharding(self) -> ModuleType:
        """Return the module of what differs with shares; importing it takes most of a second."""
        from espnet_lite.train import sharding

        return sharding

    @cached_property
    def _sharded_checkpoint(self) -> ModuleType:
        from espnet_lite.train import sharded_checkpoint

        return sharded_checkpoint

    def _shard(self) -> None:
        """Split the model over the processes, and put its new parameters where the old ones were."""
        new = self._sharding.shard(self.model, self.device)
        for group in self.optimizer.param_groups:  # without state yet
            group["params"] = [new[parameter] for parameter in group["params"]]
        self.parameters = [new[parameter] for parameter in self.parameters]
        self._waiting = [new[parameter] for parameter in self._waiting]

    def _share(self) -> None:
        """Thaw what is due and make what is called anew, so that it exchanges those gradients too."""
        if self.state.update >= self.options.freeze_updates:
            for parameter in self._waiting:
                parameter.requires_grad_(True)
            self._waiting = []
        if not self.is_sharded:
            self._shared_model = self.processes.shared(self.model, self.device)

    def _train(self, log: TrainLog | NoLog) -> bool:
        state, options = self.state, self.options
        self._start_clock()
        stream = self._stream()
        self._share()
        self.model.train()
        saved = state.update
        while state.update < options.updates and not self._out_of_patience():
            if self._waiting and state.update == options.freeze_updates:
                self._share()
            norm = self._update(stream)
            if state.update % options.log_every == 0:
                self._log_training(log, norm)
            if state.update % options.validate_every == 0 or state.update == options.updates:
                self._validate(log)
            at_end = state.update == options.updates
            stop = int(self.processes.largest([self.stop_signal])[0])
            if state.update % options.save_every == 0 or at_end or stop:
                self._save()
                saved = state.update
            if stop:
                log.show(f"stopped by signal {stop} after update {state.update}, saved")
                return False
        if saved != state.update:
            self._save()
        return True

    def _stream(self) -> Iterator[Batch | TextBatch]:
        """Yield this process's batches for ever, from the place of the state on."""
        rank, size = self.processes.rank, self.processes.size
        epoch, position = self.state.epoch, self.state.position
        turn = 0  # whose the batch at `position` is
        while True:
            mine = position + (rank - turn) % size
            yield from self.train_loader.batches(epoch, start=mine, step=size)
            turn = (turn + self.train_loader.num_batches(epoch) - position) % size
            epoch, position = epoch + 1, 0

    def _advance(self) -> None:
        """Move the place in the data on by the batches of an update."""
        state = self.state
        state.position += self.options.accumulate
        while state.position >= (batches := self.train_loader.num_batches(state.epoch)):
            state.epoch, state.position = state.epoch + 1, state.position - batches

    def _update(self, stream: Iterator[Batch | TextBatch]) -> float:
        """Do one update from `accumulate` batches and return the norm of the gradient."""
        started, averages = time.perf_counter(), Averages()
        batches = self._read(stream)
        total, count, names = 0.0, 0, []
        for number, batch in enumerate(batches, start=1):
            # Gradients are exchanged once an update, while the last batch's are computed.
            with self._alone() if number < len(batches) else contextlib.nullcontext():
                loss = self._forward(batch.to(self.device))
                loss.total.backward()
            averages.add(loss.metrics)
            total += float(loss.total.detach())
            count += loss.count
            names += batch.ids
        audio = float(sum(self.train_loader.amount(batch) for batch in batches))
        total, count, audio = self._sum_up(averages, total, count, audio)
        if not count:
            self._refuse(
                "no frame or utterance to learn from",
                names,
                fix="leave out utterances this short (data.min_seconds): no frame was masked in them",
            )
        self._interval["audio"] += audio
        self.state.audio_seconds += audio
        norm = self._step(total / count, count, names)
        self._advance()
        self._interval["wall"] += time.perf_counter() - started
        return norm

    def _read(self, stream: Iterator[Batch | TextBatch]) -> list[Batch | TextBatch]:
        """Return this process's batches of an update; all processes end when one cannot read."""
        asked, batches, fault = time.perf_counter(), [], None
        try:
            for _ in range(self.options.accumulate // self.processes.size):
                batches.append(next(stream))
        except InputError as error:
            fault = error
        self.processes.fail_together(fault)
        self._interval["wait"] += time.perf_counter() - asked
        return batches

    def _forward(self, batch: Batch | TextBatch):
        # Dropout draws from torch's generator: seeded by the batch, it is the same in any process.
        torch.manual_seed(batch.seed ^ _DROPOUT)
        with self._autocast():
            return self._shared_model(batch)

    def _alone(self) -> contextlib.AbstractContextManager:
        """Return a context in which gradients stay in this process.

        Not where they are sharded: each batch's are summed into shares, so that none is held whole.
        """
        if self.processes.size == 1 or self.is_sharded:
            return contextlib.nullcontext()
        return self._shared_model.no_sync()

    def _sum_up(self, averages: Averages, *values: float | int) -> list[float | int]:
        """Return the values summed over all processes; add the metrics of all to the state."""
        names = sorted(averages.sums)
        flat = [part for name in names for part in averages.sums[name]]
        sums = self.processes.sums([*values, *flat])
        pairs = zip(sums[len(values) :: 2], sums[len(values) + 1 :: 2], strict=True)
        held = Averages(self.state.sums)
        held.add(dict(zip(names, pairs, strict=True)))
        self.state.sums = held.state()
        return sums[: len(values)]

    def _step(self, loss: float, count: float | int, names: list[str]) -> float:
        """Divide the gradient by the items it sums over, clip it, and step."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        if self.is_sharded:
            gradients = [self._sharding.local(gradient) for gradient in gradients]
        norm = float(nn.utils.get_total_norm(gradients, foreach=True))
        if self.is_sharded:
            norm = math.sqrt(self.processes.sums([norm * norm])[0])
        scale = self.processes.size / count  # the mean over processes becomes the mean over items
        norm *= scale
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self._refuse_not_finite(f"the loss is {loss} and its gradient's norm {norm}", names)
        torch._foreach_mul_(gradients, min(1.0, self.options.clip / (norm + 1e-6)) * scale)
        self.state.update += 1
        factor = self.schedule(self.state.update, self.options.updates)
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.optimizer.lr * factor * group["lr_factor"]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def _refuse_not_finite(self, message: str, names: list[str]) -> None:
        """End all processes: where weights are not finite with their module, as no utterance is to blame
        then, or else as `_refuse` does."""
        share = self._sharding.local if self.is_sharded else (lambda whole: whole)
        held = [(name, share(whole)) for name, whole in self.model.named_parameters()]
        bad = [number for number, (_, own) in enumerate(held) if not bool(own.isfinite().all())]
        bad = min((number for part in self.processes.gather(bad) for number in part), default=None)
        if bad is None:
            fix = "listen to these utterances, or lower train.optimizer.lr"
            self._refuse(message, names, fix=f"{fix}; the last checkpoint is untouched")
        module = held[bad][0].rpartition(".")[0]
        fault = InputError(
            f"{message} before update {self.state.update + 1}: weights of {module} are not finite",
            where=self.folder,
            fix="begin anew (--fresh) from finite weights, or with a lower train.optimizer.lr",
        )
        self.processes.fail_together(fault)

    def _refuse(self, message: str, names: list[str], *, fix: str) -> None:
        """End all processes before the update's step; `names` are this process's utterances."""
        names = [name for part in self.processes.gather(names) for name in part]
        listed = f"{', '.join(names[:20])}{', …' if len(names) > 20 else ''}"
        fault = InputError(
            f"{message} before update {self.state.update + 1}, in the batch of utterances {listed}",
            where=self.folder,
            fix=fix,
        )
        self.processes.fail_together(fault)

    def _autocast(self) -> torch.autocast:
        enabled = self.precision == "bf16"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled)

    @torch.no_grad()  # not inference_mode, whose tensors no sharded model may hold
    def evaluate(self) -> dict[str, float]:
        """Return the mean of each metric over the dev set, in fp32."""
        self.model.eval()
        averages, fault = Averages(), None
        batches = self.dev_loader.batches(0, start=self.processes.rank, step=self.processes.size)
        whole = contextlib.nullcontext()
        if self.is_sharded:  # then the processes need not take as many batches as each other
            whole = self._sharding.held_whole(self.model)
        try:
            with whole:
                for batch in batches:
                    averages.add(self.model(batch.to(self.device)).metrics)
        except InputError as error:
            fault = error
        self.processes.fail_together(fault)
        self.model.train()
        merged = Averages()
        for sums in self.processes.gather(averages.state()):
            merged.add(sums)
        return merged.means()

    @torch.inference_mode()
    def check_criterion(self) -> None:
        """Raise an InputError unless the model has the metric that ranks checkpoints.

        Looks at one batch of the dev set, so that a slip is told before the training and not at its
        first validation.
        """
        self.model.eval()
        with contextlib.closing(self.dev_loader.batches(0)) as batches:
            metrics = self.model(next(batches).to(self.device)).metrics
        self.model.train()
        self._require_criterion(metrics)

    def _require_criterion(self, metrics: Iterable[str]) -> None:
        if self.options.criterion not in metrics:
            raise InputError(
                f"'{self.options.criterion}' is not a metric of this model, expected one of: "
                + ", ".join(sorted(metrics)),
                where="train.criterion",
            )

    def _validate(self, log: TrainLog | NoLog) -> None:
        state, options = self.state, self.options
        metrics = self.evaluate()
        self._require_criterion(metrics)
        value = metrics[options.criterion]
        if math.isnan(value):  # never the best, and comparable
            value = math.inf
        is_best = not state.best or value < state.best[0][0]
        state.since_best = 0 if is_best else state.since_best + 1
        kept = sorted([*state.best, [value, state.update]])[: options.average_best]
        if [value, state.update] in kept:
            weights = self._weights()
            if self.processes.is_first:
                save_weights(self._best_path(state.update), weights)
        state.best = kept
        self._tick()
        log.write("dev", state.update, {**metrics, "minutes": state.seconds / 60})
        shown = "  ".join(f"{name} {mean:.4g}" for name, mean in metrics.items())
        log.show(f"update {state.update} dev: {shown}{'  (best)' if is_best else ''}", stays=True)

    def _log_training(self, log: TrainLog | NoLog, norm: float) -> None:
        state, interval = self.state, self._interval
        self._tick()
        means = Averages(state.sums).means()
        speed = interval["audio"] / interval["wall"]
        wait = 100 * interval["wait"] / interval["wall"]
        learning_rate = self.optimizer.param_groups[0]["lr"]
        unit = self.train_loader.unit.replace("audio_seconds", "audio-s")
        left = (self.options.updates - state.update) * state.seconds / state.update
        log.write(
            "train",
            state.update,
            {
                "epoch": state.epoch,
                **means,
                "lr": learning_rate,
                "gradient_norm": norm,
                f"{self.train_loader.unit}_per_second": speed,
                "data_wait_percent": wait,
                "minutes": state.seconds / 60,
                "core_minutes": state.core_seconds / 60,
            },
        )
        log.show(
            f"update {state.update}/{self.options.updates} epoch {state.epoch}"
            f"  loss {means['loss']:.4g}  lr {learning_rate:.2e}  {speed:.0f} {unit}/s"
            f"  data-wait {wait:.1f} %  ETA {duration(left)}"
        )
        state.sums = {}
        self._interval = dict.fromkeys(interval, 0.0)

    def _save(self) -> None:
        self._tick()
        folder = self.folder / "checkpoints"
        path = folder / folder_name(self.state.update)
        if self.is_sharded:
            self._sharded_checkpoint.save_sharded(
                path, self.model, self.optimizer, asdict(self.state), self.processes
            )
        if not self.processes.is_first:
            return
        if not self.is_sharded:
            save_checkpoint(path, self.model, self.optimizer, asdict(self.state))
        keep_last(folder, 2)
        listed = {self._best_path(update) for _, update in self.state.best}
        for old in set(folder.glob("best_*.safetensors")) - listed:
            old.unlink()

    def _resume(self) -> None:
        """Go on from the newest checkpoint, if there is one."""
        found = checkpoints(self.folder / "checkpoints")
        if found:
            any_kind = self.is_sharded or is_sharded(found[-1])
            load = self._sharded_checkpoint.load_sharded if any_kind else load_checkpoint
            state, fault = {}, None
            try:
                state = load(found[-1], self.model, self.optimizer)
            except InputError as error:
                fault = error
            self.processes.fail_together(fault)
            self.state = TrainState(**state)
            if self.processes.is_first:
                print(f"{self.folder}: going on after update {self.state.update}")

    def _weights(self) -> dict[str, torch.Tensor]:
        """Return all weights, {} in a process that has only its share of them and is not the first."""
        if self.is_sharded:
            return self._sharding.whole_weights(self.model, keep=self.processes.is_first)
        return self.model.state_dict()

    def _average(self) -> dict[str, torch.Tensor]:
        paths = [self._best_path(update) for _, update in self.state.best]
        return average_weights(paths)

    def _best_path(self, update: float | int) -> Path:
        return self.folder / "checkpoints" / f"best_{int(update):08d}.safetensors"

    def _out_of_patience(self) -> bool:
        return self.options.patience is not None and self.state.since_best >= self.options.patience

    def _on_signal(self, number: int, frame) -> None:
        self.stop_signal = number
        if number == signal.SIGINT:  # a second Ctrl-C ends at once
            signal.signal(number, signal.default_int_handler)

    def _start_clock(self) -> None:
        self._clock = (time.perf_counter(), time.process_time())

    def _tick(self) -> None:
        """Add the time since the last call to the state: on the wall, and of all processors."""
        wall, core = time.perf_counter(), time.process_time()
        self.state.seconds += wall - self._clock[0]
        self.state.core_seconds += self.processes.sums([core - self._clock[1]])[0]
        self._clock = (wall, core)
