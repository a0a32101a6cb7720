"""What is TensorRT's own: copies per step, CUDA graphs, engines that are refused, and what is missing where."""

import importlib.metadata
import logging
import sys
import threading
from types import ModuleType

import numpy as np
import pytest
from click.testing import CliRunner

from edgeseg.bundle import Bundle
from edgeseg.cli import main
from edgeseg.device_profile import DeviceProfile
from edgeseg.errors import ArtifactError, DeviceError, EdgesegError
from edgeseg.runtime.backends import cuda_driver
from edgeseg.runtime.backends.base import open_runner, usable_reason
from edgeseg.runtime.backends.tensorrt_backend import TensorrtRunner
from edgeseg.runtime.engine_cache import EngineRecord
from edgeseg.runtime.session_loading import load
from support import cuda_modules
from support.backends import SimulatedTensorrt
from support.simulated_gpu import SimulatedGpu
from support.tensorrt_runtime import SCRATCH_BYTES, VERSIONS, runtime_module

PLAIN, PHASES = "plain_32x48", "phases_32x48_rho0-concat"


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> SimulatedTensorrt:
    """TensorRT 10.3 by cuda-python."""
    return SimulatedTensorrt(monkeypatch, "tensorrt", "10.3.0", "cuda-python")


def runner_of(simulated: SimulatedTensorrt, bundle: Bundle, name: str) -> TensorrtRunner:
    configuration = bundle.configuration(name)
    for role in configuration.graphs:
        simulated.store_engine(bundle, configuration, role)
    runner = open_runner(bundle.root, configuration, device=simulated.device, threads=1)
    assert isinstance(runner, TensorrtRunner)
    return runner


@pytest.mark.parametrize("package", ["cuda-python", "pycuda"])
@pytest.mark.parametrize("name", [PLAIN, PHASES, "frames_32x48"])
def test_a_step_copies_one_frame_in_and_one_label_map_out(monkeypatch, bundle, name, package):
    simulated = SimulatedTensorrt(monkeypatch, "tensorrt", "10.3.0", package)
    with runner_of(simulated, bundle, name) as runner:
        simulated.gpu.copies.clear()
        for _ in range(6):
            runner.infer()
        assert simulated.gpu.copies == {"in": 6, "out": 6}


def test_a_step_copies_nothing_when_gpu_and_cpu_share_their_memory(monkeypatch, bundle, frame):
    gpu = SimulatedGpu("Orin", is_integrated=True)
    simulated = SimulatedTensorrt(monkeypatch, "tensorrt", "10.3.0", "cuda-python", gpu)
    with runner_of(simulated, bundle, PHASES) as runner:
        for value in (10, 11, 12):
            runner.image[...] = value
            runner.infer()
        assert runner.labels[0, [0, -1]].tolist() == [52, 11]
    assert gpu.copies == {}


@pytest.mark.parametrize("name", [PLAIN, PHASES])
def test_every_step_is_one_graph_launch(simulated, bundle, name):
    with runner_of(simulated, bundle, name) as runner:
        assert runner.uses_cuda_graphs
        for _ in range(7):
            runner.infer()
    assert simulated.gpu.launches == 7


@pytest.mark.parametrize("package", ["cuda-python", "pycuda"])
def test_a_step_sleeps_until_the_gpu_is_done(monkeypatch, bundle, package):
    simulated = SimulatedTensorrt(monkeypatch, "tensorrt", "10.3.0", package)
    with runner_of(simulated, bundle, PHASES) as runner:
        simulated.gpu.busy_waits = 0
        for _ in range(3):
            runner.infer()
        assert simulated.gpu.busy_waits == 0


