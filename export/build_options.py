"""What engines are built with and for: the options, the device, and whether the one has the other."""

import re
from dataclasses import asdict, dataclass
from typing import Any

from edgeseg.errors import DeviceError, InputError
from edgeseg.runtime.backends.cuda_driver import Gpu, driver_problem, gpu
from edgeseg.runtime.backends.tensorrt_library import TensorrtLibrary, load_library
from edgeseg.runtime.engine_key import DEVICE_FAMILIES

HARDWARE_LEVELS = {"none": "NONE", "same": "SAME_COMPUTE_CAPABILITY", "ampere+": "AMPERE_PLUS"}
"""What users write -> `HardwareCompatibilityLevel`: this GPU model, this compute capability, Ampere and later."""
_RTX_DEFAULT = ("8.0", "8.6", "8.9", "12.0+")
"""Compute capabilities that TensorRT for RTX builds for unless told otherwise."""


@dataclass(frozen=True)
class BuildOptions:
    """What an engine is built with. Part of its key: engines of other options are other engines."""

    workspace_mb: int | None = None
    """Most scratch memory of one layer, in MiB; None leaves it to the library, which takes all there is."""
    dla: int | None = None
    """Number of the DLA core that takes the layers that it can; the GPU takes the rest."""
    version_compatible: bool = False
    """Whether later versions of the library take the engine. It carries code that such a runtime runs."""
    hardware_compatible: str = "none"
    """One of `HARDWARE_LEVELS`."""
    optimization_level: int | None = None
    """0 (builds fast) to 5 (searches long); None for the library's default, 3."""
    compute_capabilities: tuple[str, ...] = ()
    """TensorRT for RTX: those to build for, such as `("7.5",)`; none for its default, 8.0 to 8.9 and 12.0 onwards."""

    def __post_init__(self) -> None:
        if self.workspace_mb is not None and self.workspace_mb < 1:
            raise InputError(f"--workspace-mb is at least 1 | got {self.workspace_mb}")
        if self.dla is not None and self.dla < 0:
            raise InputError(f"--dla is the number of a core, from 0 | got {self.dla}")
        if self.hardware_compatible not in HARDWARE_LEVELS:
            known = ", ".join(HARDWARE_LEVELS)
            raise InputError(f"unknown --hardware-compatible {self.hardware_compatible!r} | known: {known}")
        if self.optimization_level is not None and not 0 <= self.optimization_level <= 5:
            raise InputError(f"--optimization-level lies between 0 and 5 | got {self.optimization_level}")
        for each in self.compute_capabilities:
            if not re.fullmatch(r"\d+\.\d", each):
                raise InputError(f"--compute-capability is two numbers with a point, such as 8.6 | got {each!r}")
        if self.dla is not None and (self.version_compatible or self.hardware_compatible != "none"):
            raise InputError("--dla ties an engine to its board | leave out --version- and --hardware-compatible")

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form, for `EngineKey.options`."""
        return {**asdict(self), "compute_capabilities": list(self.compute_capabilities)}


@dataclass(frozen=True)
class BuildTarget:
    """What engines are built with and for."""

    device: str
    """Device string."""
    library: TensorrtLibrary
    gpu: Gpu | None
    """The GPU at hand; TensorRT for RTX builds without one."""

    @property
    def is_rtx(self) -> bool:
        return self.library.name == "tensorrt_rtx"

    def compute_capabilities(self, options: BuildOptions) -> tuple[str, ...]:
        """Those that an engine built here with `options` runs on, as in `EngineKey`."""
        if self.is_rtx:
            return options.compute_capabilities or _RTX_DEFAULT
        assert self.gpu is not None
        return ("8.0+",) if options.hardware_compatible == "ampere+" else (self.gpu.compute_capability,)

    def gpu_name(self, options: BuildOptions) -> str | None:
        """Name of the one GPU model that such an engine runs on; None for all of those compute capabilities."""
        return None if self.gpu is None or self.is_rtx or options.hardware_compatible != "none" else self.gpu.name


def open_target(device: str) -> BuildTarget:
    """The library and the GPU of a device string, `tensorrt:N` or `tensorrt-rtx:N`.

    Raises:
        InputError: another device, which needs no build.
        DeviceError: the library is missing or too old, or there is no GPU, which only TensorRT for RTX builds without.
    """
    family, _, number = device.partition(":")
    if family not in DEVICE_FAMILIES or not (number or "0").isdecimal():
        known = " or ".join(f"{each}:0" for each in DEVICE_FAMILIES)
        raise InputError(f"--device {device}: nothing is built for it | expected {known}")
    library, index = load_library(DEVICE_FAMILIES[family]), int(number or 0)
    problem = driver_problem(index)
    if problem is not None and library.name == "tensorrt":
        raise DeviceError(f"{library.title} builds on the GPU that it builds for | {problem}")
    return BuildTarget(device, library, None if problem is not None else gpu(index))


def check_options(target: BuildTarget, options: BuildOptions) -> None:
    """Refuse options that `target` does not have.

    Raises:
        InputError: an option that is for the other library.
        DeviceError: this version or this board has no such thing.
    """
    for given, option in (
        (options.dla is not None, "--dla"),
        (options.version_compatible, "--version-compatible"),
        (options.hardware_compatible != "none", "--hardware-compatible"),
    ):
        if target.is_rtx and given:
            raise InputError(
                f"{option} is for device tensorrt:0 | {target.library.title} has no such thing: leave it out"
            )
    if options.compute_capabilities and not target.is_rtx:
        raise InputError(
            "--compute-capability is for device tensorrt-rtx:0 | TensorRT builds for the GPU it runs on: leave it out, "
            "or see --hardware-compatible"
        )
    if options.dla is not None:
        cores = getattr(open_builder(target.library), "num_DLA_cores", 0)
        if options.dla >= cores:
            raise DeviceError(
                f"--dla {options.dla}: {target.library.title} {target.library.version} finds "
                f"{f'{cores} DLA cores, counted from 0,' if cores else 'no DLA core'} here | 10.3 to 10.7 and 11.4.1 "
                "use those of Orin NX and AGX Orin, and no other version does: leave it out"
            )
    for kind, names in (
        ("HardwareCompatibilityLevel", [HARDWARE_LEVELS[options.hardware_compatible]]),
        ("ComputeCapability", [f"SM{each.replace('.', '')}" for each in options.compute_capabilities]),
    ):
        known = getattr(target.library.module, kind, None)
        missing = [each for each in names if each != "NONE" and not hasattr(known, each)]
        if missing:
            title = f"{target.library.title} {target.library.version}"
            raise DeviceError(f"{title} does not build for {missing[0]} | choose another, or a newer version")


def open_builder(library: TensorrtLibrary) -> Any:
    """A `Builder` of the library.

    Raises:
        DeviceError: the library does not start: its driver is too old, say.
    """
    try:
        return library.module.Builder(library.logger)
    except TypeError as error:  # pybind11's way to say that the library made none
        raise DeviceError(f"{library.title} {library.version} does not start | {library.why(str(error))}") from error
