"""Opens what the user named as a source: camera, stream, file, image folder, data set, simulator, or an iterator."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import unquote

import numpy as np

from edgeseg.data.image_files import image_files
from edgeseg.data.open import is_simulator, open_dataset
from edgeseg.data.video import Video
from edgeseg.errors import InputError, SourceError
from edgeseg.runtime.adjusted_source import AdjustedSource
from edgeseg.runtime.camera import Reconnection, open_camera
from edgeseg.runtime.file_sources import FolderSource, VideoFileSource
from edgeseg.runtime.frame_iterator import IteratorSource
from edgeseg.runtime.gstreamer import GStreamerSource, is_gstreamer
from edgeseg.runtime.source import Source, VideoSource
from edgeseg.runtime.source_address import public_name, spelled_out

STREET_FPS, STREET_S = 15.0, 60.0
"""Frame rate unless told otherwise, and length, of a drive through the simulator."""


def is_camera(source: str) -> bool:
    """Whether `source` is a camera or a stream, which gives its frames when they come and never again.

    Raises:
        InputError: the file of an `@FILE` cannot be read.
    """
    source = spelled_out(source)
    is_stream = "://" in source and not source.startswith("file://")
    return source.isdecimal() or source.startswith("/dev/") or is_gstreamer(source) or is_stream


def open_source(
    source: int | str | Path | Video | Source | Iterable[tuple[float, np.ndarray]],
    *,
    fps: float | None = None,
    paced: bool = True,
    split: str | None = None,
    size_hw: tuple[int, int] | None = None,
    rotate_deg: int = 0,
    colour_order: str = "RGB",
    reconnection: Reconnection | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Source:
    """Open what the user named as a source.

    Args:
        source: camera index (or its digits) or device (`/dev/video0`), URL, camera through GStreamer
            (`edgeseg.runtime.gstreamer`), video file, folder of images, data set, the simulator as
            `street[:HxW][@FPS]`, `@FILE` for what a file's first line says, a video of a data set, an iterator of
            (capture time, frame) as in `edgeseg.runtime.frame_iterator`, or a source, which is returned as it is.
        fps: frame rate at which the frames come; None: the source's own. Folders of images have none. The simulator
            renders at it; a recording is played faster or slower.
        paced: see `Source`; cameras are always paced.
        split: split of a data set; None: `val`, else its last one. Its longest video is played.
        size_hw: size that a camera is to give; None: its own.
        rotate_deg: degrees by which frames and label maps are turned clockwise: 0, 90, 180 or 270.
        colour_order: `BGR` when what the source gives as red is blue.
        reconnection: how a camera is watched and opened again; None: the default limits.
        clock: seconds; of the times of an iterator.

    Raises:
        SourceError: it cannot be opened.
        InputError: a frame rate is missing or out of range, there is no such split, options contradict the source, or
            it is of another type, or names nothing.
    """
    if isinstance(source, str):
        source = spelled_out(source)
        if not source.strip():
            raise InputError("a source has a name | got an empty one: give a camera index, a file, a folder or a URL")
    is_live = isinstance(source, (int, str)) and is_camera(str(source))
    shown = public_name(str(source)) if is_live else source
    if fps is not None and not 0 < fps < float("inf"):
        raise InputError(f"{shown}: a frame rate must be positive | got {fps}")
    if not is_live and (size_hw is not None or reconnection is not None):
        option = "--stall, --retry-most, --give-up and --open-limit" if size_hw is None else "--camera-size"
        raise InputError(f"{option}: for cameras and streams | got {shown}: leave it out")
    if is_live and not paced:
        raise InputError(f"a camera gives its frames when they come | leave --no-pace out for {shown}")
    if split is not None and (is_live or not isinstance(source, (str, Path))):
        raise _no_splits(shown)
    if is_live:
        opened = _camera_source(str(source), fps, size_hw, reconnection)
    else:
        opened = _other_source(source, fps, paced, split, clock)
    if not rotate_deg and colour_order == "RGB":
        return opened
    try:
        return AdjustedSource(opened, rotate_deg=rotate_deg, colour_order=colour_order)
    except BaseException:
        opened.close()
        raise


def _camera_source(
    address: str, fps: float | None, size_hw: tuple[int, int] | None, reconnection: Reconnection | None
) -> Source:
    opens = GStreamerSource if is_gstreamer(address) else open_camera
    return opens(address, fps=fps, size_hw=size_hw, reconnection=reconnection)


def _other_source(
    source: object, fps: float | None, paced: bool, split: str | None, clock: Callable[[], float]
) -> Source:
    if isinstance(source, Source):
        return source
    if isinstance(source, Video):
        return VideoSource(source, fps=fps, paced=paced)
    if isinstance(source, Iterable) and not isinstance(source, str):
        return IteratorSource(source, fps=fps, paced=paced, clock=clock)
    if not isinstance(source, (str, Path)):
        raise InputError(
            f"a {type(source).__name__} is no source | expected a camera index, a file, a folder, a URL, a Video, a "
            "Source or an iterator of (seconds, frame) | or call Session.step on each frame"
        )
    if is_simulator(source):
        return _street_source(str(source), fps, split or "val", paced)
    path = Path(unquote(str(source).removeprefix("file://"))) if str(source).startswith("file://") else Path(source)
    path = path.expanduser()
    if path.is_dir():
        try:
            return _dataset_source(path, split, fps, paced)
        except InputError as error:
            if split is not None or not image_files(path):
                raise SourceError(f"{path} cannot be played | {error}") from error
        return FolderSource(path, fps=fps, paced=paced)
    if split is not None and path.exists():
        raise _no_splits(path)
    return VideoFileSource(path, fps=fps, paced=paced)


def _no_splits(source: object) -> InputError:
    shown = source if isinstance(source, (int, str, Path)) else f"a {type(source).__name__}"
    return InputError(f"--split names a part of a data set | got {shown}: leave it out")


def _street_source(spec: str, fps: float | None, split: str, paced: bool) -> VideoSource:
    """One drive through the simulator that is longer than the clips it trains and scores on."""
    own = spec.partition("@")[2]
    if own and fps is not None and float(own) != fps:
        raise InputError(f"{spec} and --fps {fps:g} both give a frame rate | give it once")
    rate = float(own or fps or STREET_FPS)
    frames = max(1, round(STREET_S * rate))
    given = {} if own else {"fps": rate}
    dataset = open_dataset(spec, frames=(frames, frames, frames), **given)
    return VideoSource(dataset.videos(split)[0], dataset.classes, paced=paced)


def _dataset_source(path: Path, split: str | None, fps: float | None, paced: bool) -> VideoSource:
    dataset = open_dataset(path)
    chosen = split or ("val" if "val" in dataset.splits else dataset.splits[-1])
    video = max(dataset.videos(chosen), key=len)
    return VideoSource(video, dataset.classes, fps=fps, paced=paced)