@pytest.mark.parametrize(
    ("library", "fault"), [("tensorrt", "capture"), ("tensorrt_rtx", "capture"), ("tensorrt", "driver")]
)
def test_steps_run_without_graphs_when_they_cannot_be_recorded(monkeypatch, bundle, caplog, library, fault):
    caplog.set_level(logging.INFO, logger="edgeseg")
    simulated = SimulatedTensorrt(monkeypatch, library, VERSIONS[library][-1], "cuda-python")
    if fault == "driver":
        simulated.gpu.refuses_capture = True
    else:
        simulated.faults.add(fault)
    with runner_of(simulated, bundle, PHASES) as runner:
        assert not runner.uses_cuda_graphs
        simulated.gpu.copies.clear()
        seen = []
        for value in (10, 11, 12, 13):
            runner.image[...] = value
            runner.infer()
            seen.append(runner.labels[0, [0, -1]].tolist())
        assert seen == [[0, 255], [101, 10], [52, 11], [103, 12]]
        assert simulated.gpu.copies == {"in": 4, "out": 4}
    assert simulated.gpu.launches == 0
    assert f"{PHASES} (init) runs without a CUDA graph" in caplog.text


def test_the_device_counts_the_milliseconds_of_a_step(simulated, bundle):
    with runner_of(simulated, bundle, PLAIN) as runner:
        assert runner.device_ms is None
        runner.infer()
        # Between the two events: copy, engine, copy and the second event, a quarter of a millisecond each.
        assert runner.device_ms == 1.0


