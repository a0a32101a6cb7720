"""The progress display of `edgeseg export` and `edgeseg eval`, on stderr."""

from types import TracebackType
from typing import Any


class ExportProgress:
    """One line per stage while it runs, on a terminal; nothing stays on the screen afterwards."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        console = Console(stderr=True)
        self._display = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task: Any = None

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

    def note(self, text: str) -> None:
        """Something that the user should know; it stays on the screen."""
        self._display.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def advance(self) -> None:
        """One step of it is done."""
        if self._task is not None:
            self._display.advance(self._task)
