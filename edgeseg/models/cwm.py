"""Channel-wise masked (CWM) convolutions: each step computes a contiguous part of the output channels and keeps the
rest [C 2.3].

    names = apply_cwm(network, BiStep(rho=0.25), example=torch.zeros(1, 3, 64, 64))
    reset_state(network)
    for frame in frames:
        logits = network(frame)

A masked layer is an `nn.Conv2d` of the same name with the same parameters, so dense weights load as they are, and
the exported dense graph names the same layers. Which layers are masked is found by `edgeseg.models.cwm_placement`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from edgeseg.errors import InputError
from edgeseg.models.cwm_placement import plan_cwm


class MaskGenerator(Protocol):
    """A fixed cycle of contiguous channel masks, the same at any layer with the same number of channels."""

    @property
    def period(self) -> int:
        """Number of masks; step s >= 1 uses mask `s % period`."""

    def mask(self, phase: int, channels: int) -> tuple[int, int]:
        """Channels `[start, stop)` that a layer of `channels` computes in `phase`, 0 <= phase < period."""

    def as_dict(self) -> dict[str, object]:
        """JSON-ready form, read back by `generator_from_dict`."""


@dataclass(frozen=True)
class BiStep:
    """The bi-step generator rho-BG [C 2.3.4]: two masks, used in turn, that share `rho * C` channels in the middle.

    With `align` = a > 1 the masks begin and end at multiples of a, for kernels that work on blocks of channels. The
    share of computed channels stays as near to (1 + rho) / 2 as blocks allow: the shared part is rounded to whole
    blocks (half up), its start down, so the two masks may differ by one block. Layers with fewer than 2 a channels
    keep the exact masks.
    """

    rho: float
    """Proportion of channels computed at every step, 0 to 1."""
    align: int = 1
    """Channels per block; 1 for the exact masks."""

    def __post_init__(self) -> None:
        _check_proportion("rho", self.rho)
        if self.align < 1:
            raise InputError(f"cwm align must be at least 1 | got {self.align} | use 1 (exact masks) or 16")

    @property
    def period(self) -> int:
        return 2

    def mask(self, phase: int, channels: int) -> tuple[int, int]:
        """Mask 0 is `[0, stop)`, mask 1 `[start, channels)`."""
        start, stop = self.shared(channels)
        return ((0, stop), (start, channels))[phase]

    def shared(self, channels: int) -> tuple[int, int]:
        """`(start, stop)` of the channels in both masks: floor((C - rho C) / 2) and floor((C + rho C) / 2)."""
        # A product such as .29 * 100 = 28.999999999999996 must not fall to the next integer below.
        middle = round(self.rho * channels, 9)
        if self.align == 1 or channels < 2 * self.align or self.rho == 1:
            return int((channels - middle) // 2), int((channels + middle) // 2)
        size = int(middle / self.align + 0.5) * self.align
        start = int((channels - size) / 2 // self.align) * self.align
        return start, min(channels, start + size)

    def as_dict(self) -> dict[str, object]:
        return {"generator": "bi_step", **asdict(self)}


@dataclass(frozen=True)
class RandomGenerator:
    """A random contiguous mask at each step, of the same size as the bi-step generator's; the thesis's baseline [C
    2.5.7].

    The masks are drawn ahead of time from `seed` and used in a cycle, as predefined masks have to be [C 2.3.3].
    """

    rho: float
    """The masks have `(1 + rho) / 2` of the channels."""
    masks: int = 16
    """Masks in the cycle."""
    seed: int = 0

    def __post_init__(self) -> None:
        _check_proportion("rho", self.rho)
        if self.masks < 1:
            raise InputError(f"a random generator needs at least 1 mask | got {self.masks}")

    @property
    def period(self) -> int:
        return self.masks

    def mask(self, phase: int, channels: int) -> tuple[int, int]:
        active = int(round((1 + self.rho) / 2 * channels, 9))
        start = int(np.random.default_rng((self.seed, phase, channels)).integers(0, channels - active + 1))
        return start, start + active

    def as_dict(self) -> dict[str, object]:
        return {"generator": "random", **asdict(self)}


GENERATORS: dict[str, type] = {"bi_step": BiStep, "random": RandomGenerator}


def generator_from_dict(values: dict) -> MaskGenerator:
    """Inverse of `MaskGenerator.as_dict`.

    Raises:
        InputError: an unknown generator or unknown values.
    """
    options = {key: value for key, value in values.items() if key != "generator"}
    kind = values.get("generator")
    if kind not in GENERATORS:
        raise InputError(f"unknown mask generator {kind!r} | known: {', '.join(GENERATORS)}")
    try:
        return GENERATORS[kind](**options)
    except TypeError as error:
        raise InputError(f"mask generator {kind} cannot be made from {options} ({error})") from error


class CwmConv2d(nn.Conv2d):
    """A convolution that computes the channels of its generator's mask and keeps the others from its step before.

    Step 0, the first after a reset, computes all channels. The kept state is the convolution's own output (before
    any batch norm), with its gradient history in training. Each forward pass is one step.
    """

    generator: MaskGenerator

    @classmethod
    def from_conv(cls, conv: nn.Conv2d, generator: MaskGenerator) -> "CwmConv2d":
        """A masked layer that shares the parameters of `conv`."""
        layer = cls(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            conv.padding,  # type: ignore[arg-type]
            conv.dilation,  # type: ignore[arg-type]
            conv.groups,
            conv.bias is not None,
            conv.padding_mode,
            device="meta",
        )
        layer.weight, layer.bias = conv.weight, conv.bias
        layer.train(conv.training)
        layer.generator = generator
        layer.reset()
        return layer

    def reset(self) -> None:
        """Forget the kept channels; the next step computes everything."""
        self.step = 0
        self._kept: Tensor | None = None

    def phases(self) -> tuple[tuple[int, int], ...]:
        """`(start, stop)` of the channels computed in each phase of the cycle."""
        return tuple(self.generator.mask(phase, self.out_channels) for phase in range(self.generator.period))

    def forward(self, x: Tensor) -> Tensor:
        kept = self._kept
        if kept is None:
            output = self._conv_forward(x, self.weight, self.bias)
        else:
            start, stop = self.generator.mask(self.step % self.generator.period, self.out_channels)
            bias = None if self.bias is None else self.bias[start:stop]
            fresh = self._conv_forward(x, self.weight[start:stop], bias)
            if fresh.shape[0] != kept.shape[0] or fresh.shape[2:] != kept.shape[2:]:
                raise InputError(
                    f"masked convolution got a map of another size than the step before | got {tuple(fresh.shape)}, "
                    f"kept {tuple(kept.shape)} | call reset_state(network) before another video"
                )
            output = torch.cat((kept[:, :start], fresh, kept[:, stop:]), dim=1)
        # A later in-place operation of the network must not change what is kept.
        self._kept = output.clone()
        self.step += 1
        return output


def apply_cwm(
    network: nn.Module, generator: MaskGenerator, *, example: Tensor | tuple[Tensor, ...], exclude: Sequence[str] = ()
) -> list[str]:
    """Swap the convolutions of `network` that may be masked for masked ones, in place; the names of those, in
    execution order.

    Args:
        example: input of one forward pass, of any values, by which the execution order is found.
        exclude: patterns (`*` matches anything) of layer names to leave dense, besides the stem, the head and the
            projections of skip connections; `plan_cwm` tells the reason for each layer.

    Raises:
        InputError: no convolution can be masked, or a pattern of `exclude` matches none.
    """
    plan = plan_cwm(network, example, exclude)
    if not plan.masked:
        reasons = ", ".join(f"{name}: {reason}" for name, reason in plan.dense.items()) or "there is none"
        raise InputError(f"no convolution can be masked | {reasons}")
    swap_convolutions(network, plan.masked, generator)
    return list(plan.masked)


def swap_convolutions(network: nn.Module, names: Iterable[str], generator: MaskGenerator) -> None:
    """Put masked convolutions in the place of those called `names`, in place, with the same parameters.

    Raises:
        InputError: a name is not an `nn.Conv2d` without groups in `network`.
    """
    for name in names:
        parent_name, _, attribute = name.rpartition(".")
        try:
            conv = network.get_submodule(name)
        except AttributeError as error:
            raise InputError(f"the network has no layer {name} to mask | {error}") from error
        if not isinstance(conv, nn.Conv2d) or conv.groups != 1:
            raise InputError(f"layer {name} cannot be masked | got {conv}, expected a convolution without groups")
        setattr(network.get_submodule(parent_name), attribute, CwmConv2d.from_conv(conv, generator))


def masked_layers(network: nn.Module) -> dict[str, CwmConv2d]:
    """The masked convolutions of `network` by module path."""
    return {name: layer for name, layer in network.named_modules() if isinstance(layer, CwmConv2d)}


def cwm_phases(network: nn.Module) -> dict[str, tuple[tuple[int, int], ...]]:
    """Per masked layer, by module path: the channels `[start, stop)` computed in each phase, for exporters."""
    return {name: layer.phases() for name, layer in masked_layers(network).items()}


def reset_state(network: nn.Module) -> None:
    """Make the next step of every masked layer of `network` a full one; needed before each video."""
    for layer in masked_layers(network).values():
        layer.reset()


def set_step(network: nn.Module, step: int) -> None:
    """Number the next step `step`, which chooses the mask, without touching the kept channels.

    Raises:
        InputError: `step` is negative.
    """
    if step < 0:
        raise InputError(f"a step is counted from 0 | got {step}")
    for layer in masked_layers(network).values():
        layer.step = step


def _check_proportion(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise InputError(f"cwm {name} is a proportion | got {value}, expected 0 to 1")
