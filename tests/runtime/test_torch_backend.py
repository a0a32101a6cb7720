"""What only the torch backend has; `test_backends` runs the suite of all backends on it."""

import sys
from dataclasses import replace
from types import ModuleType

import numpy as np
import onnx
import pytest
import torch

from edgeseg.bundle import Bundle
from edgeseg.errors import ArtifactError, DeviceError, MissingPackageError
from edgeseg.runtime.backends import torch_backend, torch_library
from edgeseg.runtime.backends.base import open_runner, usable_reason
from edgeseg.runtime.backends.torch_programs import OperatorProgram
from edgeseg.runtime.session import Session
from edgeseg.runtime.session_loading import load
from support.backends import bundle_with_programs
from support.torch_graphs import WAITS, simulated_torch_gpu

PLAIN, PHASES, FRAMES = "plain_32x48", "phases_32x48_rho0-concat", "frames_32x48"


def with_programs(bundle: Bundle, name: str) -> Bundle:
    return bundle_with_programs("torch:cpu", bundle, bundle.configuration(name))


def test_bundle_without_programs_names_the_command(bundle):
    with pytest.raises(ArtifactError, match=r"has no programs for torch:cpu .* --format onnx,torch$"):
        load(bundle, device="torch:cpu", configuration=PLAIN, threads=1)


def test_load_refuses_a_program_with_a_changed_byte(bundle, tmp_path):
    made = with_programs(bundle, PLAIN)
    own = replace(made, root=tmp_path)
    for name in made.files:
        (tmp_path / name).write_bytes(made.path(name).read_bytes())
    path = own.path(made.configuration(PLAIN).programs["torch"].files["step"])
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=f"{path.name} is damaged"):
        load(own, device="torch:cpu", configuration=PLAIN, threads=1)


def test_error_of_a_program_names_its_file(bundle, tmp_path):
    made = with_programs(bundle, PLAIN)
    entry = made.configuration(PLAIN)
    (tmp_path / entry.programs["torch"].files["step"]).write_bytes(b"PK")
    with pytest.raises(ArtifactError, match=r"step\.torch\.pt2 is not readable as a program"):
        Session(tmp_path, entry, device="torch:cpu", threads=1)


@pytest.mark.parametrize(
    ("device", "reason"),
    [
        ("torch", "it is written 'torch:cpu' or 'torch:0', got 'torch'"),
        ("torch:gpu", "it is written 'torch:cpu' or 'torch:0', got 'torch:gpu'"),
        ("torch-tensorrt", "it is written 'torch-tensorrt:0', got 'torch-tensorrt'"),
        ("torch-tensorrt:cpu", "it is written 'torch-tensorrt:0', got 'torch-tensorrt:cpu'"),
    ],
)
def test_device_string_is_refused_when_it_is_not_written_so(device, reason):
    assert usable_reason(device) == reason


def test_torch_is_said_to_be_missing_where_it_is_not_installed(monkeypatch):
    monkeypatch.setattr(torch_library.importlib.util, "find_spec", lambda name: None)
    assert usable_reason("torch:cpu") == "torch is not installed"
    assert usable_reason("torch-tensorrt:0") == "torch_tensorrt is not installed"


@pytest.mark.parametrize(
    ("cuda", "available", "count", "reason"),
    [
        (None, False, 0, "this torch was built without CUDA"),
        ("13.0", False, 0, "torch finds no GPU or no driver"),
        ("13.0", True, 1, "torch finds 1 GPU"),
        ("13.0", True, 2, None),
    ],
)
def test_gpu_is_usable_when_torch_finds_it(monkeypatch, cuda, available, count, reason):
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert usable_reason("torch:1") == reason


def test_steps_use_their_threads_and_leave_the_process_its_own(monkeypatch, bundle, frame):
    seen = []
    original = OperatorProgram.__call__

    def recording(self, inputs):
        seen.append(torch.get_num_threads())
        return original(self, inputs)

    monkeypatch.setattr(OperatorProgram, "__call__", recording)
    before = torch.get_num_threads()
    made = with_programs(bundle, PLAIN)
    with load(made, device="torch:cpu", configuration=PLAIN, threads=before + 1) as session:
        session.step(frame(1))
    assert seen == [before + 1]
    assert torch.get_num_threads() == before


def test_frame_that_is_a_state_stays_when_the_next_frame_is_written(tmp_path, graphs, frame):
    """The state is the whole frame as it came, so that the program hands its own input on."""
    shape = (1, 32, 48, 3)
    image, labels = graphs.image_and_labels((32, 48))
    red = [onnx.helper.make_node("Slice", ["pixels", "starts", "ends", "axes"], ["channel"])]
    red += [onnx.helper.make_node("Reshape", ["channel", "shape"], ["labels"])]
    red += [onnx.helper.make_node("Identity", ["image"], ["state_0_out"])]
    constants = {
        "starts": np.array([0], np.int64),
        "ends": np.array([1], np.int64),
        "axes": np.array([3], np.int64),
        "shape": np.array((1, 32, 48), np.int64),
    }
    state_in, state_out = (graphs.tensor(f"state_0_{side}", onnx.TensorProto.UINT8, shape) for side in ("in", "out"))
    entry = graphs.two_frames()
    for role, source, inputs in (("init", "image", [image]), ("step", "state_0_in", [image, state_in])):
        nodes = [onnx.helper.make_node("Identity", [source], ["pixels"]), *red]
        entry.graphs[role] = graphs.model(nodes, inputs, [labels, state_out], constants)
    entry.links = tuple(link for link in entry.links if link.output == "state_0_out")
    made = with_programs(graphs.write_bundle(tmp_path / "frames.edgeseg", [entry]), FRAMES)
    with load(made, device="torch:cpu", configuration=FRAMES, threads=1) as session:
        assert [int(session.step(frame(value))[0, 0]) for value in (10, 11, 12, 13)] == [10, 10, 11, 12]


