"""How fast the street simulator renders on one core, and how its motion and its classes compare with CamVid's.

    python -m benchmarks.street --out DIR [--camvid FOLDER] [--rounds 120]

Motion is the score of labels k frames old against the present ones, at 15 Hz: what a perfect network gets that is k
frames late. One confusion matrix per k over all videos. Rendering includes labels; it is timed in runs of consecutive
frames, by the processor time of the one thread, so that other programs count little, and by the wall clock.
"""

import argparse
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from pathlib import Path

import cv2
import numpy as np

from benchmarks.measure import interleave, machine_facts, markdown_table, write_report
from edgeseg.classes import CAMVID
from edgeseg.data.street import SPLIT_SEEDS, StreetDataset, StreetVideo
from edgeseg.data.video import Video
from edgeseg.metrics.confusion import ConfusionMatrix, Scores

OFFSETS = (1, 2, 3, 4, 6, 8)
CAMVID_MOTION = {1: 0.743, 2: 0.643, 3: 0.580, 4: 0.543, 6: 0.497, 8: 0.458}
"""Measured on CamVid's dense 15 Hz sequence (val); measured anew when `--camvid` is given."""
RUN_FRAMES = 15
SIZES_HW = ((128, 256), (256, 512), (360, 480), (720, 1280))


def motion(videos: Iterable[Video]) -> tuple[dict[int, Scores], np.ndarray]:
    """Scores of labels k frames late for each k of OFFSETS, and the pixels per class `(C,)`, over `videos`."""
    matrices = {k: ConfusionMatrix(len(CAMVID)) for k in OFFSETS}
    pixels = np.zeros(256, np.int64)
    for video in videos:
        maps = [video.labels(index) for index in range(len(video))]
        pixels += np.bincount(np.concatenate([labels.ravel() for labels in maps]), minlength=256)
        for k, matrix in matrices.items():
            for late, labels in zip(maps, maps[k:], strict=False):
                unknown = late == CAMVID.ignore_value
                matrix.add(np.where(unknown, CAMVID.ignore_value, labels), np.where(unknown, 0, late))
    return {k: matrix.scores() for k, matrix in matrices.items()}, pixels[: len(CAMVID)]


def _speed(rounds: int) -> tuple[list[dict[str, object]], dict[str, list[float]]]:
    """Rows of milliseconds and frames per second by size, and the samples in seconds of processor time per frame."""
    cv2.setNumThreads(1)
    seeds = range(SPLIT_SEEDS["val"], SPLIT_SEEDS["val"] + 6)
    calls = {
        f"{size[0]}x{size[1]}": _runs([StreetVideo(seed, 10**6, 15.0, size) for seed in seeds]) for size in SIZES_HW
    }
    processor = interleave(calls, rounds, warmup=len(seeds), clock=time.thread_time)
    wall = interleave(calls, rounds, warmup=0)
    rows: list[dict[str, object]] = []
    for name, seconds in processor.items():
        frames_ms = [1e3 * value / RUN_FRAMES for value in seconds]
        rows.append(
            {
                "what": f"render {name}",
                "frames/s, processor time": round(1e3 / float(np.mean(frames_ms)), 1),
                "frames/s, wall clock": round(RUN_FRAMES / float(np.mean(wall[name])), 1),
                "min ms": round(min(frames_ms), 2),
                "median ms": round(float(np.median(frames_ms)), 2),
                "max ms": round(max(frames_ms), 2),
            }
        )
    return rows, {name: [value / RUN_FRAMES for value in seconds] for name, seconds in processor.items()}


def _runs(videos: Sequence[StreetVideo]) -> Callable[[], None]:
    """A callable that renders the next RUN_FRAMES frames of one video after the other."""
    turns = count()

    def render() -> None:
        turn = next(turns)
        start = turn // len(videos) * RUN_FRAMES
        for index in range(start, start + RUN_FRAMES):
            videos[turn % len(videos)].render(index)

    return render


def _motion_rows(camvid: Path | None) -> list[dict[str, object]]:
    street, street_pixels = motion(StreetDataset().videos("val"))
    real = CAMVID_MOTION
    shares: dict[str, np.ndarray] = {"street": street_pixels / street_pixels.sum()}
    if camvid is not None:
        from edgeseg.data.open import open_dataset

        scores, pixels = motion(open_dataset(str(camvid)).videos("val"))
        real = {k: score.miou for k, score in scores.items()}
        shares["CamVid"] = pixels / pixels.sum()
    rows: list[dict[str, object]] = [
        {"what": f"mIoU, labels {k} late", "street": round(street[k].miou, 3), "CamVid": round(real[k], 3)}
        for k in OFFSETS
    ]
    for label, name in enumerate(CAMVID.names):
        row: dict[str, object] = {"what": f"share of {name}, %"}
        row.update({source: round(100 * float(share[label]), 2) for source, share in shares.items()})
        rows.append({"CamVid": None} | row)
    return [{key: row[key] for key in ("what", "street", "CamVid")} for row in rows]


def main() -> None:
    """Measure, print the tables and write them."""
    parser = argparse.ArgumentParser(prog="benchmarks.street", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the reports")
    parser.add_argument("--camvid", type=Path, help="CamVid's folder, to measure it alike")
    parser.add_argument("--rounds", type=int, default=24, help="runs per size")
    options = parser.parse_args()
    facts = machine_facts()
    speed, samples = _speed(options.rounds)
    compared = _motion_rows(options.camvid)
    write_report(options.out, "street-speed", speed, facts, samples)
    _, report = write_report(options.out, "street-motion", compared, facts)
    print(markdown_table(speed), markdown_table(compared), f"written beside {report}", sep="\n")


if __name__ == "__main__":
    main()
