"""Options of `edgeseg run` about what it writes."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeseg.cli.options import check_not_source, parse_size_hw
from edgeseg.errors import InputError

if TYPE_CHECKING:
    from edgeseg.classes import ClassSet
    from edgeseg.runtime.sinks import FileSink, Sink
    from edgeseg.runtime.source import Source

_OPTIONS = (
    click.option("--save", metavar="FILE.mp4",
                 help="Write a video with the labels over the frames. In names %Y %m %d %H %M %S stand for the "
                 "time that the file begins at."),
    click.option("--save-size", metavar="HxW", help="Size of the video.  [default: the source's]"),
    click.option("--json-lines", metavar="FILE",
                 help="Write a line of JSON per result, after those of earlier runs; - for standard output."),
    click.option("--save-labels", metavar="FOLDER", help="Write a PNG file of label values per frame, its newest."),
    click.option("--palette", is_flag=True, help="Give these files the colours of the classes."),
    click.option("--segment", type=click.FloatRange(1.0), metavar="SECONDS",
                 help="Begin a new video, file of lines and folder so often, with the time in their names."),
    click.option("--overwrite", is_flag=True,
                 help="Replace a video, lines or labels of an earlier run. Names with the time are never taken: "
                 "it has no effect on them."),
    click.option("--shared-memory", metavar="NAME",
                 help="Keep the newest labels in shared memory for another process."),
)  # fmt: skip


@dataclass(frozen=True)
class SinkArguments:
    """What the options say. They are refused where they contradict each other."""

    save: str | None
    save_size_hw: tuple[int, int] | None
    json_lines: str | None
    save_labels: str | None
    palette: bool
    segment_s: float | None
    overwrite: bool
    shared_memory: str | None

    def __post_init__(self) -> None:
        if self.palette and not self.save_labels:
            raise InputError("--palette gives label files their colours | name their folder: --save-labels FOLDER")
        if self.save_size_hw and not self.save:
            raise InputError("--save-size is the size of a video | name its file: --save FILE.mp4")
        has_file = bool(self.save or self.save_labels or (self.json_lines and not self.to_stdout))
        for option, value in (("--segment", self.segment_s), ("--overwrite", self.overwrite)):
            if value and not has_file:
                raise InputError(f"{option} is about files | name one: --save, --json-lines or --save-labels")

    @property
    def to_stdout(self) -> bool:
        """Whether standard output is the lines'."""
        return self.json_lines == "-"

    def check_source(self, source: str) -> None:
        """Refuse to write over the source, or one file over another."""
        check_not_source(source, save=self.save, json_lines=self.json_lines, save_labels=self.save_labels)

    def check_places(self, classes: "ClassSet") -> None:
        """Refuse what `sinks` would refuse, as far as that needs no source: one may be hours away.

        Raises:
            InputError: as of `sinks`.
        """
        # No place depends on the rate or the size.
        video, others = self._made(classes, paced=True, fps=1.0, size_hw=(2, 2))
        _check(video, others)

    def sinks(self, source: "Source", classes: "ClassSet") -> "tuple[Sink | None, list[Sink]]":
        """The sink of the video, and the others: not open, but checked, so that a mistake is told before the work.

        Raises:
            InputError: a place cannot be written, or holds an earlier recording.
        """
        from edgeseg.runtime.sinks.video import warn_of_mpeg_4

        video, others = self._made(classes, paced=source.paced, fps=source.fps, size_hw=source.size_hw)
        _check(video, others)
        if video is not None:
            warn_of_mpeg_4(video.name)
        return video, others

    def _made(
        self, classes: "ClassSet", *, paced: bool, fps: float, size_hw: tuple[int, int]
    ) -> "tuple[Sink | None, list[Sink]]":
        """The sink of the video, and the others, for a source of that rate and size."""
        import sys

        from edgeseg.runtime.sinks import JsonLines, LabelImages, SharedLabelsSink
        from edgeseg.runtime.sinks.base import time_of
        from edgeseg.runtime.sinks.json_lines import run_name
        from edgeseg.runtime.sinks.segments import file_sink
        from edgeseg.runtime.sinks.video import video_format

        clock, run = time_of(paced=paced, fps=fps), run_name()

        def recorded(name: str, make: "Callable[[Path, bool], FileSink]") -> "Sink":
            return file_sink(name, make, time_of=clock, segment_s=self.segment_s, overwrite=self.overwrite)

        def video(path: Path, overwrite: bool) -> "FileSink":
            shown_hw = self.save_size_hw or size_hw
            return video_format()(path, fps, shown_hw, classes, time_of=clock, overwrite=overwrite)

        def lines(path: Path, overwrite: bool) -> "FileSink":
            return JsonLines(path, overwrite=overwrite, run=run)

        def labels(path: Path, overwrite: bool) -> "FileSink":
            return LabelImages(path, palette=classes if self.palette else None, overwrite=overwrite)

        saved = None if self.save is None else recorded(self.save, video)
        others: list[Sink] = []
        if self.json_lines is not None:
            others.append(JsonLines(sys.stdout, run=run) if self.to_stdout else recorded(self.json_lines, lines))
        if self.save_labels is not None:
            others.append(recorded(self.save_labels, labels))
        if self.shared_memory is not None:
            others.append(SharedLabelsSink(self.shared_memory))
        return saved, others


def _check(video: "Sink | None", others: "list[Sink]") -> None:
    for sink in (*others, *(() if video is None else (video,))):
        sink.check()


def sink_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command these options; it gets them as `written`, which are `SinkArguments`."""

    @functools.wraps(command)
    def with_sinks(*arguments: Any, save_size: str | None, segment: float | None, **others: Any) -> Any:
        names = ("save", "json_lines", "save_labels", "palette", "overwrite", "shared_memory")
        given = {name: others.pop(name) for name in names}
        size_hw = None if save_size is None else parse_size_hw(save_size)
        return command(*arguments, written=SinkArguments(save_size_hw=size_hw, segment_s=segment, **given), **others)

    for option in reversed(_OPTIONS):
        with_sinks = option(with_sinks)
    return with_sinks
