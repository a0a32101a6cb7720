"""How much of what a delay costs comes back by motion compensation, and what that takes per camera frame.

    python -m benchmarks.compensation --camvid FOLDER [--bundle BUNDLE --configuration NAME] [--out DIR] [--only PART]

Accuracy: labels of frame t - k, moved to frame t with frames up to t - 1 known, scored against the labels of frame t.
Once with true labels, a perfect network k frames late, on CamVid val (15 Hz) and on the simulator at 15 and 30 Hz; and
with a bundle once more with its predictions on CamVid val. Frames 1 and later are sources, so that all know a motion.

Cost: one thread, `Compensator.add_frame` and `labels_at` at each frame, new labels at every third, in turns with the
plain way: grey image, one flow between the same frames at the same size, one remap of the labels. `ratio` is the median
over the rounds; on a machine that does other work too, the ratio of the minima tells more.
"""

import argparse
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import cv2
import numpy as np

from benchmarks.measure import interleave, machine_facts, markdown_table, report_parser, users_errors, write_report
from edgeseg.classes import CAMVID, ClassSet
from edgeseg.config import FLOWS, MODES, Compensation
from edgeseg.data.open import open_dataset
from edgeseg.data.video import Video
from edgeseg.errors import InputError
from edgeseg.metrics.confusion import ConfusionMatrix, Scores
from edgeseg.runtime.compensation import Compensator
from edgeseg.runtime.optical_flow import flow_size_hw, grid_xy, open_flow, unusable_reason
from edgeseg.runtime.session_loading import load

OFFSETS = (1, 2, 3, 4, 6)
COST_CASES = (((360, 480), (360, 480), 3.0, 1.1), ((1080, 1920), (540, 960), 12.0, None))
"""Camera frame, label map, and what is allowed: milliseconds per camera frame, ratio to the plain way."""
LABELS_EVERY = 3
PARTS = ("cost", "accuracy", "predictions")


@dataclass(frozen=True)
class Recording:
    """A video in memory."""

    frames_rgb: list[np.ndarray]
    labels: list[np.ndarray]
    fps: float

    @classmethod
    def read(cls, video: Video, frames: int | None = None) -> "Recording":
        """The first `frames` frames of `video`, all of them by default."""
        indices = range(min(len(video), frames or len(video)))
        return cls([video.frame_rgb(i) for i in indices], [video.labels(i) for i in indices], video.fps)


