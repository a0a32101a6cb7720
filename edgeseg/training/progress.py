"""A progress bar on stderr, or lines where it is no terminal: loss, newest mIoU, steps and time left."""

import time
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from edgeseg.training.validation import Validation

_SMOOTHING = 0.95


class ProgressBar:
    """A `Reporter` for terminals; a context manager. Without a terminal it prints a line now and then.

    Args:
        line_every_s: seconds between two lines where there is no terminal; a validation always gets one.
        clock: seconds on a clock that never goes back.
    """

    def __init__(
        self, name: str, steps: int, *, line_every_s: float = 15.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._steps = steps
        self._line_every_s = line_every_s
        self._clock = clock
        self._last_line_s = self._began_s = clock()
        self._first_step: int | None = None
        self._miou = "-"
        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}  mIoU {task.fields[miou]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task: TaskID = self._progress.add_task(name, total=steps, loss="-", miou="-")
        self._loss: float | None = None

    def __enter__(self) -> "ProgressBar":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def told(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True, markup=False)

    def stepped(self, step: int, loss: float) -> None:
        if self._first_step is None:
            self._first_step = step
            # From the first step's end: what was loaded before it is not paid again, and a resumed training has not
            # run the steps before.
            self._began_s = self._clock()
        self._loss = loss if self._loss is None else _SMOOTHING * self._loss + (1 - _SMOOTHING) * loss
        self._progress.update(self._task, completed=step, loss=f"{self._loss:.3f}")
        if self._clock() - self._last_line_s >= self._line_every_s:
            self._line(step)

    def validated(self, step: int, validation: Validation) -> None:
        self._miou = f"{validation.miou:.4f}"
        self._progress.update(self._task, miou=self._miou)
        self._line(step)

    def _line(self, step: int) -> None:
        if self._console.is_terminal:
            return
        now = self._clock()
        self._last_line_s = now
        done = step - (step if self._first_step is None else self._first_step)
        left = timedelta(seconds=round((now - self._began_s) / done * (self._steps - step))) if done else "-"
        loss = "-" if self._loss is None else f"{self._loss:.3f}"
        text = f"step {step} of {self._steps}: loss {loss}, val mIoU {self._miou}, {left} left"
        self._console.print(text, highlight=False, soft_wrap=True)
