"""The parity check: the exported graphs against the network as its author runs it, on real video, step by step."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from edgeseg.bundle import BundleConfiguration, Parity
from edgeseg.data.video import Dataset
from edgeseg.errors import InputError, ParityError
from edgeseg.export.cached_video import fit_frame
from edgeseg.export.graph_runner import GraphRunner
from edgeseg.export.onnx_export import LABELS, LOGITS
from edgeseg.export.source import TorchReference
from edgeseg.export.variant import Reference, Variant
from edgeseg.runtime.session import Session

MINIMUM_AGREEMENT = 0.999
"""Share of pixels whose labels must be equal."""
MAXIMUM_LOGIT_ERROR = 0.05
"""Largest difference of logits relative to the largest logit: labels may be equal by luck where one class prevails."""
FRAMES, STATEFUL_FRAMES = 12, 20
RELATIVE_TOLERANCE = 1e-3
"""Difference that makes an inner tensor a diverging one, relative to its largest magnitude."""


@dataclass(frozen=True)
class ParityVideo:
    """Frames that the check runs on."""

    name: str
    frames_rgb: tuple[np.ndarray, ...]
    """uint8 `(H, W, 3)`, any size."""


def parity_video(dataset: Dataset | None, split: str | None, count: int = STATEFUL_FRAMES) -> ParityVideo:
    """The first frames of the data set's first video that is long enough, or of the street simulator's."""
    if dataset is None:
        from edgeseg.data.open import open_dataset

        dataset, split = open_dataset("street"), "val"
    videos = dataset.videos(split or dataset.splits[-1])
    video = next((video for video in videos if len(video) >= count), max(videos, key=len))
    frames = tuple(video.frame_rgb(index) for index in range(min(count, len(video))))
    return ParityVideo(f"{dataset.name}/{video.name}", frames)


def check_parity(
    variant: Variant,
    reference: Reference,
    video: ParityVideo,
    *,
    folder: Path,
    entry: BundleConfiguration,
) -> Parity:
    """Run `entry`'s files in `folder` through the runtime, and `reference`, over the video.

    Labels are compared as the runtime gives them; logits as ONNX Runtime gives them when the graph has them as an
    output, which the bundle's own graph has not.

    Raises:
        InputError: the network's own logits are not numbers.
        ParityError: labels agree on less than 99.9 % of the pixels of any step, or logits differ by more than 5 % of
            the largest. In a lower precision agreement is only recorded, for the loss of mIoU decides: logits must be
            numbers there. The message names role, step, output and, for a torch network, the first layer that diverges.
    """
    height, width = variant.knobs.size_hw
    frames = [fit_frame(frame, (height, width)) for frame in video.frames_rgb]
    if not variant.knobs.stateful:
        frames = frames[:FRAMES]
    graphs = GraphRunner(variant, [LOGITS])
    reference.reset()
    exact = variant.knobs.is_exact
    equal, worst = 0.0, None
    with Session(folder, entry, device="cpu", threads=1) as session:
        for step, frame in enumerate(frames):
            expected, expected_logits = reference.step(frame)
            if expected_logits is not None and not np.isfinite(expected_logits).all():
                raise InputError(
                    f"{variant.name}: the network itself gives NaN or infinite logits, on frame {step} of {video.name} "
                    "| its weights are damaged, or its mean and std are wrong; nothing was written"
                )
            labels = session.step(frame)
            outputs = graphs.step(frame)
            if labels.shape != expected.shape:
                raise ParityError(
                    f"{variant.name}: labels have another size | got {labels.shape}, expected {expected.shape}"
                )
            agreement = float((labels == expected).mean())
            error, bound = None, np.inf
            if expected_logits is not None and LOGITS in outputs:
                error = float(np.abs(outputs[LOGITS][0] - expected_logits).max())
                bound = MAXIMUM_LOGIT_ERROR * max(1e-6, float(np.abs(expected_logits).max()))
                worst = error if worst is None or not error <= worst else worst
            # Written so that a nan fails.
            if exact and not (agreement >= MINIMUM_AGREEMENT and (error is None or error <= bound)):
                raise ParityError(_explain(variant, reference, frames, step, agreement, error))
            if error is not None and not np.isfinite(error):
                raise ParityError(_explain_overflow(variant, step))
            equal += agreement
    return Parity(video.name, len(frames), equal / len(frames), worst)


def _explain_overflow(variant: Variant, step: int) -> str:
    knobs = variant.knobs
    lower = knobs.precision if knobs.precision != "fp32" else f"--state-dtype {knobs.state_dtype}"
    return (
        f"{variant.name}: graph {variant.role_at(step)} gives NaN or infinite logits at step {step} | the network's "
        f"are finite, so its inner values leave the range of {lower} | choose another --precision; nothing was written"
    )


def _explain(
    variant: Variant,
    reference: Reference,
    frames: Sequence[np.ndarray],
    step: int,
    agreement: float,
    logit_error: float | None,
) -> str:
    where = f"{variant.name}: graph {variant.role_at(step)} differs from the network at step {step}"
    share = f"output {LABELS} agrees on {100 * agreement:.2f} % of the pixels"
    logits = "" if logit_error is None else f" (largest logit difference {logit_error:.3g})"
    layer = first_diverging_layer(variant, reference, frames[: step + 1])
    first = f" | first diverging output: {layer}" if layer else f" | first diverging output: {LABELS}"
    return f"{where} | {share}{logits}, expected at least {100 * MINIMUM_AGREEMENT:.1f} %{first} | nothing was written"


def first_diverging_layer(variant: Variant, reference: Reference, frames: Sequence[np.ndarray]) -> str | None:
    """The first convolution, in execution order, whose output differs by more than rounding, with step and size.

    A graph's convolution may have a batch norm folded in, so that its channels are the network's times a factor plus a
    constant; what is left after the best such fit is the difference. None when no layer differs.
    """
    if not isinstance(reference, TorchReference):
        return None
    network = reference.module.network
    made = [name for graph in variant.graphs.values() for node in graph.graph.node for name in node.output]
    layers = {name for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d)}
    graphs = GraphRunner(variant, [name for name in made if _layer_and_channels(name)[0] in layers | {LOGITS}])
    reference.reset()
    for step, frame in enumerate(frames):
        with _recorded(network) as recorded:
            _, logits = reference.step(frame)
        outputs = graphs.step(frame)
        for layer, expected in recorded.items():
            for name, got in outputs.items():
                if _layer_and_channels(name)[0] == layer and (difference := _difference(got, expected, name)):
                    return f"{name} at step {step} (graph {variant.role_at(step)}, difference {difference:.3g})"
        if logits is not None and LOGITS in outputs:
            difference = float(np.abs(outputs[LOGITS][0] - logits).max())
            if difference > RELATIVE_TOLERANCE * float(np.abs(logits).max()):
                return f"{LOGITS} at step {step} (graph {variant.role_at(step)}, difference {difference:.3g})"
    return None


def _layer_and_channels(name: str) -> tuple[str, slice]:
    """`layer[8:16]`, a convolution that computes some channels, -> layer and those channels."""
    match = re.fullmatch(r"(.+)\[(\d+):(\d+)\]", name)
    return (match[1], slice(int(match[2]), int(match[3]))) if match else (name, slice(None))


def _difference(got: np.ndarray, expected: np.ndarray, name: str) -> float | None:
    """Largest residual of `got` after the best fit per channel of `expected`; None when it is within the tolerance."""
    expected = expected[:, _layer_and_channels(name)[1]]
    if got.shape != expected.shape:
        return None
    channels = got.shape[1]
    ours = got[0].reshape(channels, -1).astype(np.float64)
    theirs = expected[0].reshape(channels, -1).astype(np.float64)
    ours = ours - ours.mean(1, keepdims=True)
    theirs = theirs - theirs.mean(1, keepdims=True)
    energy = (theirs**2).sum(1, keepdims=True)
    factor = np.divide((ours * theirs).sum(1, keepdims=True), energy, out=np.zeros_like(energy), where=energy > 0)
    residual = float(np.abs(ours - factor * theirs).max())
    return residual if residual > RELATIVE_TOLERANCE * max(1e-6, float(np.abs(got).max())) else None


@contextmanager
def _recorded(network: nn.Module) -> Iterator[dict[str, np.ndarray]]:
    """The output of every convolution by name, in execution order."""
    outputs: dict[str, np.ndarray] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            # Copied: an in-place activation may follow.
            outputs[name] = output.detach().clone().numpy()

        return hook

    handles = [
        layer.register_forward_hook(keep(name))
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d)
    ]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
