"""Sums of 8-bit products on x86 CPUs without VNNI: clipped, unless ONNX Runtime is asked for exact ones."""

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeseg.runtime.backends.int8_products import EXACT_PRODUCTS, cpu_flags, keep_products_exact, products_saturate

CHANNELS = 32


def convolution(path: Path) -> Path:
    """32 channels of 1, times weights of 1, all of them 127 in int8; the result is 32."""
    scales = {"one.scale": 1 / 127, "result.scale": CHANNELS / 127}
    initializers = [
        numpy_helper.from_array(np.full((16, CHANNELS, 1, 1), 127, np.int8), "weight"),
        numpy_helper.from_array(np.full(16, 1 / 127, np.float32), "weight.scale"),
        numpy_helper.from_array(np.zeros(16, np.int8), "weight.zero"),
        numpy_helper.from_array(np.int8(0), "zero"),
        *(numpy_helper.from_array(np.float32(value), name) for name, value in scales.items()),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "one.scale", "zero"], ["x8"]),
        helper.make_node("DequantizeLinear", ["x8", "one.scale", "zero"], ["xf"]),
        helper.make_node("DequantizeLinear", ["weight", "weight.scale", "weight.zero"], ["wf"], axis=0),
        helper.make_node("Conv", ["xf", "wf"], ["sum"], kernel_shape=[1, 1]),
        helper.make_node("QuantizeLinear", ["sum", "result.scale", "zero"], ["sum8"]),
        helper.make_node("DequantizeLinear", ["sum8", "result.scale", "zero"], ["y"]),
    ]
    shapes = {"x": [1, CHANNELS, 8, 8], "y": [1, 16, 8, 8]}
    faces = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    graph = helper.make_graph(nodes, "convolution", faces[:1], faces[1:], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def result(path: Path, options: ort.SessionOptions) -> float:
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return float(session.run(None, {"x": np.ones((1, CHANNELS, 8, 8), np.float32)})[0].max())


def test_the_sum_is_exact_on_this_cpu(tmp_path: Path) -> None:
    options = ort.SessionOptions()
    keep_products_exact(options)
    assert result(convolution(tmp_path / "convolution.onnx"), options) == CHANNELS


RUN = f"""
import sys
import numpy as np, onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = 1
options.add_session_config_entry({EXACT_PRODUCTS!r}, sys.argv[2])
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
print(session.run(None, {{"x": np.ones((1, {CHANNELS}, 8, 8), np.float32)}})[0].max())
"""


def without_vnni() -> list[str]:
    """How to run a program on an x86 CPU without VNNI: as it is, or on an emulated Haswell."""
    if products_saturate(platform.machine(), cpu_flags()):
        return []
    emulator = shutil.which("qemu-x86_64-static") or shutil.which("qemu-x86_64")
    if emulator is None:
        pytest.skip("this CPU has VNNI or is no x86, and there is no qemu-x86_64 to emulate one without")
    return [emulator, "-cpu", "Haswell"]


@pytest.mark.parametrize(("exact", "expected"), [("0", 0.25), ("1", CHANNELS)])
def test_the_sum_is_clipped_without_vnni_unless_exact_products_are_asked_for(
    exact: str, expected: float, tmp_path: Path
) -> None:
    path = convolution(tmp_path / "convolution.onnx")
    # The interpreter itself: an emulator runs no scripts.
    program = [
        *without_vnni(),
        str(Path(sys.executable).resolve()),
        "-c",
        f"import sys; sys.path[:] = {sys.path}\n{RUN}",
    ]
    done = subprocess.run([*program, str(path), exact], capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(
    ("machine", "flags", "saturates"),
    [
        ("x86_64", "avx avx2", True),
        ("x86_64", "avx2 avx512f avx512bw", True),
        ("x86_64", "avx2 avx512f avx512_vnni", False),
        ("x86_64", "avx2 avx_vnni", False),
        ("AMD64", "", True),
        ("aarch64", "", False),
        ("arm64", "asimd asimddp", False),
    ],
)
def test_products_saturate_on_x86_without_vnni(machine: str, flags: str, saturates: bool) -> None:
    assert products_saturate(machine, frozenset(flags.split())) is saturates


def test_flags_are_those_of_the_first_core(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nflags\t\t: fpu avx2\n\nprocessor\t: 1\nflags\t\t: fpu\n")
    assert cpu_flags(tmp_path / "cpuinfo") == {"fpu", "avx2"}


def test_flags_are_none_where_the_kernel_does_not_tell(tmp_path: Path) -> None:
    assert cpu_flags(tmp_path / "absent") == frozenset()
