"""INT8's rounding in a network that is trained (quantisation-aware training), by `modelopt.torch`.

What is trained is what is exported. Before each quantised layer its input is rounded to 255 steps of one range, which
calibration found and the checkpoint keeps; each output channel's weights to 255 steps up to their largest magnitude, as
they are at that moment. Batch norms are constants, as in the exported graph, which folds them into the weights before
them: a factor per output channel changes that channel's scale and none of its integers.

Quantisers have no tensors of their own, so a checkpoint's weights are those of the float network, by the same names.
"""

import contextlib
import io
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from edgeseg.errors import ArtifactError, InputError
from edgeseg.models.cwm import CwmConv2d, reset_state
from edgeseg.models.token_selection import AuxiliaryDecoder
from edgeseg.optional import require

MIN_CHANNELS = 16
"""Layers with fewer input or output channels stay in float: no engine has an INT8 kernel for them."""
PERCENTILE = 99.99
"""Of the magnitudes that the range holds, with calibration by percentile."""


@dataclass(frozen=True)
class LayerPlan:
    """The outcome for each convolution and linear layer of a network."""

    quantised: tuple[str, ...]
    """Module paths of those that compute in INT8, in the order of execution."""
    left_float: dict[str, str]
    """Module path -> reason, for those that do not."""


def plan_layers(network: nn.Module, example: Tensor) -> LayerPlan:
    """Decide for each `nn.Conv2d` and `nn.Linear` of `network` whether it is quantised.

    Args:
        example: input of one forward pass, of any values, by which the order of execution is found.
    """
    layers = {name: each for name, each in network.named_modules() if isinstance(each, (nn.Conv2d, nn.Linear))}
    deciding = [name for name, each in network.named_modules() if isinstance(each, AuxiliaryDecoder)]
    order = _execution_order(network, layers, example)
    left_float: dict[str, str] = {}
    for name, layer in layers.items():
        if any(name.startswith(f"{each}.") for each in deciding):
            left_float[name] = "decides which tokens pause"
        elif name not in order:
            left_float[name] = "not executed by itself"
        elif name == order[0]:
            left_float[name] = "first layer"
        elif name == order[-1]:
            left_float[name] = "last layer"
        elif getattr(layer, "groups", 1) != 1:
            left_float[name] = "grouped convolution"
        elif min(layer.weight.shape[:2]) < MIN_CHANNELS:
            left_float[name] = f"fewer than {MIN_CHANNELS} channels"
    return LayerPlan(tuple(name for name in order if name not in left_float), left_float)


def _execution_order(network: nn.Module, layers: Mapping[str, nn.Module], example: Tensor) -> list[str]:
    calls: dict[str, None] = {}

    def hook(name: str) -> Callable[..., None]:
        return lambda *_: calls.setdefault(name)

    handles = [layer.register_forward_pre_hook(hook(name)) for name, layer in layers.items()]
    training = network.training
    try:
        with torch.no_grad():
            network.eval()(example)
    finally:
        for handle in handles:
            handle.remove()
        reset_state(network)
        network.train(training)
    return list(calls)


class FixedBatchNorm2d(nn.BatchNorm2d):
    """A batch norm with the statistics that it has, in training too: a factor and a shift per channel."""

    @classmethod
    def from_norm(cls, norm: nn.BatchNorm2d) -> "FixedBatchNorm2d":
        """One that shares the parameters and statistics of `norm`."""
        layer = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, device="meta")
        layer.weight, layer.bias = norm.weight, norm.bias
        layer.running_mean, layer.running_var = norm.running_mean, norm.running_var
        layer.num_batches_tracked = norm.num_batches_tracked
        return layer.eval()

    def train(self, mode: bool = True) -> "FixedBatchNorm2d":
        return super().train(False)


def fix_batch_norms(network: nn.Module) -> None:
    """Put a fixed batch norm in the place of each one of `network`, in place."""
    norms = {name: layer for name, layer in network.named_modules() if type(layer) is nn.BatchNorm2d}
    for name, layer in norms.items():
        parent, _, attribute = name.rpartition(".")
        setattr(network.get_submodule(parent), attribute, FixedBatchNorm2d.from_norm(layer))


