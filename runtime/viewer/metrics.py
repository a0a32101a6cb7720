"""The loop's figures in the text format of Prometheus."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from edgeseg.optional import require
from edgeseg.runtime.viewer.board import BUCKETS_S, Histogram
from edgeseg.runtime.viewer.board_reader import BoardReader

if TYPE_CHECKING:
    from edgeseg.runtime.viewer.connections import Connections

_COUNTS = {
    "frames_captured": "Frames that the source gave.",
    "frames_dropped": "Captured frames that a newer one replaced before the network was free.",
    "frames_missed": "Frames that the source skipped because nobody took them in time.",
    "results_dropped": "Results that a slow reader of the loop did not take.",
    "reconnects": "How often the camera was lost and came back.",
    "stalls": "How often the camera was open and gave nothing.",
    "corrupt_frames": "Pictures of the camera that could not be used.",
    "frames_left": "Captured frames that nobody computed when the loop was stopped.",
    "results_left": "Results that nobody had taken when the loop was stopped.",
}
_EVENTS = ("switched", "restarted", "reset", "left out")
"""Kinds of session events that are told from the first time on, as 0."""


class LoopCollector:
    """Gives the figures as they are when they are asked for: no time series is kept.

    Args:
        facts: as `edgeseg.runtime.viewer.facts.loop_facts`.
    """

    def __init__(self, facts: Mapping[str, Any], board: BoardReader, connections: "Connections") -> None:
        self._facts, self._board, self._connections = facts, board, connections

    def collect(self) -> Iterator[Any]:
        """Metric families of prometheus_client."""
        core = require("prometheus_client.core", extra="live")
        facts, board = self._facts, self._board
        figures = board.figures()
        info = core.InfoMetricFamily("edgeseg_loop", "What runs.")
        info.add_metric((), {name: facts[name] for name in ("configuration", "compensation", "source")})
        yield info
        yield core.CounterMetricFamily(
            "edgeseg_results", "Label maps that the live view was given.", value=figures.number
        )
        for name, text in _COUNTS.items():
            yield core.CounterMetricFamily(f"edgeseg_{name}", text, value=facts["counts"][name])
        yield _labelled_counter(
            core,
            "edgeseg_session_events",
            "Changes of the session: switched to another configuration, restarted after a step that hung, reset where "
            "the video broke off, configurations left out that could not be loaded.",
            "kind",
            {**dict.fromkeys(_EVENTS, 0), **facts["session_events"]},
        )
        yield core.GaugeMetricFamily(
            "edgeseg_source_fps", "Frame rate that the source states.", value=facts["source_fps"]
        )
        yield core.GaugeMetricFamily(
            "edgeseg_source_up",
            "1; 0 while the camera is lost, or stalls, and is being opened again.",
            value=int(not facts["is_lost"]),
        )
        yield core.GaugeMetricFamily("edgeseg_results_fps", "Results per second of late.", value=board.fps())
        yield core.GaugeMetricFamily(
            "edgeseg_seconds_since_result", "Since the last result, or since the start.", value=board.silent_s(figures)
        )
        yield core.GaugeMetricFamily(
            "edgeseg_seconds_since_new_labels",
            "Since the network's last new labels, or since the start.",
            value=board.without_labels_s(figures),
        )
        yield _gauge(
            core,
            "edgeseg_source_age_seconds",
            "How old the frame is now that the newest labels were computed from.",
            board.source_age_s(figures),
        )
        yield _histogram(core, "edgeseg_step_seconds", "What a step of the network took.", figures.step)
        yield _histogram(core, "edgeseg_age_seconds", "Age of the labels when they could be read.", figures.age)
        yield core.GaugeMetricFamily(
            "edgeseg_viewer_connections", "Open connections of viewers.", value=len(self._connections)
        )
        yield core.CounterMetricFamily(
            "edgeseg_viewer_connections_refused",
            "Connections that found no place.",
            value=self._connections.refused,
        )


def _labelled_counter(core: Any, name: str, text: str, label: str, counts: Mapping[str, int]) -> Any:
    family = core.CounterMetricFamily(name, text, labels=(label,))
    for value, count in counts.items():
        family.add_metric((value,), count)
    return family


def _gauge(core: Any, name: str, text: str, value: float | None) -> Any:
    """One without a sample where there is nothing to tell."""
    family = core.GaugeMetricFamily(name, text)
    if value is not None:
        family.add_metric((), value)
    return family


def _histogram(core: Any, name: str, text: str, histogram: Histogram) -> Any:
    family = core.HistogramMetricFamily(name, text)
    total, buckets = 0, []
    for limit_s, count in zip((*map(str, BUCKETS_S), "+Inf"), histogram.counts, strict=True):
        total += count
        buckets.append((limit_s, total))
    family.add_metric((), buckets, histogram.sum_s)
    return family
