"""Says whether this Python has what edgeseg needs on a Jetson: the system's TensorRT and OpenCV, and none of pip's.

It needs nothing but the standard library, and is run by jetson/setup.sh: with --system on the system's Python, before
anything is installed, and without on that of the virtual environment.
"""

import argparse
import importlib
import importlib.metadata
import sys
from pathlib import Path
from types import ModuleType

OLDEST_TENSORRT = 10
PIPS = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")
"""Packages of pip that shadow the system's OpenCV; those of TensorRT begin with `tensorrt`."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--system", action="store_true", help="only what the system has to bring")
    system_only = parser.parse_args().system
    problems = [*_tensorrt(), *_opencv()]
    if not system_only:
        problems += [*_shadows(), *_others()]
    for problem in problems:
        print(f"check_environment: {problem}", file=sys.stderr)
    return 2 if problems else 0


def _tensorrt() -> list[str]:
    module, problem = _imported("tensorrt", "sudo apt install nvidia-jetpack")
    if module is None:
        return [problem]
    version = str(getattr(module, "__version__", "0"))
    if int(version.partition(".")[0]) < OLDEST_TENSORRT:
        return [f"TensorRT {version} is too old | expected {OLDEST_TENSORRT} or later, as JetPack 6.2 and 7.2 have"]
    print(f"TensorRT {version}, {_place(module)}")
    return []


def _opencv() -> list[str]:
    module, problem = _imported("cv2", "sudo apt install python3-opencv")
    if module is None:
        return [problem]
    lines = [line.split(":", 1)[1] for line in module.getBuildInformation().splitlines() if "GStreamer:" in line]
    if not lines or "YES" not in lines[0]:
        return [
            f"OpenCV {module.__version__} in {_place(module)} has no GStreamer, so no CSI camera | "
            "sudo apt install python3-opencv, and remove pip's: pip uninstall opencv-python opencv-python-headless"
        ]
    print(f"OpenCV {module.__version__} with GStreamer, {_place(module)}")
    return []


def _shadows() -> list[str]:
    """Packages in the virtual environment that hide the system's."""
    own = [str(path) for path in {Path(entry) for entry in sys.path if entry.startswith(sys.prefix)}]
    names = {
        str(each.metadata["Name"]).lower().replace("_", "-") for each in importlib.metadata.distributions(path=own)
    }
    wrong = sorted(name for name in names if name in PIPS or name.startswith("tensorrt"))
    if not wrong:
        return []
    return [f"pip's {', '.join(wrong)} hide the system's | {sys.prefix}/bin/pip uninstall {' '.join(wrong)}"]


def _others() -> list[str]:
    problems = []
    for name in ("numpy", "onnxruntime", "onnx", "cuda.bindings.driver", "edgeseg"):
        module, problem = _imported(name, "run jetson/setup.sh again")
        if module is None:
            problems.append(problem)
    return problems


def _imported(name: str, remedy: str) -> tuple[ModuleType | None, str]:
    """A module, or None and why not."""
    try:
        return importlib.import_module(name), ""
    except Exception as error:  # a library of the wrong version raises what it likes
        return None, f"{name} cannot be imported ({type(error).__name__}: {error}) | {remedy}"


def _place(module: object) -> Path:
    return Path(str(getattr(module, "__file__", "?"))).parent


if __name__ == "__main__":
    sys.exit(main())
