"""The library's report of a build under way: a share that is done for people, and the way to stop it."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

BuildProgress = Callable[[float, str], None]
"""Told the share that is done, in [0, 1], never less than before, and the name of the phase under way."""


def silent(share: float, phase: str) -> None:
    """Tells nobody."""


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class PhaseTree:
    """Nested phases, each with a number of steps; a step that has phases of its own counts as far as they are.

    Told by any thread of the library. What it calls never raises into the library, which would print the traceback:
    `failure` holds the first exception, and the build is asked to stop.
    """

    def __init__(self, progress: BuildProgress) -> None:
        self.failure: BaseException | None = None
        self._progress = progress
        self._phases: dict[str, _Phase] = {}
        self._share = 0.0
        self._cancelled = threading.Event()
        self._lock = threading.Lock()

    def cancel(self) -> None:
        """Stop the build at its next step."""
        self._cancelled.set()

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase of `steps` steps begins, inside the phase `parent` where it has one."""
        with self._lock:
            self._phases[name] = _Phase(parent, max(1, steps))
        self._tell(name)

    def step(self, name: str, index: int) -> bool:
        """Step `index`, from 0, of a phase is done. False asks the library to stop."""
        with self._lock:
            if name in self._phases:
                self._phases[name].done = index + 1
        self._tell(name)
        return not self._cancelled.is_set()

    def finish(self, name: str) -> None:
        """A phase is over, whether all its steps were reported or not."""
        with self._lock:
            phase = self._phases.pop(name, None)
            if phase is not None and phase.parent is None:
                self._share = 1.0
        self._tell(name)

    def _tell(self, name: str) -> None:
        with self._lock:
            self._share = max(self._share, self._done_of_root())
            try:
                self._progress(self._share, name)
            except BaseException as error:
                self.failure = self.failure or error
                self._cancelled.set()

    def _done_of_root(self) -> float:
        root = next((name for name, phase in self._phases.items() if phase.parent is None), None)
        return self._done(root) if root is not None else 0.0

    def _done(self, name: str) -> float:
        phase = self._phases[name]
        within = max((self._done(child) for child, each in self._phases.items() if each.parent == name), default=0.0)
        return min(1.0, (phase.done + within) / phase.steps)


def progress_monitor(module: Any, tree: PhaseTree) -> Any:
    """An `IProgressMonitor` of the library `module` that tells `tree`."""

    class Monitor(module.IProgressMonitor):
        def __init__(self) -> None:
            super().__init__()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            tree.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return tree.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            tree.finish(phase_name)

    return Monitor()