def test_a_profile_holds_what_the_device_counted_beside_each_sample(simulated, bundle, tmp_path):
    for configuration in bundle.configurations:
        for role in configuration.graphs:
            simulated.store_engine(bundle, configuration, role)
    path = tmp_path / "profile.json"
    line = f"profile {bundle.root} --device tensorrt:0 --fps 15 --samples 5 --threads 1 --exhaustive --out {path}"
    result = CliRunner().invoke(main, [*line.split(), "--compensation", "none"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    profile = DeviceProfile.load(path)
    assert [len(entry.device_ms) for entry in profile.entries] == [len(entry.samples_ms) for entry in profile.entries]
    assert {sample for entry in profile.entries for sample in entry.device_ms} == {1.0}
    assert "plain_32x48: 1.00 ms of" in result.stdout


@pytest.fixture
def rtx(monkeypatch: pytest.MonkeyPatch) -> SimulatedTensorrt:
    """TensorRT for RTX 1.7."""
    return SimulatedTensorrt(monkeypatch, "tensorrt_rtx", "1.7.1.116", "cuda-python")


def test_rtx_compiles_kernels_once_and_keeps_them_beside_the_bundle(rtx, own_bundle):
    rtx.load(own_bundle, PLAIN).close()
    assert len(rtx.compiled) == 1
    (kept,) = own_bundle.root.with_name("own.engines").glob("*.kernels")
    assert kept.name == "plain_32x48.tensorrt_rtx-1.7.1.116-Simulated-GPU.kernels"
    written = kept.stat().st_mtime_ns
    rtx.load(own_bundle, PLAIN).close()
    assert len(rtx.compiled) == 1
    assert kept.stat().st_mtime_ns == written
    assert rtx.gpu.held == {}


def test_rtx_compiles_kernels_again_when_those_kept_are_damaged(rtx, own_bundle):
    rtx.load(own_bundle, PLAIN).close()
    (kept,) = own_bundle.root.with_name("own.engines").glob("*.kernels")
    content = kept.read_bytes()
    kept.write_bytes(b"\x00" + content)
    rtx.load(own_bundle, PLAIN).close()
    assert len(rtx.compiled) == 2
    assert kept.read_bytes() == content


def test_rtx_runs_when_kernels_cannot_be_kept(rtx, own_bundle, caplog, frame):
    caplog.set_level(logging.INFO, logger="edgeseg")
    configuration = own_bundle.configuration(PLAIN)
    rtx.store_engine(own_bundle, configuration, "step")
    name = "plain_32x48.tensorrt_rtx-1.7.1.116-Simulated-GPU.kernels"
    (own_bundle.root.with_name("own.engines") / name).mkdir()
    with rtx.load(own_bundle, PLAIN) as session:
        assert np.unique(session.step(frame(3))).tolist() == [0]
    assert "kernels are compiled anew each time" in caplog.text


@pytest.mark.parametrize("version", ["10.3.0", "11.4.1"])
def test_contexts_share_their_scratch_memory(monkeypatch, bundle, version):
    simulated = SimulatedTensorrt(monkeypatch, "tensorrt", version, "cuda-python")
    with runner_of(simulated, bundle, PHASES):
        frame_and_labels, states, scratch = 32 * 48 * 3 + 32 * 48, 4 * 256, -(-SCRATCH_BYTES // 256) * 256
        # Three step plans with a context each, and room for one.
        assert simulated.gpu.device_bytes == frame_and_labels + states + scratch


@pytest.mark.parametrize("package", ["cuda-python", "pycuda"])
def test_everything_is_given_back_when_a_session_is_closed(monkeypatch, bundle, frame, package):
    simulated = SimulatedTensorrt(monkeypatch, "tensorrt", "10.3.0", package)
    runner = runner_of(simulated, bundle, PHASES)
    runner.activate()
    image, labels = runner.image, runner.labels
    runner.infer()
    runner.deactivate()
    # The buffers that were given out live as long as somebody holds them, and their context with them.
    assert simulated.gpu.held == {"page-locked memory": 2, "contexts": 1}
    assert labels[0, 0] == 0
    del image, labels, runner
    assert simulated.gpu.held == {}


@pytest.mark.parametrize("package", ["cuda-python", "pycuda"])
def test_everything_is_given_back_when_another_thread_closes_the_session(monkeypatch, bundle, package):
    simulated = SimulatedTensorrt(monkeypatch, "tensorrt", "10.3.0", package)
    runner = runner_of(simulated, bundle, PHASES)
    runner.activate()
    closing = threading.Thread(target=runner.deactivate)
    closing.start()
    closing.join()
    assert simulated.gpu.held == {}


def test_everything_is_given_back_when_the_gpu_has_too_little_memory(monkeypatch, bundle):
    gpu = SimulatedGpu(memory_bytes=5000)
    simulated = SimulatedTensorrt(monkeypatch, "tensorrt", "10.3.0", "cuda-python", gpu)
    with pytest.raises(
        DeviceError, match=r"GPU 0 gives no 0\.0 MB \| cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY \| end other"
    ):
        simulated.load(bundle, PHASES)
    assert gpu.held == {}


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (
            "runtime",
            r"does not start \| the NVIDIA driver is too old for it, it supports CUDA 12\.6: update the driver",
        ),
        ("context", r"gets no execution context \| createExecutionContext: out of memory"),
        ("address", r"refuses the address of \w+ \| set_tensor_address: invalid address"),
        ("execute", r"does not run the engine \| enqueueV3"),
    ],
)
def test_load_says_what_the_library_logged_when_it_refuses(simulated, bundle, fault, words):
    simulated.faults.add(fault)
    with pytest.raises(DeviceError, match=words):
        simulated.load(bundle, PHASES)
    assert simulated.gpu.held == {}


def test_a_step_says_so_when_the_gpu_fails_and_the_session_still_closes(simulated, bundle, frame):
    with simulated.load(bundle, PHASES) as session:
        session.step(frame(1))
        simulated.gpu.fails = True
        with pytest.raises(DeviceError, match=r"graph phase1 failed on tensorrt:0 \| .*CUDA_ERROR_LAUNCH_FAILED"):
            session.step(frame(2))


def only_engine(simulated: SimulatedTensorrt, bundle: Bundle, **other: object) -> EngineRecord:
    return simulated.store_engine(bundle, bundle.configuration(PLAIN), "step", **other)


def test_load_names_the_command_when_no_engine_was_built(simulated, own_bundle):
    with pytest.raises(
        ArtifactError, match=r"no engine of plain_32x48 \(step\) .* edgeseg build .*--device tensorrt:0"
    ):
        load(own_bundle, device="tensorrt:0", configuration=PLAIN)
    assert simulated.gpu.held == {}


def test_load_refuses_an_engine_with_one_byte_changed(simulated, own_bundle):
    record = only_engine(simulated, own_bundle)
    content = bytearray(record.path.read_bytes())
    content[-20] ^= 1
    record.path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"is damaged \| its SHA-256 is not its record's"):
        load(own_bundle, device="tensorrt:0", configuration=PLAIN)
    assert record.path.read_bytes() == content


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"version": "10.16.2"}, r"built for TensorRT 10\.16\.2 on Simulated GPU"),
        ({"compute_capabilities": ("8.9",), "gpu": "RTX 4090"}, r"for compute capability 8\.9"),
        ({"gpu": "Orin Nano"}, "it is for Orin Nano"),
        ({"graph_sha256": "0" * 64}, "earlier content"),
        ({"library": "tensorrt_rtx"}, r"built for TensorRT for RTX"),
    ],
    ids=["version", "compute capability", "GPU model", "graph", "library"],
)
def test_load_refuses_an_engine_that_was_built_for_something_else(simulated, own_bundle, other, words):
    record = only_engine(simulated, own_bundle, **other)
    with pytest.raises(ArtifactError, match=rf"no engine of plain_32x48 .*{words}.* edgeseg build"):
        load(own_bundle, device="tensorrt:0", configuration=PLAIN)
    assert record.path.is_file()


