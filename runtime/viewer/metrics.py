"""The loop's figures in the text format of Prometheus."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from edgeseg.optional import require
from edgeseg.runtime.loop import Loop
from edgeseg.runtime.viewer.facts import public_name
from edgeseg.runtime.viewer.hub import BUCKETS_S, Histogram, Hub

if TYPE_CHECKING:
    from edgeseg.runtime.viewer.connections import Connections

_COUNTS = {
    "frames_captured": "Frames that the source gave.",
    "frames_dropped": "Captured frames that a newer one replaced before the network was free.",
    "frames_missed": "Frames that the source skipped because nobody took them in time.",
    "results_dropped": "Results that a slow reader of the loop did not take.",
}


class LoopCollector:
    """Reads the figures when they are asked for: no time series is kept, and the loop counts nothing for it."""

    def __init__(self, loop: Loop, hub: Hub, connections: "Connections") -> None:
        self._loop, self._hub, self._connections = loop, hub, connections

    def collect(self) -> Iterator[Any]:
        """Metric families of prometheus_client."""
        core = require("prometheus_client.core", extra="live")
        loop, hub = self._loop, self._hub
        newest = hub.newest
        counts = loop.counts
        configuration = loop.session.configuration.name if newest is None else newest.result.configuration
        info = core.InfoMetricFamily("edgeseg_loop", "What runs.")
        info.add_metric(
            (),
            {
                "configuration": configuration,
                "compensation": loop.compensation.name,
                "source": public_name(loop.source.name),
            },
        )
        yield info
        results = 0 if newest is None else newest.number
        yield core.CounterMetricFamily("edgeseg_results", "Label maps that the live view was given.", value=results)
        for name, text in _COUNTS.items():
            yield core.CounterMetricFamily(f"edgeseg_{name}", text, value=counts[name])
        yield core.GaugeMetricFamily("edgeseg_source_fps", "Frame rate that the source states.", value=loop.source.fps)
        yield core.GaugeMetricFamily("edgeseg_results_fps", "Results per second of late.", value=hub.fps())
        yield core.GaugeMetricFamily(
            "edgeseg_seconds_since_result", "Since the last result, or since the start.", value=hub.silent_s
        )
        yield _histogram(core, "edgeseg_step_seconds", "What a step of the network took.", hub.step)
        yield _histogram(core, "edgeseg_age_seconds", "Age of the labels when they could be read.", hub.age)
        yield core.GaugeMetricFamily(
            "edgeseg_viewer_connections", "Open connections of viewers.", value=len(self._connections)
        )
        yield core.CounterMetricFamily(
            "edgeseg_viewer_connections_refused",
            "Connections that found no place.",
            value=self._connections.refused,
        )


def _histogram(core: Any, name: str, text: str, histogram: Histogram) -> Any:
    family = core.HistogramMetricFamily(name, text)
    total, buckets = 0, []
    for limit_s, count in zip((*map(str, BUCKETS_S), "+Inf"), list(histogram.counts), strict=True):
        total += count
        buckets.append((limit_s, total))
    family.add_metric((), buckets, histogram.sum_s)
    return family
