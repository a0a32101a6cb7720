"""What the camera loop adds to the bare engine call, and whether it leaks.

    python -m benchmarks.loop --bundle shipped:street --out benchmarks/results

Three contenders take turns on the same frames, `--frames` of them a turn: ONNX Runtime's `run` alone, `Session.step`,
and the loop over frames in memory as fast as it goes, start and stop of its threads included. Then 10,000 frames go
through the loop, and the resident memory before and after is compared.
"""

import gc
import itertools
import statistics
import time
from collections.abc import Callable

import numpy as np
import onnxruntime

from benchmarks.measure import interleave, machine_facts, report_parser, write_report
from edgeseg.bundle import Bundle
from edgeseg.data.video import Video
from edgeseg.runtime.clip import noise_frames
from edgeseg.runtime.device import resident_mb
from edgeseg.runtime.loop import Loop
from edgeseg.runtime.session import Session
from edgeseg.runtime.session_loading import load
from edgeseg.runtime.source import VideoSource
from edgeseg.shipped import bundle_path

LIMIT_MS, LIMIT_SHARE = 1.0, 0.03
"""The loop may add the larger of the two."""
LEAK_STEPS, LEAK_WARM_UP, LEAK_LIMIT_MB = 10_000, 1_000, 5.0


class MemoryVideo(Video):
    """A few frames over and over, copied at each read as a decoder would make them."""

    name, fps = "memory", 1000.0

    def __init__(self, frames_rgb: list[np.ndarray], length: int) -> None:
        self._frames, self._length = frames_rgb, length
        self.size_hw = frames_rgb[0].shape[:2]

    def __len__(self) -> int:
        return self._length

    def frame_rgb(self, index: int) -> np.ndarray:
        return self._frames[index % len(self._frames)].copy()

    def labels(self, index: int) -> np.ndarray:
        raise IndexError(index)


def main() -> None:
    parser = report_parser("loop", __doc__)
    parser.add_argument("--bundle", default="shipped:street")
    parser.add_argument("--configuration", action="append", help="may be repeated; default: smallest and largest")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of a step")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--frames", type=int, default=40, help="frames a turn")
    options = parser.parse_args()
    bundle = Bundle.open(bundle_path(options.bundle))
    rows: list[dict[str, object]] = []
    samples: dict[str, list[float]] = {}
    for name in options.configuration or _smallest_and_largest(bundle):
        with load(bundle, configuration=name, threads=options.threads) as session:
            seconds = _compare(session, bundle, options.rounds, options.frames)
        samples |= {f"{name} {contender}": values for contender, values in seconds.items()}
        rows.append(_row(name, options.threads, seconds))
    smallest = _smallest_and_largest(bundle)[0]
    with load(bundle, configuration=smallest, threads=options.threads) as session:
        growth_mb = _memory_growth_mb(session)
    facts = machine_facts()
    facts["rounds"], facts["frames_a_turn"] = options.rounds, options.frames
    facts["memory_growth_mb"] = (
        f"{growth_mb:.2f} over {LEAK_STEPS} steps of {smallest}, at most {LEAK_LIMIT_MB:g} allowed"
    )
    for path in write_report(options.out, "loop", rows, facts, samples):
        print(path)
    print((options.out / "loop.md").read_text())


def _compare(session: Session, bundle: Bundle, rounds: int, frames: int) -> dict[str, list[float]]:
    """Seconds per frame of each contender, one value a round."""
    images = noise_frames(session.frame_size_hw)
    contenders: dict[str, Callable[[], object]] = {
        "step": lambda: [session.step(images[i % len(images)]) for i in range(frames)],
        "loop": lambda: _run_loop(session, images, frames),
    }
    if not session.configuration.knobs.stateful:
        engine = _bare_engine(session, bundle)
        batches = [image[None] for image in images]
        contenders["engine"] = lambda: [engine.run(None, {"image": batches[i % len(batches)]}) for i in range(frames)]
    seconds = interleave(contenders, rounds, warmup=2)
    return {name: [value / frames for value in values] for name, values in seconds.items()}


def _run_loop(session: Session, images: list[np.ndarray], frames: int) -> None:
    with Loop(session, VideoSource(MemoryVideo(images, frames), paced=False), on_result=lambda result: None) as loop:
        loop.wait()


def _bare_engine(session: Session, bundle: Bundle) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = session.threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    graph = session.configuration.graphs[session.configuration.first]
    return onnxruntime.InferenceSession(str(bundle.path(graph.file)), options, providers=["CPUExecutionProvider"])


def _row(name: str, threads: int, seconds: dict[str, list[float]]) -> dict[str, object]:
    """Medians, and the median of the differences within a round, which a change of load between rounds leaves alone."""
    base = "engine" if "engine" in seconds else "step"
    added_ms = 1e3 * statistics.median(a - b for a, b in zip(seconds["loop"], seconds[base], strict=True))
    base_ms = 1e3 * statistics.median(seconds[base])
    best_added_ms = 1e3 * (min(seconds["loop"]) - min(seconds[base]))
    limit_ms = max(LIMIT_MS, LIMIT_SHARE * base_ms)
    return {
        "configuration": name,
        "threads": threads,
        f"{base} ms": round(base_ms, 3),
        "step ms": round(1e3 * statistics.median(seconds["step"]), 3),
        "loop ms": round(1e3 * statistics.median(seconds["loop"]), 3),
        "added ms": round(added_ms, 3),
        "added ms, best turns": round(best_added_ms, 3),
        "allowed ms": round(limit_ms, 3),
        "holds": "yes" if added_ms <= limit_ms else "no",
    }


def _memory_growth_mb(session: Session) -> float:
    images = noise_frames(session.frame_size_hw)
    marks: list[float] = []
    numbers = itertools.count(1)

    def watch(result: object) -> None:
        if next(numbers) in (LEAK_WARM_UP, LEAK_WARM_UP + LEAK_STEPS):
            gc.collect()
            marks.append(resident_mb() or 0.0)

    video = MemoryVideo(images, LEAK_WARM_UP + LEAK_STEPS)
    begin = time.perf_counter()
    with Loop(session, VideoSource(video, paced=False), on_result=watch) as loop:
        loop.wait()
    print(f"{LEAK_WARM_UP + LEAK_STEPS} steps in {time.perf_counter() - begin:.1f} s")
    return marks[1] - marks[0]


def _smallest_and_largest(bundle: Bundle) -> list[str]:
    ordered = sorted(bundle.configurations, key=lambda entry: entry.graphs[entry.then[0]].macs)
    return list(dict.fromkeys([ordered[0].name, ordered[-1].name]))


if __name__ == "__main__":
    main()