def test_load_refuses_the_engine_of_another_board_whose_gpu_has_the_same_name(monkeypatch, own_bundle):
    def board(multiprocessors: int) -> SimulatedTensorrt:
        gpu = SimulatedGpu("Orin", is_integrated=True, multiprocessors=multiprocessors)
        return SimulatedTensorrt(monkeypatch, "tensorrt", "10.3.0", "cuda-python", gpu)

    board(16).load(own_bundle, PLAIN).close()
    board(8)
    with pytest.raises(ArtifactError, match=r"10\.3\.0 on Orin \(8 SMs\) \(8\.7\) \| .*it is for Orin \(16 SMs\)"):
        load(own_bundle, device="tensorrt:0", configuration=PLAIN)


def test_load_says_what_the_library_logged_when_it_does_not_read_an_engine(monkeypatch, own_bundle):
    # The record fits, the engine file inside was written by another version.
    only_engine(SimulatedTensorrt(monkeypatch, "tensorrt", "10.3.0", "cuda-python"), own_bundle, version="10.16.2")
    newer = SimulatedTensorrt(monkeypatch, "tensorrt", "10.16.2", "cuda-python")
    with pytest.raises(DeviceError, match=r"refuses the engine of plain_32x48 \(step\) \| .*not compatible"):
        load(own_bundle, device="tensorrt:0", configuration=PLAIN)
    assert newer.gpu.held == {}


@pytest.mark.parametrize("package", ["cuda-python", "pycuda"])
def test_the_device_is_usable_with_either_package(monkeypatch, package):
    SimulatedTensorrt(monkeypatch, "tensorrt", "10.3.0", package)
    assert usable_reason("tensorrt:0") is None


def test_the_device_is_not_usable_without_a_package_for_memory(monkeypatch, simulated):
    cuda_modules.install(monkeypatch, simulated.gpu, None)
    assert "neither cuda-python nor pycuda is installed" in str(usable_reason("tensorrt:0"))


def test_the_device_is_not_usable_when_cuda_python_is_newer_than_the_driver(monkeypatch, simulated):
    monkeypatch.setattr(importlib.metadata, "version", lambda package: {"cuda-bindings": "13.5.0"}[package])
    reason = str(usable_reason("tensorrt:0"))
    assert "too old for cuda-python 13.5.0, it supports CUDA 12" in reason
    assert "pip install 'cuda-python<13'" in reason


def test_the_device_is_not_usable_without_tensorrt(monkeypatch, simulated):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    reason = str(usable_reason("tensorrt:0"))
    assert "TensorRT is not installed" in reason
    assert "edgeseg[tensorrt]" in reason


def test_the_device_is_not_usable_with_tensorrt_8(monkeypatch, simulated, bundle):
    old = ModuleType("tensorrt")
    old.__version__ = "8.6.2"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt", old)
    reason = "TensorRT 8.6.2 is too old, needed is 10.0 or later: on a Jetson, JetPack 6.1 or later"
    assert usable_reason("tensorrt:0") == reason
    with pytest.raises(DeviceError, match=r"TensorRT 8\.6\.2 is too old"):
        load(bundle, device="tensorrt:0", configuration=PLAIN)


