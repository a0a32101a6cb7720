"""Where `edgeseg tune` puts what it found: bundle, device profile and plot, all of them or none."""

import os
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any


def places_of(options: Mapping[str, Any]) -> dict[str, Path]:
    """Where the bundle `out`, its `profile` and the `plot` will be; of the plot alone, or empty, without --out.

    Raises:
        InputError: one of them cannot be written, or would replace what is no bundle.
    """
    from edgeseg.atomic import check_writable
    from edgeseg.cli.options import check_different_files
    from edgeseg.errors import InputError
    from edgeseg.export.bundle_writer import check_bundle_name
    from edgeseg.runtime.device import default_profile_path
    from edgeseg.runtime.plot import check_plot_path

    if options["plot"]:
        check_plot_path(options["plot"])
    if options["out"] is None:
        if options["profile"]:
            raise InputError("--profile is the device profile of the bundle --out | give both, or neither")
        return {"plot": Path(options["plot"])} if options["plot"] else {}
    out = Path(options["out"])
    check_bundle_name(out)
    check_writable(out, folder=True)
    profile = Path(options["profile"]) if options["profile"] else default_profile_path(options["device"])
    plot = Path(options["plot"]) if options["plot"] else profile.with_suffix(".png")
    check_different_files(out=str(out), profile=str(profile), plot=str(plot))
    check_writable(profile)
    check_plot_path(plot)
    return {"out": out, "profile": profile, "plot": plot}


def publish(files: Mapping[Path, Path], bundle: "tuple[Path, Path] | None" = None) -> None:
    """Copy what was made to its places, whole or not at all.

    Args:
        files: place -> file that was made.
        bundle: place and the folder that was made, where there is one.

    Raises:
        InputError: a place cannot be written, or its disk is full: that is found before any of them changes.
    """
    from edgeseg.atomic import atomic_file, atomic_folder

    with ExitStack() as stack:
        # All is written before anything is renamed: a disk that fills up, fills up here.
        for place, made in files.items():
            _copy(made, stack.enter_context(atomic_file(place)))
        if bundle is not None:
            place, made = bundle
            folder = stack.enter_context(atomic_folder(place))
            for file in sorted(path for path in made.rglob("*") if path.is_file()):
                copy = folder / file.relative_to(made)
                copy.parent.mkdir(parents=True, exist_ok=True)
                _copy(file, copy)


def _copy(made: Path, copy: Path) -> None:
    """As `shutil.copyfile`, to the disk: it is written where it says so."""
    with made.open("rb") as source, copy.open("wb") as written:
        shutil.copyfileobj(source, written)
        written.flush()
        os.fsync(written.fileno())
