"""The training loop. What a step does depends on the recipe, the weights and the step's number alone.

So a training that is killed and resumed from its last saved state gives, on a CPU with the same number of threads,
the same weights bit for bit as one that ran through.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from edgeseg.data.unseen import refuse_trained_on, trainings
from edgeseg.data.video import Dataset
from edgeseg.errors import DeviceError, InputError
from edgeseg.models.cwm import reset_state
from edgeseg.models.training_outputs import GivesTrainingOutputs, TrainingOutputs
from edgeseg.training.checkpoint import read_meta, save_checkpoint
from edgeseg.training.csv_log import append_row, begin_log
from edgeseg.training.first_weights import check_same_network, load_first_weights, with_frames_of
from edgeseg.training.losses import Loss, at_label_size
from edgeseg.training.new_network import new_network
from edgeseg.training.objective import takes_outputs, training_loss, training_method
from edgeseg.training.optimiser import build_optimiser, learning_rate, load_state, read_counters, save_state
from edgeseg.training.qat import QuantisationAware
from edgeseg.training.recipe import Recipe
from edgeseg.training.samples import Batch, SampleSource, class_weights, network_inputs, prefetched
from edgeseg.training.trained_int8 import TrainedInt8
from edgeseg.training.validation import Validation, Validator

CHECKPOINT_FILE = "checkpoint.safetensors"
STATE_FILE = "state.safetensors"
LOG_FILE = "log.csv"
_LOG_EVERY = 10


class Reporter(Protocol):
    """Who is told how the training goes."""

    def told(self, text: str) -> None:
        """Something about the training that its recipe does not say."""

    def stepped(self, step: int, loss: float) -> None:
        """`step` optimiser steps are done; the last one had this loss."""

    def validated(self, step: int, validation: Validation) -> None:
        """The network was scored after `step` steps."""


@dataclass(frozen=True)
class TrainingResult:
    """How a training ended."""

    step: int
    """Optimiser steps done."""
    finished: bool
    """False when it was asked to stop before its last step."""
    checkpoint: Path | None
    """The newest checkpoint; None when there was none yet."""
    scores: dict[str, Any]
    """Of the newest validation; empty when there was none yet."""


def train(
    recipe: Recipe,
    dataset: Dataset,
    out: Path | str,
    *,
    device: str = "cpu",
    start_from: Path | str | None = None,
    resume: bool = False,
    reporter: Reporter | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TrainingResult:
    """Train by `recipe` on `dataset`; checkpoint, state and CSV log go to the folder `out`.

    Args:
        start_from: checkpoint of the same architecture whose weights are the first ones (a dense one for a masked
            network; a ViT's may be of another image size: its position table is resized). Frames are normalised as
            it was trained. Not read when a state is resumed.
        resume: go on from the state in `out`; start when there is none.
        should_stop: asked after each step; when it says yes, the state is saved and the training ends unfinished.

    Raises:
        InputError: `out` holds another training, the recipe does not fit the data, or the loss is no longer a number;
            or it asks for quantisation-aware training and there is no network that is trained already.
        ArtifactError: `start_from` or the state is damaged or of another network.
        DeviceError: the device is not there.
        MissingPackageError: what quantisation-aware training needs is not installed.
    """
    trainer = _Trainer(recipe, dataset, Path(out), _torch_device(device))
    trainer.begin(start_from, resume, reporter)
    return trainer.run(reporter, should_stop)


class _Trainer:
    def __init__(self, recipe: Recipe, dataset: Dataset, out: Path, device: torch.device) -> None:
        self.recipe, self.dataset, self.out, self.device = recipe, dataset, out, device
        self.step = 0
        self.scores: dict[str, Any] = {}
        self.network, self.meta = new_network(recipe, dataset)
        self.rounding = QuantisationAware(self.network, self.meta, recipe) if recipe.qat is not None else None
        self.source = SampleSource(dataset, recipe, self.meta.input_frames)
        self.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimiser = build_optimiser(self.network, recipe.optimiser)
        layers = self.network.modules()
        self.norms = {layer: layer.momentum for layer in layers if isinstance(layer, nn.BatchNorm2d)}
        self.loss: Loss
        self.validate: Validator
        self.with_outputs = takes_outputs(recipe)
        self.method = training_method(recipe, self.network)
        self.mixed = recipe.run.mixed_precision and device.type == "cuda"
        self.half = torch.bfloat16 if self.mixed and torch.cuda.is_bf16_supported() else torch.float16
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.mixed and self.half is torch.float16)

    @property
    def state_path(self) -> Path:
        return self.out / STATE_FILE

    def begin(self, start_from: Path | str | None, resume: bool, reporter: Reporter | None) -> None:
        """Bring weights, optimiser and counters to where the training starts or goes on."""
        if self.state_path.exists():
            if not resume:
                raise InputError(f"{self.out} already holds a training | go on with --resume, or choose another --out")
            self._resume()
        elif start_from is not None:
            self._start_from(start_from, reporter)
        elif self.rounding is not None:
            raise InputError(
                "--qat without a checkpoint to go on from: rounding is learnt by a trained network | give it with "
                "--start-from"
            )
        elif self.recipe.pruning is not None and self.recipe.pruning.mode == "finetune":
            raise InputError(
                "pruning.mode = 'finetune' without a checkpoint to go on from | train with pruning.mode = 'direct', "
                "then give that checkpoint with --start-from"
            )
        weights = class_weights(self.recipe.loss.class_weights, self.source.class_shares())
        on_device = None if weights is None else torch.from_numpy(weights).to(self.device)
        self.loss = training_loss(self.recipe, self.method, self.meta.classes, on_device)
        self.validate = Validator(self.dataset, self.recipe, self.meta)
        begin_log(self.out / LOG_FILE, self.step)

    def _start_from(self, path: Path | str, reporter: Reporter | None) -> None:
        meta = read_meta(path)
        check_same_network(self.meta, meta, path)
        refuse_trained_on(meta.trained_on, self.dataset, self.recipe.data.val_split, str(path))
        if self.rounding is not None:
            self.rounding.check_start(meta, path)
        load_first_weights(self.network, path, meta)
        usual, self.meta = self.meta.frames_text, with_frames_of(self.meta, meta)
        if reporter and self.meta.frames_text != usual:
            reporter.told(f"frames as {path} was trained on: {self.meta.frames_text}")
        self._remember(trainings(meta.trained_on))
        if self.rounding is not None:
            self.meta = replace(self.meta, int8=self.rounding.calibrate(self.source, self._look))

    def _look(self, frames: Tensor, number: int) -> None:
        """Pass the frames of batch `number` through the network in all ways in which it is trained."""
        inputs = self._inputs(frames)
        for each in inputs:
            self.network(each)
        if self.with_outputs:
            self._training_outputs(inputs[-1], number)

    def _inputs(self, frames: Tensor) -> list[Tensor]:
        meta = self.meta
        return network_inputs(frames.to(self.device), meta.input_frames, meta.mean, meta.std, meta.colour_order)

    def _remember(self, before: Sequence[dict[str, Any]]) -> None:
        """Write into the metadata what the first weights were trained on."""
        if before:
            self.meta = replace(self.meta, trained_on={**self.meta.trained_on, "before": list(before)})

    def _resume(self) -> None:
        counters = read_counters(self.state_path)
        before, now = _flat(counters["recipe"]), _flat(self.recipe.as_dict())
        changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
        if changed:
            key = changed[0]
            raise InputError(
                f"{self.out} was started with another recipe: {', '.join(changed)} | {key} was {before.get(key)}, is "
                f"{now.get(key)} | resume with the same recipe, or choose another --out"
            )
        load_state(self.state_path, self.network, self.optimiser)
        self.step, self.scores = counters["step"], counters["scores"]
        self.scaler.load_state_dict(counters["scaler"])
        if self.rounding is not None:
            int8 = TrainedInt8.from_dict(counters["int8"])
            self.rounding.restore(int8)
            self.meta = replace(self.meta, int8=int8)
        self._remember(counters.get("before", ()))
        # A state of before this was kept is of a training that gave its network the usual frames.
        if frames := counters.get("frames"):
            mean, std = tuple(frames["mean"]), tuple(frames["std"])
            self.meta = replace(self.meta, mean=mean, std=std, colour_order=frames["colour_order"])

    def run(self, reporter: Reporter | None, should_stop: Callable[[], bool]) -> TrainingResult:
        """Train to the last step, or until told to stop."""
        steps, starts = self.recipe.optimiser.steps, self.recipe.sequence.starts
        numbers = range(self.step // starts, -(-steps // starts))
        self.network.train()
        with prefetched(self.source, numbers, self.recipe.run.load_threads) as batches:
            batch: Batch | None = None
            while self.step < steps:
                start = self.step % starts
                if batch is None or start == 0:
                    batch = next(batches)
                rate = learning_rate(self.step, self.recipe.optimiser)
                loss = self._optimise(batch, start, rate)
                self.step += 1
                self._after_step(loss, rate, reporter)
                if self.step < steps and should_stop():
                    self._save_state()
                    break
        checkpoint = self.out / CHECKPOINT_FILE
        return TrainingResult(self.step, self.step == steps, checkpoint if checkpoint.exists() else None, self.scores)

    def _optimise(self, batch: Batch, start: int, rate: float) -> float:
        """One optimiser step on the frames of `batch` from `start` on; its loss."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        labels = batch.labels.to(self.device).long()
        self.optimiser.zero_grad(set_to_none=True)
        reset_state(self.network)
        with torch.autocast(self.device.type, self.half) if self.mixed else nullcontext():
            inputs = self._inputs(batch.frames[:, start:])
            for number, each in enumerate(inputs, start=1):
                last = number == len(inputs)
                self._update_statistics(last)
                with_outputs = last and self.with_outputs
                outputs: Any = self._training_outputs(each, self.step) if with_outputs else self.network(each)
        if not self.with_outputs:
            outputs = at_label_size(outputs, labels)
        loss = self.loss(outputs, labels)
        value = float(loss.detach())
        if not torch.isfinite(loss):
            raise InputError(
                f"loss is {value} at step {self.step} | lower optimiser.lr ({self.recipe.optimiser.lr}) or set "
                "optimiser.clip_norm; the state saved last is whole"
            )
        self.scaler.scale(loss).backward()
        if self.recipe.optimiser.clip_norm is not None:
            self.scaler.unscale_(self.optimiser)
            nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.optimiser.clip_norm)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        return value

    def _training_outputs(self, images: Tensor, step: int) -> TrainingOutputs:
        assert isinstance(self.method, GivesTrainingOutputs)
        # What the network draws depends on the step alone, so a resumed training draws the same.
        random = torch.Generator().manual_seed(self.recipe.run.seed + (step << 20))
        return self.method.training_outputs(images, random)

    def _update_statistics(self, on: bool) -> None:
        """Whether the next pass moves the batch norms' running statistics.

        Only a sequence's last one does: all of them would count one batch so often that little else were left, and
        the first pass computes what a running network never does.
        """
        for layer, momentum in self.norms.items():
            layer.momentum = momentum if on else 0.0

    def _after_step(self, loss: float, rate: float, reporter: Reporter | None) -> None:
        run, last = self.recipe.run, self.step == self.recipe.optimiser.steps
        if reporter:
            reporter.stepped(self.step, loss)
        miou = ""
        if last or self.step % run.validate_every == 0:
            validation = self.validate(self.network, self.device)
            self.scores = validation.as_dict()
            miou = f"{validation.miou:.5f}"
            save_checkpoint(self.out / CHECKPOINT_FILE, self.network, replace(self.meta, scores=self.scores))
            if reporter:
                reporter.validated(self.step, validation)
        if miou or self.step % _LOG_EVERY == 0:
            append_row(self.out / LOG_FILE, f"{self.step},{rate:.6g},{loss:.6f},{miou}\n")
        if last or self.step % run.checkpoint_every == 0:
            self._save_state()

    def _save_state(self) -> None:
        counters = {
            "step": self.step,
            "scores": self.scores,
            "scaler": self.scaler.state_dict(),
            "recipe": self.recipe.as_dict(),
            "before": self.meta.trained_on.get("before", []),
            "int8": self.meta.int8.as_dict() if self.meta.int8 else None,
            "frames": {"mean": self.meta.mean, "std": self.meta.std, "colour_order": self.meta.colour_order},
        }
        save_state(self.state_path, self.network, self.optimiser, counters)


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _torch_device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"unknown device {name!r} | expected cpu, cuda or cuda:0") from error
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"device {name!r} is not trained on | expected cpu, cuda or cuda:0")
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise DeviceError(
            f"device {name!r} is not there | torch sees {torch.cuda.device_count()} CUDA devices | use cpu"
        )
    return device