def test_gpu_steps_are_graphs_captured_once_for_each_distinct_plan(monkeypatch, bundle, frame):
    subject = simulated_torch_gpu(monkeypatch)
    calls = []
    original = OperatorProgram.__call__
    monkeypatch.setattr(OperatorProgram, "__call__", lambda self, inputs: calls.append(1) or original(self, inputs))
    with subject.load(bundle, PHASES) as session:
        plans = session._runner._plan.distinct
        captured = len(calls)
        labels = [int(session.step(frame(value))[0, 0]) for value in range(9)]
    assert captured == len(plans) * (torch_backend._WARM_UP + 1)
    assert len(calls) == captured
    assert labels == [0, 101, 52, 103, 54, 105, 56, 107, 58]


def test_gpu_steps_start_on_whole_buffers_and_sleep_until_they_are_done(monkeypatch, bundle, frame):
    subject = simulated_torch_gpu(monkeypatch)
    with subject.load(bundle, PLAIN) as session:
        assert WAITS == ["device", "stream"]
        session.step(frame(1))
    assert WAITS[2:] == ["sleeping event"]


def test_state_of_the_warm_up_does_not_reach_the_first_steps(monkeypatch, bundle, frame):
    with simulated_torch_gpu(monkeypatch).load(bundle, FRAMES) as session:
        assert [int(session.step(frame(5))[0, 0]) for _ in range(3)] == [0, 21, 22]


def test_loading_is_a_device_error_when_memory_runs_out(monkeypatch, bundle):
    def out_of_memory(*arguments: object, **options: object) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(torch_backend, "OperatorProgram", out_of_memory)
    made = with_programs(bundle, PLAIN)
    with pytest.raises(DeviceError, match=r"plain_32x48 cannot be loaded on torch:cpu \| CUDA out of memory"):
        load(made, device="torch:cpu", configuration=PLAIN, threads=1)


@pytest.fixture
def package(monkeypatch) -> ModuleType:
    """A stand-in for torch_tensorrt, which loads what torch saved."""
    module = ModuleType("torch_tensorrt")
    module.loaded = []

    def load_program(path, extra_files):
        module.loaded.append(path)
        return torch.export.load(path, extra_files=extra_files)

    module.load = load_program
    simulated_torch_gpu(monkeypatch)
    monkeypatch.setitem(sys.modules, "torch_tensorrt", module)
    monkeypatch.setattr(torch_backend, "missing", lambda package: None)
    return module


def torch_tensorrt_runner(bundle, name):
    made = with_programs(bundle, name)
    entry = made.configuration(name)
    compiled = replace(entry, programs={"torch-tensorrt": entry.programs["torch"]})
    return open_runner(made.root, compiled, device="torch-tensorrt:0", threads=1)


def test_compiled_programs_are_loaded_by_their_package_and_run_with_their_states(package, bundle):
    with torch_tensorrt_runner(bundle, PHASES) as runner:
        seen = []
        for value in range(5):
            runner.image[:] = value
            runner.infer()
            seen.append((int(runner.labels[0, 0]), int(runner.labels[0, 47])))
    assert seen == [(0, 255), (101, 0), (52, 1), (103, 2), (54, 3)]
    assert [path.rpartition("/")[2] for path in package.loaded] == [
        f"{PHASES}.{role}.torch.pt2" for role in ("init", "phase1", "phase0")
    ]


def test_compiled_program_without_names_is_refused(package, bundle):
    plain = package.load
    package.load = lambda path, extra_files: plain(path, extra_files={})
    with pytest.raises(ArtifactError, match=r"is not a program of edgeseg .* --format torch-tensorrt"):
        torch_tensorrt_runner(bundle, PHASES).activate()


def test_torch_tensorrt_without_tensorrt_is_one_clear_line(monkeypatch, tmp_path, capsys):
    (tmp_path / "torch_tensorrt").mkdir()
    (tmp_path / "torch_tensorrt" / "__init__.py").write_text(
        "print('make sure tensorrt lib is in the LD_LIBRARY_PATH: None')\n"
        "raise Exception('import error when try to import _TensorRTProxyModule,\\n got error No module tensorrt')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingPackageError) as caught:
        torch_library.import_torch_tensorrt()
    assert "\n" not in str(caught.value)
    assert "it needs TensorRT" in str(caught.value)
    assert "pip install 'edgeseg[torch-tensorrt]'" in str(caught.value)
    assert capsys.readouterr().out == ""
