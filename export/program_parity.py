"""Programs held against the network, or against the graphs that they were made from."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgeseg.bundle import BundleConfiguration, Parity, Programs
from edgeseg.errors import ParityError
from edgeseg.export.cached_video import fit_frame
from edgeseg.export.parity import FRAMES, MINIMUM_AGREEMENT, STATEFUL_FRAMES, ParityVideo
from edgeseg.export.variant import Reference
from edgeseg.runtime.session import Session

MINIMUM_LOW_AGREEMENT = 0.99
"""The same in a lower precision, against the graphs, where these agree with the network well enough."""
PROGRAM_DEVICES = {"torch": "torch:cpu", "torch-tensorrt": "torch-tensorrt:0"}
"""Form of a program -> device that it is checked on."""


def check_programs(
    entry: BundleConfiguration, reference: Reference, video: ParityVideo, *, folder: Path
) -> Mapping[str, Programs]:
    """The programs of `entry` in `folder`, each form run over the video and compared as `check_parity` compares graphs.

    In full precision it is held against the network, `reference`. In a lower one the network gives other labels, and a
    rounding that goes the other way changes all that follows: there it is held against the graphs that it was made
    from, and may be as far from them as they are from the network, twice over.

    Args:
        entry: with the parity of its graphs.

    Raises:
        ParityError: labels agree on too few pixels of a step.
    """
    checked = {}
    for form, programs in entry.programs.items():
        if entry.knobs.is_exact:
            parity = _agreement(form, entry, reference, video, folder, MINIMUM_AGREEMENT)
        else:
            own = entry.parity.label_agreement if entry.parity else 1.0
            with GraphReference(folder, entry) as graphs:
                parity = _agreement(form, entry, graphs, video, folder, min(MINIMUM_LOW_AGREEMENT, 2 * own - 1))
        checked[form] = replace(programs, parity=parity)
    return checked


class GraphReference:
    """The graphs of a configuration as what its programs are held against."""

    def __init__(self, folder: Path, entry: BundleConfiguration) -> None:
        self._session = Session(folder, entry, device="cpu", threads=1)

    def reset(self) -> None:
        """Forget all state."""
        self._session.reset()

    def step(self, frame_rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """uint8 `(H, W, 3)` RGB -> labels uint8 `(h, w)`; logits are inside the graph."""
        return self._session.step(frame_rgb), None

    def __enter__(self) -> "GraphReference":
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()


def _agreement(
    form: str, entry: BundleConfiguration, reference: Reference, video: ParityVideo, folder: Path, minimum: float
) -> Parity:
    count = STATEFUL_FRAMES if entry.knobs.stateful else FRAMES
    frames = [fit_frame(frame, entry.knobs.size_hw) for frame in video.frames_rgb[:count]]
    reference.reset()
    total = 0.0
    with Session(folder, entry, device=PROGRAM_DEVICES[form], threads=1) as session:
        for step, frame in enumerate(frames):
            agreement = float((session.step(frame) == reference.step(frame)[0]).mean())
            if not agreement >= minimum:
                raise ParityError(
                    f"{entry.name}: the {form} program {entry.role_at(step)} differs from "
                    f"{'the network' if entry.knobs.is_exact else 'its graph'} at step {step} | labels agree on "
                    f"{100 * agreement:.2f} % of the pixels, expected at least {100 * minimum:.1f} % | "
                    "nothing was written"
                )
            total += agreement
    return Parity(video.name, len(frames), total / len(frames), None)
