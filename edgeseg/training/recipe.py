"""Recipes: everything that decides what a training gives, checked. `edgeseg.training.recipe_file` reads them from TOML.

Imports without torch, so that `edgeseg train --help` and bad recipes cost nothing.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

from edgeseg.errors import InputError
from edgeseg.training.recipe_checks import check_known, check_range
from edgeseg.training.token_reduction_recipe import PausingRecipe, PruningRecipe

CLASS_WEIGHTS = ("none", "log", "median")
OPTIMISERS = ("adamw", "sgd")
SCHEDULES = ("cosine", "poly", "constant")
CALIBRATIONS = ("entropy", "max", "percentile")


@dataclass(frozen=True)
class DataRecipe:
    """What is trained on."""

    path: str = ""
    """`street` or a data set's folder; empty when the command line has to say it (`--data`)."""
    size_hw: tuple[int, int] = (180, 240)
    """Height and width, in pixels, to which whole frames are brought: the network's input."""
    train_split: str = "train"
    val_split: str = "val"
    stills: bool = False
    """Whether the training frames are stills, of which sequences and later labels are made by a simulated drive."""
    fps: float = 15.0
    """Frames per second of the videos made of stills."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the data set (simulator only)."""

    def __post_init__(self) -> None:
        check_range(min(self.size_hw) >= 8, "data.size_hw", self.size_hw, "at least 8 x 8")
        check_range(self.fps > 0, "data.fps", self.fps, "more than 0")
        check_range(
            self.train_split != self.val_split, "data.val_split", self.val_split, "another split than data.train_split"
        )


@dataclass(frozen=True)
class NetworkRecipe:
    """Which network."""

    name: str = "swiftnet_r18"
    options: dict[str, Any] = field(default_factory=dict)
    """What its builder takes besides the classes: `width`, `decoder`, `cascade`. In a recipe these keys stand in the
    table itself, beside `name`; the builder refuses those that it does not know."""

    def __post_init__(self) -> None:
        width = self.options.get("width", 1.0)
        number = isinstance(width, (int, float)) and not isinstance(width, bool)
        check_range(number and 0 < width <= 4, "network.width", width, "more than 0 and at most 4")


@dataclass(frozen=True)
class CwmRecipe:
    """Channel-wise masked convolutions; leave the table out for a dense network."""

    rho: float = 0.25
    """Share of channels computed at every step."""
    align: int = 1
    """Masks begin and end at multiples of this many channels."""
    generator: str = "bi_step"
    exclude: tuple[str, ...] = ()
    """Patterns of further layers to leave dense."""

    def __post_init__(self) -> None:
        check_range(0 <= self.rho <= 1, "cwm.rho", self.rho, "0 to 1")
        check_range(self.align >= 1, "cwm.align", self.align, "at least 1")
        check_known("cwm.generator", self.generator, ("bi_step", "random"))
        if self.generator == "random" and self.align != 1:
            raise InputError(
                f"cwm.align = {self.align} contradicts cwm.generator = 'random' | random masks have no blocks"
            )


@dataclass(frozen=True)
class SequenceRecipe:
    """How many frames a sample has, and which label it aims at."""

    length: int = 1
    """Frames that the network sees one after the other before the loss; 7 or 9 for masked networks [C 2.4.5]."""
    starts: int = 1
    """Consecutive starts per sample, an optimiser step each; 2 is two-sequence training [C 2.4.5]."""
    frame_stride: int = 1
    """Frames from one input to the next."""
    target_offset: int = 0
    """Frames from the last input to the labels it has to predict (anticipation)."""

    def __post_init__(self) -> None:
        check_range(self.length >= 1, "sequence.length", self.length, "at least 1")
        check_range(
            1 <= self.starts <= self.length, "sequence.starts", self.starts, f"1 to sequence.length ({self.length})"
        )
        check_range(self.frame_stride >= 1, "sequence.frame_stride", self.frame_stride, "at least 1")
        check_range(self.target_offset >= 0, "sequence.target_offset", self.target_offset, "at least 0")


