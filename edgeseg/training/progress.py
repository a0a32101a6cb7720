"""A progress bar on stderr: loss, newest mIoU, steps and time left."""

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
    """A `Reporter` for terminals; a context manager. Without a terminal it prints one line per validation."""

    def __init__(self, name: str, steps: int) -> None:
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

    def stepped(self, step: int, loss: float) -> None:
        self._loss = loss if self._loss is None else _SMOOTHING * self._loss + (1 - _SMOOTHING) * loss
        self._progress.update(self._task, completed=step, loss=f"{self._loss:.3f}")

    def validated(self, step: int, validation: Validation) -> None:
        self._progress.update(self._task, miou=f"{validation.miou:.3f}")
        if not self._console.is_terminal:
            loss = "-" if self._loss is None else f"{self._loss:.3f}"
            self._console.print(f"step {step}: loss {loss}, val mIoU {validation.miou:.4f}", highlight=False)
