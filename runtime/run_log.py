"""Logs of a run for machines and for files, and its summary now and then."""

import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING

from edgeseg.runtime.side_thread import beside

if TYPE_CHECKING:
    from edgeseg.runtime.result import LoopSummary

_log = logging.getLogger(__name__)


def event(kind: str, **fields: object) -> dict[str, dict[str, object]]:
    """The `extra` of a log record that tells an event: its field `event` is `kind`, and `fields` go with it."""
    return {"fields": {"event": kind, **fields}}


class JsonFormatter(logging.Formatter):
    """One line of JSON per record: `time` (ISO 8601, UTC), `level`, `logger`, `message`, `error` with the traceback
    where there is one, and whatever the record was given as `extra={"fields": {...}}`.
    """

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", None)
        line = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        # Another library's record may have anything by that name.
        if isinstance(fields, dict):
            line |= {key: value for key, value in fields.items() if key not in line}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


@contextmanager
def logging_to_stderr(*, as_json: bool, level: int = logging.INFO) -> Iterator[None]:
    """Our logs from that level on, on standard error until the block ends: lines of JSON, or of text with the time.

    With the lines of JSON are, so that nothing of this process stands between them, the warnings of other libraries and
    of Python, and the exceptions that end a thread.
    """
    logger, handler = logging.getLogger("edgeseg"), logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if as_json else logging.Formatter("%(asctime)s %(message)s"))
    handler.setLevel(level)
    before = logger.level
    heard = logging.getLogger() if as_json else logger
    heard.addHandler(handler)
    logger.setLevel(level)
    try:
        with _all_logged() if as_json else nullcontext():
            yield
    finally:
        heard.removeHandler(handler)
        logger.setLevel(before)


@contextmanager
def _all_logged() -> Iterator[None]:
    """What Python itself would print is logged until the block ends."""
    before = threading.excepthook
    logging.captureWarnings(True)
    threading.excepthook = _log_end_of_thread
    try:
        yield
    finally:
        threading.excepthook = before
        logging.captureWarnings(False)


def _log_end_of_thread(failure: threading.ExceptHookArgs) -> None:
    if failure.exc_type is SystemExit:
        return
    name = "?" if failure.thread is None else failure.thread.name
    error = failure.exc_value or failure.exc_type()
    _log.error("the thread %s ended: %r", name, error, exc_info=error, extra=event("thread_failed", thread=name))


@contextmanager
def logged_every(seconds: float, summary: "Callable[[], LoopSummary]") -> Iterator[None]:
    """Log `summary()` every `seconds`, also while no result comes, until the block ends.

    The message tells results, frames per second and age; the field `summary` of the record has all of it.
    """
    with beside("edgeseg-summary", partial(_log_until, seconds, summary)):
        yield


def _log_until(seconds: float, summary: "Callable[[], LoopSummary]", over: threading.Event) -> None:
    results, at_s = 0, 0.0
    while not over.wait(seconds):
        now = summary()
        passed_s = now.seconds - at_s
        lately_fps = (now.results - results) / passed_s if passed_s > 0 else 0.0
        results, at_s = now.results, now.seconds
        _log.info(
            "%s: %d results in %.0f s, %.1f/s lately, %.0f ms old (p50), %d frames dropped, %d missed",
            now.configuration,
            now.results,
            now.seconds,
            lately_fps,
            now.age_ms.get("p50", float("nan")),
            now.frames_dropped,
            now.frames_missed,
            extra={"fields": {"lately_fps": round(lately_fps, 3), "summary": now.as_dict()}},
        )