def late_scores(
    video: Recording,
    maps: Sequence[np.ndarray],
    compensation: Compensation,
    offsets: Iterable[int],
    classes: ClassSet,
) -> dict[int, ConfusionMatrix]:
    """By k: counts of the label maps `maps`, k frames late and moved by `compensation`, against the true labels.

    Args:
        maps: one per frame, uint8 `(h, w)`; true labels or predictions. Pixels that they ignore are not counted.
        offsets: the values of k, 1 or more, ascending.
    """
    matrices = {k: ConfusionMatrix(len(classes)) for k in offsets}
    length = len(video.frames_rgb)
    compensator = Compensator(compensation, ignore_value=classes.ignore_value, frames_held=length)
    for index, frame in enumerate(video.frames_rgb[:-1]):
        compensator.add_frame(index, frame, index / video.fps)
    for source in range(1, length):
        for k, matrix in matrices.items():
            present = source + k
            if present >= length:
                continue
            moved = compensator.move(maps[source], source, present - 1, present / video.fps)
            target = video.labels[present]
            labels = cv2.resize(moved.labels, target.shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
            unknown = labels == classes.ignore_value
            matrix.add(np.where(unknown, classes.ignore_value, target), np.where(unknown, 0, labels))
    return matrices


def scores_of(
    videos: Iterable[tuple[Recording, Sequence[np.ndarray]]],
    compensation: Compensation,
    offsets: Sequence[int],
    classes: ClassSet,
) -> dict[int, Scores]:
    """By k: scores over several videos, each with the maps that are late."""
    matrices = [late_scores(video, maps, compensation, offsets, classes) for video, maps in videos]
    return {k: Scores(np.sum([each[k].counts for each in matrices], axis=0)) for k in offsets}


def compared() -> list[Compensation]:
    """Every mode with the default flow, then the default mode with every other flow that this machine has."""
    modes = [Compensation(mode) for mode in MODES]
    usable = [flow for flow in FLOWS if unusable_reason(flow) is None]
    flows = [Compensation(flow=flow, divisor=divisor) for flow in usable for divisor in (2, 1)]
    return modes + [knob for knob in flows if knob not in modes]


def true_label_rows(name: str, videos: Sequence[Recording], knobs: Sequence[Compensation]) -> list[dict[str, object]]:
    """mIoU over k of true labels that come k frames late, one row per compensation."""
    rows: list[dict[str, object]] = []
    for knob in knobs:
        scores = scores_of([(video, video.labels) for video in videos], knob, OFFSETS, CAMVID)
        by_k = {f"k={k}": round(each.miou, 3) for k, each in scores.items()}
        rows.append({"video": name, "compensation": knob.name, **by_k})
    return rows


def prediction_rows(video: Recording, predictions: Sequence[np.ndarray], knob: Compensation) -> list[dict[str, object]]:
    """By k: mIoU and moving-object mIoU of late predictions, uncompensated and moved, and the shares that come back.

    A share is (moved - uncompensated) / (k = 0 - uncompensated), of the latency tax.
    """
    rows: list[dict[str, object]] = []
    both = [scores_of([(video, predictions)], each, OFFSETS, CAMVID) for each in (Compensation("none"), knob)]
    for k in OFFSETS:
        row: dict[str, object] = {"k": k}
        present = _present_scores(video, predictions, first=k + 1)
        late, moved = (scores[k] for scores in both)
        for what, classes in (("", tuple(range(len(CAMVID)))), ("moving ", CAMVID.movable_indices)):
            zero, before, after = (s.miou_of(classes) for s in (present, late, moved))
            row |= {f"{what}k=0": round(zero, 3), f"{what}late": round(before, 3), f"{what}moved": round(after, 3)}
            row[f"{what}given back"] = f"{100 * (after - before) / (zero - before):.0f} %" if zero > before else ""
        for name, before, after, zero in zip(CAMVID.names, late.iou, moved.iou, present.iou, strict=True):
            row[name] = f"{100 * (after - before) / (zero - before):.0f} %" if zero > before else ""
        rows.append(row)
    return rows


def _present_scores(video: Recording, predictions: Sequence[np.ndarray], *, first: int) -> Scores:
    """Scores of predictions without any delay, from frame `first` on: the frames that late ones are scored on."""
    matrix = ConfusionMatrix(len(CAMVID))
    for target, labels in list(zip(video.labels, predictions, strict=True))[first:]:
        matrix.add(target, cv2.resize(labels, target.shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT))
    return matrix.scores()


def predict(video: Recording, bundle: str, configuration: str | None) -> list[np.ndarray]:
    """The configuration's label map of every frame, at its own size."""
    with load(
        bundle, configuration=configuration, fps=video.fps, frame_size_hw=video.frames_rgb[0].shape[:2]
    ) as session:
        return [session.step(frame) for frame in video.frames_rgb]


def cost(
    frames_rgb: Sequence[np.ndarray], labels: np.ndarray, knob: Compensation, rounds: int
) -> dict[str, list[float]]:
    """Seconds per camera frame of the compensator and of the plain way, in turns, on one thread."""
    contenders = {"compensator": _compensated(frames_rgb, labels, knob), "plain": _plain(frames_rgb, labels, knob)}
    return interleave(contenders, rounds, warmup=10)


def _compensated(frames_rgb: Sequence[np.ndarray], labels: np.ndarray, knob: Compensation) -> Callable[[], object]:
    compensator, numbers = Compensator(knob), count()

    def turn() -> object:
        index = next(numbers)
        compensator.add_frame(index, frames_rgb[_bounce(index, len(frames_rgb))], index / 15)
        if index % LABELS_EVERY == 0:
            compensator.add_labels(labels, max(0, index - LABELS_EVERY))
        return compensator.labels_at((index + 1) / 15)

    return turn


def _plain(frames_rgb: Sequence[np.ndarray], labels: np.ndarray, knob: Compensation) -> Callable[[], object]:
    flow_of, numbers = open_flow(knob.flow), count()
    frame_hw = frames_rgb[0].shape[0], frames_rgb[0].shape[1]
    height, width = flow_size_hw(frame_hw, knob.divisor) or frame_hw
    size_wh, scale = labels.shape[::-1], labels.shape[1] / width
    grid = grid_xy((labels.shape[0], labels.shape[1]))
    older: list[np.ndarray] = []

    def turn() -> object:
        frame = cv2.cvtColor(frames_rgb[_bounce(next(numbers), len(frames_rgb))], cv2.COLOR_RGB2GRAY)
        small = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
        flow = flow_of(small, older.pop()) if older else np.zeros((height, width, 2), np.float32)
        older.append(small)
        places = cv2.resize(scale * flow, size_wh)
        places += grid
        return cv2.remap(labels, places, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]

    return turn


def _bounce(number: int, length: int) -> int:
    """Forwards and backwards through `length` frames, so that there is no cut."""
    position = number % (2 * length - 2)
    return min(position, 2 * length - 2 - position)


def cost_rows(
    video: Recording, knob: Compensation, rounds: int
) -> tuple[list[dict[str, object]], dict[str, list[float]]]:
    """A row per case of COST_CASES, on the video's frames resized to it; and the samples in seconds."""
    rows: list[dict[str, object]] = []
    samples: dict[str, list[float]] = {}
    for frame_hw, labels_hw, limit_ms, limit_ratio in COST_CASES:
        frames = [cv2.resize(frame, frame_hw[::-1]) for frame in video.frames_rgb[:20]]
        labels = cv2.resize(video.labels[0], labels_hw[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        seconds = cost(frames, labels, knob, rounds)
        ms = {name: 1e3 * statistics.median(values) for name, values in seconds.items()}
        ratio = statistics.median(a / b for a, b in zip(seconds["compensator"], seconds["plain"], strict=True))
        case = f"{frame_hw[0]}x{frame_hw[1]}"
        rows.append(
            {
                "camera": case,
                "labels": f"{labels_hw[0]}x{labels_hw[1]}",
                "flow at": "x".join(map(str, flow_size_hw(frame_hw, knob.divisor) or ())),
                "compensator ms": round(ms["compensator"], 3),
                "p90 ms": round(1e3 * sorted(seconds["compensator"])[int(0.9 * rounds)], 3),
                "plain ms": round(ms["plain"], 3),
                "ratio": round(ratio, 3),
                "ratio of minima": round(min(seconds["compensator"]) / min(seconds["plain"]), 3),
                "allowed ms": limit_ms,
                "allowed ratio": limit_ratio,
                "holds": "yes" if ms["compensator"] <= limit_ms and ratio <= (limit_ratio or np.inf) else "no",
            }
        )
        samples |= {f"{case} {name}": values for name, values in seconds.items()}
    return rows, samples


def main() -> None:
    """Measure, print the tables and write them."""
    parser = report_parser("compensation", __doc__)
    parser.add_argument("--camvid", type=Path, required=True, help="CamVid's folder")
    parser.add_argument("--bundle", help="measure with its predictions too")
    parser.add_argument("--configuration", help="of the bundle; default: the one picked for 15 Hz")
    parser.add_argument("--only", choices=PARTS, help="one part; default: all that the options allow")
    parser.add_argument("--rounds", type=int, default=300, help="camera frames timed")
    parser.add_argument("--frames", type=int, help="frames of each video; default: all")
    parser.add_argument("--street-videos", type=int, default=6)
    options = parser.parse_args()
    with users_errors("compensation"):
        measure(options)


def measure(options: argparse.Namespace) -> None:
    """What `main` does once its options are read."""
    if options.only == "predictions" and not options.bundle:
        raise InputError("--only predictions needs a bundle that predicts | add --bundle BUNDLE")
    cv2.setNumThreads(1)
    facts = machine_facts()
    video = Recording.read(open_dataset(options.camvid).videos("val")[0], options.frames)
    if options.only in (None, "cost"):
        rows, samples = cost_rows(video, Compensation(), options.rounds)
        print(markdown_table(rows), flush=True)
        write_report(options.out, "compensation-cost", rows, facts, samples)
    if options.only in (None, "accuracy"):
        table = true_label_rows("CamVid val, 15 Hz", [video], compared())
        for fps in (15.0, 30.0):
            streets = open_dataset("street", fps=fps).videos("val")[: options.street_videos]
            recordings = [Recording.read(each, options.frames) for each in streets]
            table += true_label_rows(f"street val, {fps:g} Hz", recordings, compared())
        print(markdown_table(table), flush=True)
        write_report(options.out, "compensation", table, facts)
    if options.bundle and options.only in (None, "predictions"):
        predictions = predict(video, options.bundle, options.configuration)
        table = prediction_rows(video, predictions, Compensation())
        print(markdown_table(table))
        write_report(options.out, "compensation-predictions", table, {**facts, "bundle": options.bundle})


if __name__ == "__main__":
    main()
