"""One file after another, each named by the time that it begins at."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from edgeseg.runtime.sinks.base import FileSink, Sink
from edgeseg.runtime.sinks.file_names import at_time, has_time, numbered, with_time

if TYPE_CHECKING:
    from pathlib import Path

    from edgeseg.runtime.result import Result


class Segments(Sink):
    """Writes through a sink, and through a new one as soon as a segment has its length.

    A name that is taken already gets a number, so that a service may be restarted as often as it likes.

    Args:
        name: path with fields of the time, see `edgeseg.runtime.sinks.file_names.at_time`; `-%Y%m%dT%H%M%S` is put
            before the ending of one that has none.
        make: gives the sink that writes a path.
        time_of: seconds of a result in the recording, as `edgeseg.runtime.sinks.base.time_of` gives it.
        segment_s: length; None: one segment for the whole run.
        wall_clock: seconds since the epoch, for the names.

    Raises:
        InputError: the name holds other fields.
    """

    def __init__(
        self,
        name: str,
        make: "Callable[[Path], FileSink]",
        *,
        time_of: "Callable[[Result], float]",
        segment_s: float | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = with_time(name)
        self._make, self._time_of, self._segment_s, self._wall_clock = make, time_of, segment_s, wall_clock
        self._sink: FileSink | None = None
        self._began_s: float | None = None
        self.path = self._free().path

    def check(self) -> None:
        self._free().check()

    def open(self) -> None:
        sink = self._free()
        sink.open()
        self._sink, self.path, self._began_s = sink, sink.path, None

    def write(self, result: "Result") -> None:
        at_s = self._time_of(result)
        if self._began_s is not None and self._segment_s is not None and at_s - self._began_s >= self._segment_s:
            self.close()
            self.open()
        if self._began_s is None:
            self._began_s = at_s
        if self._sink is not None:
            self._sink.write(result)

    def close(self, error: BaseException | None = None) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.close(error)
            self.path = sink.path

    def _free(self) -> FileSink:
        """The sink of a name that is not taken."""
        path = at_time(self.name, self._wall_clock())
        sink, number = self._make(path), 1
        while sink.is_taken:
            number += 1
            sink = self._make(numbered(path, number))
        return sink


def file_sink(
    name: str,
    make: "Callable[[Path, bool], FileSink]",
    *,
    time_of: "Callable[[Result], float]",
    segment_s: float | None = None,
    overwrite: bool = False,
) -> Sink:
    """The sink of a name that a user gave: one file, or `Segments` where it holds the time or has a length.

    Args:
        make: gives the sink that writes a path; the second argument: whether it may replace what is there.
        overwrite: replace an earlier recording. Names with the time replace none, being free for ever.
    """
    if segment_s is None and not has_time(name):
        return make(at_time(name, 0.0), overwrite)
    return Segments(name, lambda path: make(path, False), time_of=time_of, segment_s=segment_s)
