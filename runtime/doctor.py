"""What can run on this machine, and why the rest cannot. Nothing is installed or changed."""

import importlib.metadata
import importlib.util
from dataclasses import dataclass

from edgeseg.config import FLOWS
from edgeseg.runtime.backends.base import BACKENDS, usable_reason
from edgeseg.runtime.backends.device_memory import memory_package, memory_problem
from edgeseg.runtime.backends.tensorrt_library import library_problem, load_library
from edgeseg.runtime.device import gpu_models
from edgeseg.runtime.engine_key import LIBRARIES

_EXTRAS = {
    "torch": ("train", "training and export"),
    "safetensors": ("train", "checkpoints"),
    "onnx": ("export", "export"),
    "onnxscript": ("export", "export"),
    "modelopt": ("quant", "INT8 and FP16"),
    "matplotlib": ("plot", "plots"),
}
_DISTRIBUTIONS = {"modelopt": "nvidia-modelopt"}
"""Module -> the package that it comes in, where that has another name."""
_PROVIDERS = {
    "CPUExecutionProvider": "used by device cpu",
    "CUDAExecutionProvider": "used by device cuda:0, which no GPU has verified yet",
    "TensorrtExecutionProvider": "used by device ort-tensorrt:0, which no GPU has verified yet",
}


@dataclass(frozen=True)
class Finding:
    """One line of the examination."""

    what: str
    state: str
    """`usable`, `unusable` or `warning`."""
    detail: str


def examine() -> list[Finding]:
    """Devices first, then execution providers, libraries of GPUs, optical flows, optional packages, contradictions."""
    return [*_devices(), *_providers(), *_gpu_libraries(), *_flows(), *_packages(), *_contradictions()]


def _devices() -> list[Finding]:
    findings = []
    for backend in BACKENDS.values():
        reason = usable_reason(backend.example)
        findings.append(
            Finding(f"device {backend.example}", *(("unusable", reason) if reason else ("usable", backend.library)))
        )
    gpus = gpu_models()
    if gpus:
        findings.append(Finding("NVIDIA driver", "usable", ", ".join(gpus)))
    else:
        findings.append(Finding("NVIDIA driver", "unusable", "no GPU known to the kernel driver"))
    return findings


def _providers() -> list[Finding]:
    import onnxruntime

    present = onnxruntime.get_available_providers()
    findings = []
    for name, use in _PROVIDERS.items():
        if name in present:
            findings.append(Finding(name, "usable", use))
        else:
            findings.append(Finding(name, "unusable", "not in this onnxruntime: it is in the package onnxruntime-gpu"))
    return findings


def _gpu_libraries() -> list[Finding]:
    """What the devices tensorrt and tensorrt-rtx are made of: without a GPU they still build engines."""
    findings = []
    for name, title in LIBRARIES.items():
        reason = library_problem(name)
        found = ("unusable", reason) if reason else ("usable", f"{load_library(name).version}, for edgeseg build")
        findings.append(Finding(title, *found))
    reason = memory_problem()
    detail = ("unusable", reason) if reason else ("usable", f"by {memory_package()}, for TensorRT's devices")
    findings.append(Finding("GPU memory", *detail))
    return findings


def _flows() -> list[Finding]:
    from edgeseg.runtime.optical_flow import unusable_reason

    findings = []
    for name in FLOWS:
        reason = unusable_reason(name)
        findings.append(
            Finding(f"flow {name}", *(("unusable", reason) if reason else ("usable", "for --compensation")))
        )
    return findings


def _packages() -> list[Finding]:
    findings = []
    for name, (extra, purpose) in _EXTRAS.items():
        if importlib.util.find_spec(name) is None:
            findings.append(Finding(name, "unusable", f"needed for {purpose}: pip install 'edgeseg[{extra}]'"))
        else:
            version = _version(_DISTRIBUTIONS.get(name, name))
            findings.append(Finding(name, "usable", f"{version}, for {purpose}"))
    return findings


def _contradictions() -> list[Finding]:
    both = [name for name in ("onnxruntime", "onnxruntime-gpu") if _version(name)]
    if len(both) < 2:
        return []
    return [
        Finding(
            "onnxruntime",
            "warning",
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other: uninstall both, "
            "then install the one you want",
        )
    ]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