def test_the_device_is_not_usable_when_tensorrt_cannot_load_its_libraries(monkeypatch, tmp_path, simulated):
    (tmp_path / "tensorrt.py").write_text("raise OSError('libnvinfer.so.10: cannot open shared object file')")
    monkeypatch.delitem(sys.modules, "tensorrt")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "TensorRT is installed, but cannot be loaded: libnvinfer.so.10" in str(usable_reason("tensorrt:0"))


def test_the_device_is_not_usable_without_a_driver(monkeypatch, simulated):
    monkeypatch.undo()
    monkeypatch.setattr(cuda_driver, "LIBRARY", "libcuda-of-no-machine.so.1")
    assert usable_reason("tensorrt:0") == "no NVIDIA driver: libcuda-of-no-machine.so.1 cannot be loaded"


def test_the_device_is_not_usable_when_the_driver_is_too_old(simulated):
    simulated.gpu.cuda_version = 11040
    reason = str(usable_reason("tensorrt:0"))
    assert "it supports CUDA 11.4, needed is 11.8 or later: update the driver" in reason


def test_the_device_is_not_usable_when_there_is_no_such_gpu(simulated):
    assert usable_reason("tensorrt:2") == "there is no GPU 2: the driver knows 1, counted from 0"


@pytest.mark.parametrize(
    ("version", "removed"), [("10.0.1", "device_memory_size_v2"), ("11.4.1", "device_memory_size")]
)
def test_the_stand_ins_have_only_the_names_of_their_version(version, removed):
    assert not hasattr(runtime_module("tensorrt", version, SimulatedGpu()).ICudaEngine, removed)


def test_the_names_of_the_stand_in_are_those_of_the_library():
    bindings = pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX is not installed")
    stand_in = runtime_module("tensorrt_rtx", "1.7.1.116", SimulatedGpu())
    for kind in ("Runtime", "ICudaEngine", "IExecutionContext", "IRuntimeConfig", "IRuntimeCache"):
        ours = {name for name in vars(getattr(stand_in, kind)) if not name.startswith("_")}
        assert ours <= set(dir(getattr(bindings, kind)))
        assert ours
    assert {"FLOAT", "HALF", "INT8", "INT32", "INT64", "BOOL", "UINT8"} <= set(dir(bindings.DataType))
    assert isinstance(bindings.ExecutionContextAllocationStrategy.USER_MANAGED.name, str)


def test_the_names_of_the_faces_are_those_of_cuda_python():
    driver = pytest.importorskip("cuda.bindings.driver", reason="cuda-python is not installed")
    face = cuda_modules.cuda_python(SimulatedGpu())[-1]
    assert {name for name in vars(face) if name.startswith("cu")} <= set(dir(driver))
    assert int(driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL) == 1


def test_frames_are_zeros_before_the_first_is_filled_in(simulated, bundle):
    with runner_of(simulated, bundle, PLAIN) as runner:
        assert not np.any(runner.image)


def test_engines_that_edgeseg_build_made_are_found_on_a_gpu_that_they_are_for(monkeypatch, own_bundle):
    bindings = pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX is not installed")
    result = CliRunner().invoke(main, ["build", str(own_bundle.root), "--device", "tensorrt-rtx:0"])
    assert result.exit_code == 0, result.output
    for capability, words in {
        # It gets as far as the library, here a stand-in that reads no real engine.
        (8, 9): r"TensorRT for RTX .* refuses the engine of plain_32x48 \(step\)",
        (7, 5): r"no engine of plain_32x48 \(step\) fits .*\(7\.5\)",
    }.items():
        gpu = SimulatedGpu("RTX", capability)
        SimulatedTensorrt(monkeypatch, "tensorrt_rtx", bindings.__version__, "cuda-python", gpu)
        with pytest.raises(EdgesegError, match=words):
            load(own_bundle, device="tensorrt-rtx:0", configuration=PLAIN)
