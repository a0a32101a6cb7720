"""Measures a bundle's candidates on this device: from frame bytes in to label bytes out, nothing trimmed."""

import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgeseg.bundle import Bundle, Candidate
from edgeseg.config import Compensation
from edgeseg.device_profile import DeviceProfile, LatencyProfile
from edgeseg.errors import InputError
from edgeseg.runtime.backends.base import runner_class
from edgeseg.runtime.bench import Bench
from edgeseg.runtime.device import device_facts
from edgeseg.runtime.jetson.board_monitor import BoardMonitor, watched_board
from edgeseg.runtime.optical_flow import flow_size_hw, unusable_reason
from edgeseg.runtime.pick import rated_table
from edgeseg.runtime.race import Contender, Race
from edgeseg.runtime.threads import checked_threads

SAMPLES = 60
"""Samples per candidate that stays to the end."""


def profile_bundle(
    bundle: Bundle,
    *,
    device: str = "cpu",
    fps: float,
    exhaustive: bool = False,
    samples: int = SAMPLES,
    threads: int | None = None,
    frame_size_hw: tuple[int, int] | None = None,
    frames_rgb: Sequence[np.ndarray] | None = None,
    compensations: Sequence[Compensation] | None = None,
    progress: Callable[[str, float], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> DeviceProfile:
    """Measure the candidates of `bundle` on `device`, taking turns; those that cannot win at `fps` are left early.

    A step is what `Session.step` does, resizing and colour order included, steps back to back; the steps of a stateful
    configuration are steady ones, its first step after a reset is noted beside them. Where labels are moved, a step
    ends when the moved ones can be read, and the flow of the camera's frames runs beside the network
    (`edgeseg.runtime.moved_steps`). Sessions are loaded at their first turn and stay loaded while the machine has
    memory; beyond that they are loaded anew for each turn.

    A compensation that cannot run here (its flow needs other hardware, or the frames are too small for one) is noted
    with the reason instead of samples. `facts["unmoved"]` counts, by reason, timed steps whose labels stayed as they
    were: with noise there is none, in a video that may be a scene cut.

    A Jetson is watched meanwhile: `facts["board"]` holds its temperatures and power, entries the energy of a step where
    that can be told, and the profile is marked as invalid, with the reason, when the board cut its clocks.

    Args:
        fps: frame rate of the camera, which decides what can still win (`edgeseg.runtime.race`) and how often a frame
            needs a flow.
        exhaustive: measure everything in full.
        samples: samples per candidate, at least 1.
        threads: CPU threads of one step; None: all that this process may use.
        frame_size_hw: size of the camera's frames; None: each configuration's own.
        frames_rgb: consecutive uint8 `(H, W, 3)` RGB frames to step through, to and fro, resized as needed; None:
            seeded noise that moves.
        compensations: measured with each configuration; None: those that it has accuracy tables for.
        progress: called after each turn with the candidate's name and the share of the work that is done.
        clock: seconds.

    Raises:
        ArtifactError: a file of the bundle is damaged.
        DeviceError: the device is unknown, not usable here, or failed.
        InputError: a number is out of range.
    """
    if samples < 1 or not 0 < fps < float("inf"):
        raise InputError(f"samples is at least 1 and fps positive | got {samples} and {fps}")
    runner_class(device)
    bundle.verify()
    facts = device_facts()
    threads = checked_threads(threads)
    candidates = bundle.candidates(compensations)
    unusable = {entry.name: reason for entry in candidates if (reason := _unusable(entry, frame_size_hw)) is not None}
    usable = [entry for entry in candidates if entry.name not in unusable]
    with (
        watched_board() as board,
        Bench(
            bundle,
            usable,
            device=device,
            threads=threads,
            fps=fps,
            frame_size_hw=frame_size_hw,
            frames_rgb=frames_rgb,
            clock=clock,
        ) as bench,
    ):
        outcomes = Race(
            _contenders(usable, fps),
            bench.turn if board is None else board.timed(bench.turn),
            samples=samples,
            exhaustive=exhaustive,
            fault=bench.flow_fault,
            progress=progress,
        ).run()
    after = device_facts()
    facts["after"] = {
        key: after[key] for key in ("date", "load_average", "frequency_mhz", "temperature_c", "clocks") if key in after
    }
    if bench.unmoved:
        facts["unmoved"] = dict(bench.unmoved)
    if board is not None:
        facts["board"] = board.facts()
    entries = [_with_energy(bench.entry(name, outcome), name, board) for name, outcome in outcomes.items()]
    entries += [_unmeasured(entry, unusable[entry.name]) for entry in candidates if entry.name in unusable]
    return DeviceProfile(
        device=device,
        facts=facts,
        bundle_name=bundle.name,
        bundle_digest=bundle.digest,
        fps=fps,
        exhaustive=exhaustive,
        frame_size_hw=frame_size_hw,
        threads=threads,
        entries=tuple(entries),
        measured_at=facts["date"],
        command_line=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        invalid_reason=None if board is None else board.throttled(),
    )


def _with_energy(entry: LatencyProfile, name: str, board: BoardMonitor | None) -> LatencyProfile:
    if board is None or not entry.samples_ms:
        return entry
    return replace(entry, energy_mj=board.energy_mj(name, float(entry.latencies_s.mean())))


def _unusable(candidate: Candidate, frame_size_hw: tuple[int, int] | None) -> str | None:
    """Why this candidate's labels cannot be moved here; None when they can, or are not to be."""
    compensation = candidate.compensation
    if not compensation.moves:
        return None
    size_hw = frame_size_hw or candidate.configuration.knobs.size_hw
    if flow_size_hw(size_hw, compensation.divisor) is None:
        return "frames of {} x {} are too small for a flow".format(*size_hw)
    return unusable_reason(compensation.flow)


def _unmeasured(candidate: Candidate, reason: str) -> LatencyProfile:
    configuration = candidate.configuration
    return LatencyProfile(
        configuration.name, configuration.digest, (), 0, skipped=reason, compensation=candidate.compensation
    )


def _contenders(candidates: Sequence[Candidate], fps: float) -> list[Contender]:
    names = {entry.name for entry in candidates}
    contenders = []
    for entry in candidates:
        configuration = entry.configuration
        macs = sum(configuration.graphs[role].macs for role in configuration.then) / len(configuration.then)
        table = rated_table(entry, fps) if entry.table else None
        plain = Candidate(configuration).name
        sibling = plain if entry.compensation.moves and plain in names else None
        contenders.append(Contender(entry.name, macs, table, sibling))
    return contenders