@dataclass(frozen=True)
class AugmentRecipe:
    """Random changes, the same for all frames of a sequence and their labels."""

    scale: tuple[float, float] = (1.0, 1.0)
    """Smallest and largest factor on `data.size_hw`."""
    crop_hw: tuple[int, int] | None = None
    """Height and width of the crop in pixels; `data.size_hw` when left out."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    brightness: float = 0.0
    """Brightness is multiplied by 1 - this to 1 + this."""
    contrast: float = 0.0
    saturation: float = 0.0
    blur: float = 0.0
    """Probability of a Gaussian blur, of standard deviation 0.3 to 1.2 pixels."""

    def __post_init__(self) -> None:
        low, high = self.scale
        check_range(0 < low <= high, "augment.scale", self.scale, "0 < smallest <= largest")
        for name in ("flip", "blur"):
            check_range(0 <= getattr(self, name) <= 1, f"augment.{name}", getattr(self, name), "0 to 1")
        for name in ("brightness", "contrast", "saturation"):
            check_range(0 <= getattr(self, name) < 1, f"augment.{name}", getattr(self, name), "0 to less than 1")
        if self.crop_hw is not None:
            check_range(min(self.crop_hw) >= 8, "augment.crop_hw", self.crop_hw, "at least 8 x 8")


@dataclass(frozen=True)
class LossRecipe:
    """What is minimised."""

    name: str = "cross_entropy"
    class_weights: str = "none"
    """`none`; `log`: 1 / ln(1.02 + share of the class); `median`: median share / share."""
    gamma: float | None = None
    """Focal loss."""
    alpha: float | None = None
    """Tversky loss: weight of false positives."""
    beta: float | None = None
    """Tversky loss: weight of false negatives."""

    def __post_init__(self) -> None:
        check_known("loss.class_weights", self.class_weights, CLASS_WEIGHTS)


@dataclass(frozen=True)
class OptimiserRecipe:
    """How it is minimised."""

    name: str = "adamw"
    steps: int = 1000
    """Optimiser steps in all."""
    batch: int = 8
    lr: float = 1e-3
    """Highest learning rate."""
    min_lr: float = 0.0
    """Learning rate at the end of a cosine schedule."""
    schedule: str = "cosine"
    warmup_steps: int = 0
    power: float = 0.9
    """Exponent of the poly schedule."""
    weight_decay: float = 1e-4
    """On convolution weights; norms and biases have none."""
    momentum: float = 0.9
    """SGD only."""
    clip_norm: float | None = None
    """Gradients are scaled down to this norm; not at all when left out."""

    def __post_init__(self) -> None:
        check_known("optimiser.name", self.name, OPTIMISERS)
        check_known("optimiser.schedule", self.schedule, SCHEDULES)
        check_range(self.steps >= 1, "optimiser.steps", self.steps, "at least 1")
        check_range(self.batch >= 1, "optimiser.batch", self.batch, "at least 1")
        check_range(self.lr > 0, "optimiser.lr", self.lr, "more than 0")
        check_range(0 <= self.min_lr <= self.lr, "optimiser.min_lr", self.min_lr, f"0 to optimiser.lr ({self.lr})")
        below = f"less than optimiser.steps ({self.steps})"
        check_range(0 <= self.warmup_steps < self.steps, "optimiser.warmup_steps", self.warmup_steps, below)
        check_range(self.weight_decay >= 0, "optimiser.weight_decay", self.weight_decay, "at least 0")
        check_range(self.clip_norm is None or self.clip_norm > 0, "optimiser.clip_norm", self.clip_norm, "more than 0")


@dataclass(frozen=True)
class RunRecipe:
    """What happens besides."""

    seed: int = 0
    checkpoint_every: int = 100
    """Steps between two savings of the training state."""
    validate_every: int = 250
    """Steps between two validations; there is one at the end in any case."""
    val_frames: int = 200
    """At most this many labelled frames are scored."""
    warm_up_frames: int = 18
    """Frames that a masked network runs before it is scored [C 2.4.4]."""
    load_threads: int = 1
    mixed_precision: bool = False
    """bfloat16 (float16 where there is none) on a GPU; no effect on a CPU."""

    def __post_init__(self) -> None:
        for name in ("checkpoint_every", "validate_every", "val_frames", "load_threads"):
            check_range(getattr(self, name) >= 1, f"run.{name}", getattr(self, name), "at least 1")
        check_range(self.seed >= 0, "run.seed", self.seed, "at least 0")
        check_range(self.warm_up_frames >= 0, "run.warm_up_frames", self.warm_up_frames, "at least 0")


@dataclass(frozen=True)
class QatRecipe:
    """Quantisation-aware training of a trained network: `edgeseg train --qat`; without it the table is not read.

    Its steps and rate stand in the place of the optimiser's, with a schedule that falls to 0 and no warm-up.
    """

    calibration: str = "percentile"
    """How ranges are found: the largest magnitude, one that a share of them lies within, or by entropy (slow)."""
    images: int = 64
    """Training images whose features are looked at for that, at least."""
    steps: int = 200
    lr: float = 2e-5
    """A hundredth of what a network is trained with from random weights: the rounding is learnt, not the task."""

    def __post_init__(self) -> None:
        check_known("qat.calibration", self.calibration, CALIBRATIONS)
        check_range(self.images >= 1, "qat.images", self.images, "at least 1")
        check_range(self.steps >= 1, "qat.steps", self.steps, "at least 1")
        check_range(self.lr > 0, "qat.lr", self.lr, "more than 0")


@dataclass(frozen=True)
class Recipe:
    """A whole training."""

    name: str
    data: DataRecipe = field(default_factory=DataRecipe)
    network: NetworkRecipe = field(default_factory=NetworkRecipe)
    cwm: CwmRecipe | None = None
    pausing: PausingRecipe | None = None
    pruning: PruningRecipe | None = None
    sequence: SequenceRecipe = field(default_factory=SequenceRecipe)
    augment: AugmentRecipe = field(default_factory=AugmentRecipe)
    loss: LossRecipe = field(default_factory=LossRecipe)
    optimiser: OptimiserRecipe = field(default_factory=OptimiserRecipe)
    run: RunRecipe = field(default_factory=RunRecipe)
    qat: QatRecipe | None = None

    def __post_init__(self) -> None:
        if self.cwm is None and self.sequence.length > 1:
            raise InputError(
                f"sequence.length = {self.sequence.length} without a [cwm] table | a dense network keeps no state, "
                "it gains nothing from a sequence | set cwm.rho or sequence.length = 1"
            )
        if self.pausing is not None and self.pruning is not None:
            raise InputError("[pausing] contradicts [pruning] | a network is trained for one of them: leave one out")
        if self.qat is not None and self.pruning is not None:
            raise InputError("[pruning] contradicts --qat | how many tokens run depends on the image: leave one out")
        if self.cwm is not None and self.sequence.length == 1:
            raise InputError(
                "[cwm] with sequence.length = 1: the first step computes every channel, masks would never be used | "
                "set sequence.length to 7 or 9"
            )

    @property
    def crop_hw(self) -> tuple[int, int]:
        """Height and width of the training images, in pixels."""
        return self.augment.crop_hw or self.data.size_hw

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form, as the tables of a recipe file: tuples are lists."""
        table = {**asdict(self), "network": {**self.network.options, "name": self.network.name}}
        return _plain(table)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value
