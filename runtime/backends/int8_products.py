"""INT8 on x86 CPUs: whether products of 8-bit numbers are summed exactly, and what to ask of ONNX Runtime where not.

Without VNNI its kernels for uint8 x int8 add two products in 16 bits, and clip the sum: 2 x 255 x 127 is twice what
fits. With the session option `session.x64quantprecision` it makes the weights uint8, whose kernels are exact and
slower. On a CPU with VNNI the option costs its fast kernels for nothing: it does not look.

Seen on an emulated Haswell: 32 products of 127 x 127, scaled to give 32, gave 0.25 without the option, 32 with it; an
INT8 SwiftNet (CamVid, 13 frames) had mIoU 0.5475 without, 0.5499 with it, 0.5501 in FP32. On an AMD EPYC with VNNI the
option made an INT8 ViT-Ti 10 % slower. Weights of 7 bits would be exact too, but coarser on every CPU.
"""

import platform
from pathlib import Path

import onnxruntime as ort

EXACT_PRODUCTS = "session.x64quantprecision"
_X86 = ("x86_64", "amd64", "i386", "i686", "x86")
_VNNI = {"avx512_vnni", "avx_vnni", "avxvnni", "amx_int8"}


def keep_products_exact(options: ort.SessionOptions) -> None:
    """Ask for exact sums of 8-bit products where this CPU's are not."""
    if products_saturate(platform.machine(), cpu_flags()):
        options.add_session_config_entry(EXACT_PRODUCTS, "1")


def products_saturate(machine: str, flags: frozenset[str]) -> bool:
    """Whether a CPU clips sums of 8-bit products.

    Args:
        machine: as `platform.machine()` names it.
        flags: its instruction sets, in the Linux kernel's names; none where they are not known, which counts as yes.
    """
    return machine.lower() in _X86 and not flags & _VNNI


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Instruction sets of this machine's CPU; none where the kernel does not tell."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return next((frozenset(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), frozenset())
