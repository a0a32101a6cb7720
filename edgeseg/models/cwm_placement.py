"""Which convolutions of a network may be masked: found by watching one forward pass, so it works for networks not
our own.

Left dense [C 2.4.2, table 2.2]: the first convolution, the last one, and the projections of skip connections, that is
convolutions beside a residual block whose input and output differ in size or channels. The lateral 1x1 convolutions
of a decoder are masked: they join maps of different layers and are no block's skip. Masked with the same channels as
the map that they are added to, they leave the other channels of the sum exactly as they were, which an exporter uses.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from edgeseg.errors import InputError


@dataclass(frozen=True)
class CwmPlan:
    """The outcome for each `nn.Conv2d` of a network."""

    masked: tuple[str, ...]
    """Names of the convolutions to mask, in execution order."""
    dense: dict[str, str]
    """Name -> reason, for those left as they are."""


def plan_cwm(network: nn.Module, example: Tensor | tuple[Tensor, ...], exclude: Sequence[str] = ()) -> CwmPlan:
    """Decide for each convolution of `network` whether it is masked.

    Args:
        example: input of one forward pass. The values do not matter; the sizes should be those of a real frame, or
            smaller.
        exclude: further patterns of names to leave dense (`decoder.*`).

    Raises:
        InputError: a pattern matches no convolution.
    """
    convolutions = {name: layer for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d)}
    for pattern in exclude:
        if not any(fnmatchcase(name, pattern) for name in convolutions):
            raise InputError(
                f"cwm exclude pattern {pattern!r} matches no convolution | there are: {', '.join(convolutions)}"
            )
    calls, projections = _watch(network, convolutions, example)
    order = list(dict.fromkeys(calls))
    dense: dict[str, str] = {}
    for name, layer in convolutions.items():
        if reason := _layer_reason(layer, calls.count(name)):
            dense[name] = reason
        elif name == order[0]:
            dense[name] = "first convolution (stem)"
        elif name == order[-1]:
            dense[name] = "last convolution (head)"
        elif name in projections:
            dense[name] = "projection of a skip connection"
        elif any(fnmatchcase(name, pattern) for pattern in exclude):
            dense[name] = "excluded by the user"
    return CwmPlan(tuple(name for name in order if name not in dense), dense)


def _layer_reason(layer: nn.Conv2d, calls: int) -> str | None:
    """Why a layer by itself, wherever it stands, cannot be masked."""
    if calls == 0:
        return "not executed on the example input"
    if calls > 1:
        return "executed more than once per frame, so it has no single state"
    if layer.groups > 1:
        return "grouped convolution: its output channels do not share their inputs"
    if layer.out_channels < 2:
        return "fewer than two output channels"
    if type(layer).forward is not nn.Conv2d.forward:
        return f"{type(layer).__name__} has a forward pass of its own"
    return None


@dataclass(eq=False)
class _Value:
    """A tensor seen in the forward pass: its size and where it comes from."""

    spatial: tuple[int, ...]
    shape: tuple[int, ...]
    parents: list["_Value"] = field(default_factory=list)
    convolution: str | None = None
    """Name of the layer whose convolution made it."""


_ADDITIONS = frozenset({"add", "add_", "__add__", "__iadd__", "__radd__"})


class _Watcher(TorchFunctionMode):
    """Records which tensor comes from which, and every addition of two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[int, _Value] = {}
        self.additions: list[_Value] = []
        self.layer: str | None = None
        # Tensors are told apart by id, so none may be freed while watching.
        self._alive: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        parents = [self.value(tensor) for tensor in _tensors((args, kwargs))]
        result = func(*args, **kwargs)
        for tensor in _tensors(result):
            value = _Value(tuple(tensor.shape[2:]), tuple(tensor.shape), parents, self.layer)
            self.values[id(tensor)] = value
            self._alive.append(tensor)
            if getattr(func, "__name__", "") in _ADDITIONS and len(parents) == 2:
                self.additions.append(value)
        return result

    def value(self, tensor: Tensor) -> _Value:
        if id(tensor) not in self.values:
            self._alive.append(tensor)
            self.values[id(tensor)] = _Value(tuple(tensor.shape[2:]), tuple(tensor.shape))
        return self.values[id(tensor)]


def _watch(
    network: nn.Module, convolutions: dict[str, nn.Conv2d], example: Tensor | tuple[Tensor, ...]
) -> tuple[list[str], set[str]]:
    """Names of the convolutions in the order of their calls, and those that project a skip connection."""
    watcher, calls = _Watcher(), []

    def enter(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any) -> None:
            calls.append(name)
            watcher.layer = name

        return hook

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        watcher.layer = None

    handles = []
    training = {module: module.training for module in network.modules()}
    try:
        for name, layer in convolutions.items():
            handles += [layer.register_forward_pre_hook(enter(name)), layer.register_forward_hook(leave)]
        network.eval()
        with torch.no_grad(), watcher:
            network(*(example if isinstance(example, tuple) else (example,)))
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in training.items():
            module.training = mode
    projections: set[str] = set()
    for addition in watcher.additions:
        projections.update(_projections(addition))
    return calls, projections


def _projections(addition: _Value) -> Iterator[str]:
    """Names of convolutions that stand alone in one branch of a residual sum whose other branch convolves too."""
    for branch, other in (addition.parents, addition.parents[::-1]):
        projection = _lone_convolution(branch)
        if projection is None or not projection.convolution:
            continue
        source = projection.parents[0]
        changed = source.shape[1:2] != addition.shape[1:2] or source.spatial != addition.spatial
        if changed and _convolves_from(other, source, addition.spatial):
            yield projection.convolution


def _lone_convolution(value: _Value) -> _Value | None:
    """The convolution that `value` is an element-wise function of (batch norm, activation), or None.

    Parameters count as values without a size of their own, so only the parent that is a feature map is followed.
    """
    while value.convolution is None:
        maps = [parent for parent in value.parents if parent.shape == value.shape]
        if len(maps) != 1:
            return None
        value = maps[0]
    return value


def _convolves_from(value: _Value, source: _Value, spatial: tuple[int, ...]) -> bool:
    """Whether `value` comes from `source` through convolutions, never through a map smaller than `spatial`.

    A branch that was smaller on its way is a decoder's up-sampled one, and the sum no residual block.
    """
    open_values, seen = [(value, False)], set()
    while open_values:
        current, convolved = open_values.pop()
        if current is source:
            if convolved:
                return True
            continue
        if (id(current), convolved) in seen or any(a < b for a, b in zip(current.spatial, spatial, strict=False)):
            continue
        seen.add((id(current), convolved))
        convolved = convolved or current.convolution is not None
        open_values += [(parent, convolved) for parent in current.parents]
    return False


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, (tuple, list)):
        for value in values:
            yield from _tensors(value)
    elif isinstance(values, dict):
        yield from _tensors(tuple(values.values()))
