"""The contenders of `benchmarks.peers`: our configurations and the peers, each as one function."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from benchmarks.peer_networks import DenseNetwork, Peer, Predict
from edgeseg.bundle import Bundle, BundleConfiguration
from edgeseg.errors import InputError
from edgeseg.export.accuracy import EvaluationData, score_offsets
from edgeseg.export.wrapper import Preprocessing
from edgeseg.runtime.session import Session
from edgeseg.training.checkpoint import LoadedCheckpoint

FRAMES = 16
"""Frames of the video that the timed calls go through."""
SAME_NETWORK = 0.97
"""Share of equal labels below which a peer does not run the network that the bundle was made from. bfloat16 alone
changes about 0.2 % of a trained network's labels."""


@dataclass(frozen=True)
class Side:
    """One contender."""

    name: str
    predict: Predict
    miou: tuple[float, ...]
    """At k = 0..K frames of delay, at the frame rate of the scored video."""
    note: str


@dataclass(frozen=True)
class Ours:
    """The configurations of the bundle that take part."""

    dense: BundleConfiguration
    """What the peers run: dense, their size, a label per pixel."""
    accurate: BundleConfiguration
    """The most accurate one, whatever it takes."""
    picks: dict[float, BundleConfiguration]
    """By frame rate of the camera."""

    def roles(self) -> dict[str, tuple[BundleConfiguration, str]]:
        """Each configuration once, by name, with what it takes part as."""
        parts = [(entry, f"pick at {fps:g} fps") for fps, entry in self.picks.items()]
        parts += [(self.dense, "what the peers run"), (self.accurate, "most accurate")]
        roles: dict[str, tuple[BundleConfiguration, str]] = {}
        for entry, role in parts:
            before = f"{roles[entry.name][1]}, " if entry.name in roles else ""
            roles[entry.name] = (entry, before + role)
        return roles


def check_belongs_together(bundle: Bundle, checkpoint: LoadedCheckpoint, data: EvaluationData) -> None:
    """Refuse a comparison of unlike things.

    Raises:
        InputError: other classes, a network that sees two frames, or accuracy tables made on other data.
    """
    meta = checkpoint.meta
    if meta.input_frames != 1:
        raise InputError(
            f"the peers label one frame at a time | got a checkpoint of {meta.architecture}, which takes "
            f"{meta.input_frames} | give one of a network that takes one"
        )
    if bundle.classes.names != meta.classes.names:
        raise InputError(
            f"{bundle.name} has other classes than the checkpoint | got {len(bundle.classes)}, expected "
            f"{len(meta.classes)} | export this checkpoint, or leave --bundle out"
        )
    expected = (data.dataset.name, data.split, data.labelled_frames)
    for entry in bundle.configurations:
        accuracy = entry.accuracy
        got = (accuracy.data_set, accuracy.split, accuracy.frames) if accuracy else None
        if got != expected:
            raise InputError(
                f"{bundle.name}: {entry.name} was not scored on the data that the peers are | got "
                f"{_described(got)}, expected {_described(expected)} | export with this --data and --split"
            )


def dense_configuration(bundle: Bundle, size_hw: tuple[int, int] | None) -> BundleConfiguration:
    """The dense configuration of `size_hw` with a label per pixel; None: the size of the most accurate configuration.

    Raises:
        InputError: the bundle has none of that size, or several (of different networks).
    """
    size_hw = size_hw or most_accurate(bundle).knobs.size_hw
    dense = [entry for entry in bundle.configurations if not entry.knobs.stateful and entry.knobs.labels_stride == 1]
    fitting = [entry for entry in dense if entry.knobs.size_hw == size_hw]
    if len(fitting) != 1:
        sizes = ", ".join(sorted({"x".join(map(str, entry.knobs.size_hw)) for entry in dense})) or "none"
        raise InputError(
            f"--peer-size: {bundle.name} has {len(fitting)} dense configurations of {size_hw[0]}x{size_hw[1]} with "
            f"a label per pixel, expected one | it has the sizes {sizes}"
        )
    return fitting[0]


def most_accurate(bundle: Bundle) -> BundleConfiguration:
    """The configuration with the best mIoU without delay."""
    return max(bundle.configurations, key=lambda entry: table_of(entry)[0])


def table_of(entry: BundleConfiguration) -> tuple[float, ...]:
    """mIoU at k = 0..K.

    Raises:
        InputError: the configuration has no accuracy table.
    """
    if entry.accuracy is None:
        raise InputError(f"{entry.name} has no accuracy table | export the bundle with --data")
    return entry.accuracy.miou


def dense_network(checkpoint: LoadedCheckpoint, size_hw: tuple[int, int], threads: int) -> DenseNetwork:
    """What the peers run: the checkpoint's network at one input size."""
    meta = checkpoint.meta
    preprocessing = Preprocessing(meta.mean, meta.std, meta.colour_order)
    return DenseNetwork(checkpoint.network, preprocessing, size_hw, threads)


def our_sides(
    bundle: Bundle, ours: Ours, *, threads: int, camera_hw: tuple[int, int], stack: ExitStack
) -> dict[str, Side]:
    """Sessions of our configurations, by name; `stack` closes them."""
    sides = {}
    for name, (entry, role) in ours.roles().items():
        session = stack.enter_context(
            Session(
                bundle.root, entry, graph_colour_order=bundle.colour_order, threads=threads, frame_size_hw=camera_hw
            )
        )
        height, width = session.labels_size_hw
        sides[name] = Side(name, session.step, table_of(entry), f"{role}; labels {height}x{width}")
    return sides


def peer_side(name: str, peer: Peer, data: EvaluationData, entries: int) -> Side:
    """A peer with its accuracy table of `entries` entries, made on camera frames as our tables are."""
    tables = score_offsets(_Stateless(peer.predict), data, size_hw=data.size_hw, stateful=False, max_offset=entries - 1)
    return Side(name, peer.predict, tables.miou, peer.note)


def camera_frames(data: EvaluationData) -> list[np.ndarray]:
    """The first frames of the first video, uint8 `(H, W, 3)` RGB as the camera gives them."""
    video = data.videos[0].video
    return [video.frame_rgb(index) for index in range(min(FRAMES, len(video)))]


def label_agreement(side: Side, reference: Side, frames: Sequence[np.ndarray]) -> float:
    """Share of pixels that both sides give the same label, over `frames`.

    Raises:
        InputError: so small that they do not run the same network.
    """
    share = float(np.mean([np.mean(side.predict(frame) == reference.predict(frame)) for frame in frames]))
    if share < SAME_NETWORK:
        raise InputError(
            f"{side.name} and {reference.name} do not run the same network | got {100 * share:.1f} % equal labels, "
            f"expected at least {100 * SAME_NETWORK:.0f} % | the bundle is of another checkpoint: leave --bundle out"
        )
    return share


def over_frames(frames: Sequence[np.ndarray], predict: Predict) -> Callable[[], None]:
    """A call that labels the next of `frames`, round and round."""
    count = 0

    def call() -> None:
        nonlocal count
        predict(frames[count % len(frames)])
        count += 1

    return call


class _Stateless:
    """A function as a predictor without state."""

    def __init__(self, predict: Predict) -> None:
        self._predict = predict

    def reset(self) -> None:
        """Nothing to forget."""

    def __call__(self, frame_rgb: np.ndarray) -> np.ndarray:
        return self._predict(frame_rgb)


def _described(scored: tuple[str, str, int] | None) -> str:
    return f"{scored[0]} {scored[1]} ({scored[2]} frames)" if scored else "no accuracy table"