class Quantisers:
    """The fake quantisers of a network, which are inserted in place.

    Until they have ranges, by `calibrate` or `set_ranges`, each takes that of the tensor that it sees.

    Args:
        layers: module paths of the layers to quantise.

    Raises:
        MissingPackageError: ModelOpt, or a library that it needs, is not installed.
        ArtifactError: the network has no such layer.
    """

    def __init__(self, network: nn.Module, layers: tuple[str, ...]) -> None:
        known = dict(network.named_modules())
        if missing := [name for name in layers if not isinstance(known.get(name), (nn.Conv2d, nn.Linear))]:
            raise ArtifactError(f"no convolution or linear layer {missing[0]} to quantise | the checkpoint is damaged")
        self.network, self.layers = network, layers
        entries: list[dict[str, Any]] = [{"quantizer_name": "*", "enable": False}]
        for name in layers:
            entries.append({"quantizer_name": f"{name}.weight_quantizer", "cfg": {"num_bits": 8, "axis": 0}})
            clipped = {"num_bits": 8, "pass_through_bwd": False}
            entries.append({"quantizer_name": f"{name}.input_quantizer", "cfg": clipped})
        # It tells the number of quantisers on standard output, where only results belong.
        with contextlib.redirect_stdout(io.StringIO()):
            _modelopt().quantize(network, {"quant_cfg": entries, "algorithm": None})

    def calibrate(self, method: str, run: Callable[[], None]) -> dict[str, float]:
        """Find and set the ranges of the layers' inputs.

        Args:
            method: one of `edgeseg.training.recipe.CALIBRATIONS`.
            run: passes samples through the network, whose quantisers only look on meanwhile.

        Returns:
            Layer -> largest magnitude that its input is rounded to.

        Raises:
            InputError: a layer saw what is not a number.
        """
        for name in self.layers:
            quantiser = self._of_input(name)
            quantiser.set_from_attribute_config({"calibrator": "max" if method == "max" else "histogram"})
            quantiser.disable_quant()
            quantiser.enable_calib()
            self._of_weight(name).disable_quant()
        training = self.network.training
        hooks = [self.network.get_submodule(name).register_forward_pre_hook(_refuse(name)) for name in self.layers]
        try:
            with torch.no_grad():
                self.network.eval()
                run()
        finally:
            for hook in hooks:
                hook.remove()
            self.network.train(training)
        ranges = {name: self._found(name, method) for name in self.layers}
        for name in self.layers:
            quantiser = self._of_input(name)
            quantiser.enable_quant()
            quantiser.disable_calib()
            self._of_weight(name).enable_quant()
        self.set_ranges(ranges)
        return ranges

    def _found(self, name: str, method: str) -> float:
        options: dict[str, Any] = {} if method == "max" else {"method": method}
        if method == "percentile":
            options["percentile"] = PERCENTILE
        found = self._of_input(name)._calibrator.compute_amax(**options)
        # Where the input is always 0, or never comes, any range gives the same.
        return 1.0 if found is None else float(found) or 1.0

    def set_ranges(self, ranges: Mapping[str, float]) -> None:
        """Set the ranges that `calibrate` found before.

        Raises:
            ArtifactError: they are not those of the quantised layers.
        """
        if set(ranges) != set(self.layers):
            odd = sorted(set(ranges) ^ set(self.layers))
            raise ArtifactError(f"ranges are of other layers than the quantised ones | {odd[0]} | the file is damaged")
        for name in self.layers:
            quantiser = self._of_input(name)
            device = next(self.network.parameters()).device
            # Not in the state dict: a checkpoint says its ranges in words.
            quantiser.register_buffer("_amax", torch.tensor(float(ranges[name]), device=device), persistent=False)

    def _of_input(self, name: str) -> Any:
        return self.network.get_submodule(f"{name}.input_quantizer")

    def _of_weight(self, name: str) -> Any:
        return self.network.get_submodule(f"{name}.weight_quantizer")


def _refuse(name: str) -> Callable[..., None]:
    """A hook of layer `name` that refuses what is not a number."""

    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if not torch.isfinite(inputs[0]).all():
            raise InputError(
                f"calibration found no range for {name} | its input has NaN or infinite values | start from another "
                "checkpoint, and look at the data"
            )

    return hook


def quantised_network(network: nn.Module, ranges: Mapping[str, float]) -> nn.Module:
    """`network` itself, with quantisers of these ranges in it, in evaluation mode.

    Raises:
        MissingPackageError: ModelOpt, or a library that it needs, is not installed.
        ArtifactError: the ranges are not of this network.
    """
    Quantisers(network, tuple(ranges)).set_ranges(ranges)
    return network.eval()


def _modelopt() -> ModuleType:
    """ModelOpt's quantisation module, which knows masked convolutions."""
    with warnings.catch_warnings():
        # It warns of versions of libraries that it is not used with here.
        warnings.simplefilter("ignore")
        mtq = require("modelopt.torch.quantization", extra="quant")
    if CwmConv2d not in mtq.nn.QuantModuleRegistry:
        quantised = type("QuantCwmConv2d", (mtq.nn.QuantLinearConvBase,), {"__doc__": "A masked one, quantised."})
        mtq.register(CwmConv2d, quantised)
    return mtq
