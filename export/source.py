"""A network to export, wherever it comes from: a checkpoint, a torch module, an ONNX file."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from onnx import ModelProto
from torch import nn

from edgeseg.bundle import StateLink
from edgeseg.classes import ClassSet
from edgeseg.config import Configuration
from edgeseg.errors import EdgesegError, InputError
from edgeseg.export.channel_flow import Mask
from edgeseg.export.graph_edit import check_graph, tie_input
from edgeseg.export.onnx_export import FRAME_IN, FRAME_OUT, IMAGE, LOGITS, export_module
from edgeseg.export.rewrites.fold_batch_norm import fold_batch_norm
from edgeseg.export.stateful import Form, build_phase_graphs
from edgeseg.export.variant import Reference, Variant
from edgeseg.export.wrapper import CameraToLabels, Preprocessing
from edgeseg.models.cwm import BiStep, cwm_phases, reset_state, swap_convolutions
from edgeseg.models.cwm_placement import plan_cwm
from edgeseg.models.reductions import build_reduction
from edgeseg.models.token_selection import ranking
from edgeseg.models.vit import patch_grid
from edgeseg.models.vit_segmenter import VitSegmenter
from edgeseg.runtime.latency_model import TokenStack
from edgeseg.training.quantisers import quantised_network
from edgeseg.training.trained_int8 import TrainedInt8


@dataclass(frozen=True)
class SourceFacts:
    """What every source knows about its network."""

    network: str
    """Name in configurations."""
    origin: str
    """Where it comes from, for messages: a path, or `module:factory`."""
    classes: ClassSet
    width: float = 1.0
    input_frames: int = 1
    target_offset: int = 0
    rho: float | None = None
    """The overlap that the network was trained with; None for a dense one."""
    default_size_hw: tuple[int, int] | None = None
    """Input size when the user names none."""
    has_free_size: bool = True
    """Whether it works at other sizes too."""
    logits_stride: int | None = None
    """Stride of the logits where it is known: the other label stride of a sweep."""
    takes_plans: bool = False
    """Whether its tokens can stop early by a token plan: a plain ViT."""
    size_multiple: int = 4
    """Sizes that a sweep chooses are multiples of this: the patch of a ViT, else a common stride of labels."""
    trained_on: Mapping[str, Any] = field(default_factory=dict)
    """`dataset` and `splits` that must not be scored."""
    int8: TrainedInt8 | None = None
    """The rounding that the network was trained with; None for one trained in float."""


class Source(ABC):
    """Makes the variants of one network."""

    facts: SourceFacts

    @abstractmethod
    def variant(self, knobs: Configuration) -> Variant:
        """Graphs for `knobs`, not yet compared with anything.

        Raises:
            EdgesegError: the network cannot be had with these knobs.
        """

    @abstractmethod
    def reference(self, knobs: Configuration) -> Reference:
        """The network as its author runs it, at the size and label stride of `knobs`; with INT8's rounding where it was
        trained with that and `knobs` are of INT8."""

    def token_stack(self, size_hw: tuple[int, int]) -> TokenStack:
        """The tokens of the encoder at an input size, and its layers.

        Raises:
            InputError: the network is no plain ViT, or the size is no multiple of its patch.
        """
        raise InputError(f"{self.facts.origin} has no tokens that could stop | it is {self.facts.network}")


class TorchSource(Source):
    """A torch module.

    Args:
        network: dense, normalised float `(1, 3 * input_frames, H, W)` -> logits.
        masked: layers that are masked when rho is given; None to find them by `plan_cwm`.
        cwm_align: channels per block of the masks, see `BiStep.align`.
    """

    def __init__(
        self,
        facts: SourceFacts,
        network: nn.Module,
        preprocessing: Preprocessing,
        *,
        masked: tuple[str, ...] | None = None,
        cwm_align: int = 1,
    ) -> None:
        self.facts = facts
        self._network = network.eval()
        self._preprocessing = preprocessing
        self._masked = masked
        self._align = cwm_align
        self._left_dense: dict[str, str] = {}
        self._traced: tuple[object, ModelProto] | None = None

    def variant(self, knobs: Configuration) -> Variant:
        graph = self._dense_graph(knobs)
        if knobs.rho is not None:
            return self._phases(knobs, graph)
        # Folded like the phase graphs, so that dense and masked configurations share their weights.
        graph = check_graph(fold_batch_norm(graph)[0])
        if knobs.input_frames == 1:
            return Variant(knobs, {"step": graph}, "step", ("step",), notes=self._token_notes(knobs))
        links = tuple(StateLink(role, FRAME_OUT, "step", FRAME_IN) for role in ("init", "step"))
        return Variant(knobs, {"init": first_frame_graph(graph), "step": graph}, "init", ("step",), links)

    def reference(self, knobs: Configuration) -> Reference:
        network = self._reduced(knobs) if knobs.rho is None else self._masked_network(knobs)
        if knobs.precision == "int8" and self.facts.int8 is not None:
            network = quantised_network(copy.deepcopy(network), self.facts.int8.ranges)
        return TorchReference(self._wrapped(network, knobs))

    def token_stack(self, size_hw: tuple[int, int]) -> TokenStack:
        if not isinstance(self._network, VitSegmenter):
            return super().token_stack(size_hw)
        encoder = self._network.encoder
        rows, columns = patch_grid(size_hw, encoder.size.patch)
        return TokenStack(rows * columns, len(encoder.blocks))

    def _dense_graph(self, knobs: Configuration) -> ModelProto:
        # The masked configurations of one size are all cut from the same dense graph, one after another.
        key = (knobs.size_hw, knobs.labels_stride, knobs.method, knobs.plan)
        if self._traced is None or self._traced[0] != key:
            graph = export_module(self._wrapped(self._reduced(knobs), knobs))
            self._check_channels(graph)
            self._traced = (key, graph)
        return self._traced[1]

    def _reduced(self, knobs: Configuration) -> nn.Module:
        """The network whose tokens stop as the knobs say; the same weights."""
        if knobs.method is None or knobs.plan is None:
            return self._network
        reduction = build_reduction(self._network, knobs.method, knobs.plan)
        network = copy.copy(self._network)
        network.reduction = reduction  # type: ignore[assignment]
        return network

    def _token_notes(self, knobs: Configuration) -> dict[str, Any]:
        """What the manifest says of the tokens: how many there are, and how many go on after each layer of the plan."""
        if knobs.plan is None or not isinstance(self._network, VitSegmenter):
            return {}
        stack = self.token_stack(knobs.size_hw)
        tokens = stack.tokens
        counts = knobs.plan.counts(tokens, stack.layers)
        before = dict(zip(counts, (tokens, *counts.values()), strict=False))
        return {
            "tokens": tokens,
            "tokens_after_layer": {str(layer): count for layer, count in counts.items()},
            "ranking_after_layer": {str(layer): ranking(before[layer], count) for layer, count in counts.items()},
        }

    def _phases(self, knobs: Configuration, dense: ModelProto) -> Variant:
        form: Form = "split" if knobs.cwm_form == "split" else "concat"
        built = build_phase_graphs(dense, self._masks(knobs), form=form)
        if built.refused and self._masked is None:
            # Nothing was trained with these masks, so the network that is exported is the one without them.
            self._left_dense |= dict(built.refused)
            built = build_phase_graphs(dense, self._masks(knobs), form=form)
        if built.refused:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in built.refused)
            raise InputError(
                f"{self.facts.origin}: layers that were trained with masks cannot be exported so | {reasons}"
            )
        models = {role: check_graph(model) for role, model in built.models.items()}
        if knobs.input_frames == 2:
            models["init"] = first_frame_graph(models["init"])
        links = tuple(StateLink(link.source, link.output, link.target, link.input) for link in built.links)
        notes = {"masked_layers": len(built.masked), "cwm_align": self._align, "left_dense": dict(self._left_dense)}
        return Variant(knobs, models, "init", ("phase1", "phase0"), links, notes)

    def _check_channels(self, graph: ModelProto) -> None:
        shapes = {entry.name: entry.type.tensor_type.shape.dim for entry in graph.graph.value_info}
        channels = shapes[LOGITS][1].dim_value
        if channels != len(self.facts.classes):
            raise InputError(
                f"{self.facts.origin} does not have one output channel per class | got {channels} channels for "
                f"{len(self.facts.classes)} classes ({', '.join(self.facts.classes.names[:4])}, ...) | check --classes"
            )

    def _wrapped(self, network: nn.Module, knobs: Configuration) -> CameraToLabels:
        return CameraToLabels(
            network,
            self._preprocessing,
            size_hw=knobs.size_hw,
            labels_stride=knobs.labels_stride,
            input_frames=knobs.input_frames,
        )

    def _masks(self, knobs: Configuration) -> dict[str, Mask]:
        """Channels that each masked layer computes in phase 0 and in phase 1."""
        return {name: (phases[0], phases[1]) for name, phases in cwm_phases(self._masked_network(knobs)).items()}

    def _masked_network(self, knobs: Configuration) -> nn.Module:
        assert knobs.rho is not None
        network = copy.deepcopy(self._network)
        names = self._masked
        if names is None:
            plan = plan_cwm(network, torch.zeros(1, 3 * knobs.input_frames, *knobs.size_hw))
            names = tuple(name for name in plan.masked if name not in self._left_dense)
            if not names:
                reasons = (
                    "; ".join(f"{name}: {reason}" for name, reason in (plan.dense | self._left_dense).items())
                    or "it has none"
                )
                raise InputError(
                    f"{self.facts.origin}: no convolution can be masked, so --rho does not apply | {reasons}"
                )
        swap_convolutions(network, names, BiStep(knobs.rho, align=self._align))
        return network.eval()


def first_frame_graph(step: ModelProto) -> ModelProto:
    """The graph of the first step of a two-frame network: the frame before is the same frame."""
    return check_graph(tie_input(step, FRAME_IN, to=IMAGE))


class TorchReference:
    """A wrapped torch network, step by step."""

    def __init__(self, module: CameraToLabels) -> None:
        self.module = module.eval()
        self.reset()

    def reset(self) -> None:
        self._previous: torch.Tensor | None = None
        reset_state(self.module)

    @torch.inference_mode()
    def step(self, frame_rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        image = torch.from_numpy(np.ascontiguousarray(frame_rgb))[None]
        try:
            if self.module.input_frames == 2:
                labels, logits = self.module(image, image if self._previous is None else self._previous)
                self._previous = image
            else:
                labels, logits = self.module(image)
        except EdgesegError:
            raise
        except Exception as error:
            raise InputError(
                f"the network fails on a float image {(1, 3 * self.module.input_frames, *self.module.size_hw)} "
                f"({type(error).__name__}: {error}) | run it by itself on such an image first"
            ) from error
        return labels[0].numpy(), logits[0].float().numpy()
