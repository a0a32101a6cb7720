"""The progress display of `edgeseg export` and of what else scores or makes bundles, on standard error."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from edgeseg.cli.options import LINE_EVERY_S


class ExportProgress:
    """One line per stage while it runs, on a terminal; nothing stays on the screen afterwards.

    Without a terminal it prints a line per stage, and now and then how far a long stage is. What is over soon, done or
    refused, is silent: the first lines come together after `line_every_s`.

    Args:
        line_every_s: seconds before the first line, and between two lines about the same stage.
        clock: seconds on a clock that never goes back.
    """

    def __init__(self, *, line_every_s: float = LINE_EVERY_S, clock: Callable[[], float] = time.monotonic) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._console = Console(stderr=True)
        self._display = Progress(*columns, console=self._console, transient=True, disable=not self._console.is_terminal)
        self._task: Any = None
        self._line_every_s, self._clock = line_every_s, clock
        self._text, self._steps, self._done = "", 0, 0
        self._untold: list[str] = []
        self._start_s = self._began_s = self._last_line_s = clock()

    def __enter__(self) -> "ExportProgress":
        self._display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._display.stop()

    def stage(self, text: str, steps: int) -> None:
        """A new stage begins, of about `steps` steps."""
        if self._task is not None:
            self._display.remove_task(self._task)
        self._task = self._display.add_task(text, total=steps)
        self._text, self._steps, self._done, self._began_s = text, steps, 0, self._clock()
        self._tell(text)

    def note(self, text: str) -> None:
        """Something that the user should know; it stays on the screen."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def advance(self) -> None:
        """One step of it is done."""
        if self._task is None:
            return
        self._display.advance(self._task)
        self._done += 1
        if self._steps > 1 and self._clock() - self._last_line_s >= self._line_every_s:
            self._tell(f"{self._text}: {self._done} of {self._steps}, {self._time_left()} left")

    def _time_left(self) -> str:
        from datetime import timedelta

        step_s = (self._clock() - self._began_s) / self._done
        return str(timedelta(seconds=round(step_s * max(0, self._steps - self._done))))

    def _tell(self, line: str) -> None:
        if self._console.is_terminal:
            return
        self._untold.append(line)
        if self._clock() - self._start_s < self._line_every_s:
            return
        for each in self._untold:
            self.note(each)
        self._untold.clear()
        self._last_line_s = self._clock()
