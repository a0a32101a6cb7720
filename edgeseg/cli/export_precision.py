"""What `edgeseg export` reads and shows about precision and calibration."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeseg.bundle import BundleConfiguration
    from edgeseg.export.calibration_frames import CalibrationSource
    from edgeseg.export.evaluation_data import EvaluationData
    from edgeseg.export.lower_precision import PrecisionOptions
    from edgeseg.export.sweep import Request

_CALIBRATION = ("calib", "calib_split", "calib_images", "calib_method", "calib_cache")


def listed(texts: Sequence[str]) -> tuple[str, ...]:
    """Values of an option that may be repeated, or have commas, or both."""
    return tuple(value.strip() for text in texts for value in text.split(","))


def precision_options(options: dict[str, Any]) -> "PrecisionOptions":
    """How lower precisions are to be made and judged.

    Raises:
        InputError: options about them without a lower precision, or a value out of range.
    """
    from edgeseg.cache_folder import cache_folder
    from edgeseg.errors import InputError
    from edgeseg.export.calibration_cache import CalibrationCache
    from edgeseg.export.lower_precision import MAX_DROP, PrecisionOptions

    precisions, states = listed(options["precisions"]), listed(options["state_dtypes"])
    given = ["--" + name.replace("_", "-") for name in _CALIBRATION if options[name] is not None]
    if given and not set(precisions) - {"fp32"}:
        raise InputError(f"{given[0]} is for lower precisions | add --precision int8, or leave {given[0]} out")
    max_drop = options["max_drop"]
    if max_drop is not None and not (set(precisions) | set(states)) - {"fp32"}:
        raise InputError("--max-drop is for lower precisions | add --precision int8, or leave --max-drop out")
    if max_drop is not None and options["data"] is None:
        raise InputError("--max-drop is measured on labelled video | give it with --data, or leave --max-drop out")
    folder = options["calib_cache"]
    return PrecisionOptions(
        options["calib_method"] or "entropy",
        MAX_DROP if max_drop is None else max_drop,
        CalibrationCache(folder or cache_folder("calibration"), must_work=folder is not None),
    )


def calibration_source(
    options: dict[str, Any], requests: "Sequence[Request]", data: "EvaluationData | None"
) -> "CalibrationSource | None":
    """What to calibrate on; None when nothing is to be calibrated.

    Raises:
        InputError: as `open_calibration`, or options about calibration although the network was trained for INT8.
    """
    from edgeseg.errors import InputError
    from edgeseg.export.calibration_frames import IMAGES, open_calibration
    from edgeseg.export.pipeline import is_calibrated

    if not any(map(is_calibrated, requests)):
        given = ["--" + name.replace("_", "-") for name in _CALIBRATION if options[name] is not None]
        if given:
            raise InputError(
                f"{given[0]} is for ranges that are to be measured, and {requests[0].source.facts.origin} was trained "
                f"for INT8 with its own | leave {given[0]} out"
            )
        return None
    images = options["calib_images"]
    return open_calibration(
        options["calib"], options["calib_split"], images=IMAGES if images is None else images, data=data
    )


def precision_facts(entry: "BundleConfiguration") -> dict[str, Any]:
    """JSON-ready: precision, what it costs, which layers have it, and what it was calibrated on."""
    parity = entry.parity
    return {
        "precision": entry.knobs.precision,
        "state_dtype": entry.knobs.state_dtype,
        "miou_drop": parity.miou_drop if parity else None,
        "layers": entry.notes.get("lower_precision"),
        "sensitivity": entry.notes.get("sensitivity"),
        "changed_stops": entry.notes.get("changed_stops"),
        "calibration": entry.calibration.as_dict() if entry.calibration else None,
    }


def precision_cells(entry: "BundleConfiguration") -> dict[str, str]:
    """Heading -> what a table says; empty cells for FP32."""
    parity, layers = entry.parity, entry.notes.get("lower_precision")
    drop = parity.miou_drop if parity else None
    if entry.knobs.is_exact:
        return {"drop": "", "layers": ""}
    return {
        "drop": "-" if drop is None else f"{drop:.4f}",
        "layers": f"{layers['layers']}/{layers['of']} {entry.knobs.precision}" if layers else "",
    }


def precision_notes(entry: "BundleConfiguration") -> list[str]:
    """What was kept in FP32 so that the drop is allowed, and which share of the tokens stops elsewhere than in FP32."""
    sensitivity, changed, texts = entry.notes.get("sensitivity"), entry.notes.get("changed_stops"), []
    if sensitivity:
        texts.append(
            f"kept in FP32: {', '.join(sensitivity['kept'])}; without that the drop is {sensitivity['drop_before']:.4f}"
        )
    if changed:
        texts.append(f"{100 * changed['share']:.2f} % of the tokens stop elsewhere than in FP32")
    return texts


def kept_layers(entries: Sequence["BundleConfiguration"]) -> list[str]:
    """Why some layers are not of the lower precision: a line for each different `layers` cell, with the reasons and of
    how many layers each is the reason."""
    texts = []
    for entry in entries:
        layers = entry.notes.get("lower_precision")
        if layers and layers["kept_high"]:
            counts = Counter(layers["kept_high"].values())
            reasons = ", ".join(f"{reason} {count}" for reason, count in counts.items())
            texts.append(f"{precision_cells(entry)['layers']}, the others: {reasons}")
    return list(dict.fromkeys(texts))


def precision_remarks(entries: Sequence["BundleConfiguration"]) -> list[str]:
    """Lines below the table."""
    lower = [entry for entry in entries if not entry.knobs.is_exact]
    lines = []
    calibrations = dict.fromkeys(entry.calibration.text for entry in lower if entry.calibration)
    lines += [f"calibrated: {text}" for text in calibrations]
    lines += [f"{entry.name}: {text}" for entry in lower for text in precision_notes(entry)]
    lines += kept_layers(lower)
    if any(entry.parity is None or entry.parity.miou_drop is None for entry in lower):
        lines.append("drop -: what the precision costs in mIoU was not measured | give labelled video with --data")
    return lines
