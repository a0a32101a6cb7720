"""One suite of sessions for all backends. Those whose library or GPU is missing skip and say so; those that need a GPU
run over a simulated one too, so that their own code is run everywhere.
"""

import gc
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import numpy as np
import pytest
from onnx import TensorProto, helper

from edgeseg.bundle import Bundle
from edgeseg.errors import ArtifactError, DeviceError
from edgeseg.runtime.backends.base import BACKENDS, usable_reason
from edgeseg.runtime.backends.onnxruntime_gpu_backend import CudaRunner, OrtTensorrtRunner
from edgeseg.runtime.session import Session
from edgeseg.runtime.session_loading import load
from support.backends import SimulatedTensorrt, Subject, real, simulated_gpu_provider
from support.simulated_gpu import SimulatedGpu
from support.torch_graphs import simulated_torch_gpu

PLAIN, PHASES, FRAMES = "plain_32x48", "phases_32x48_rho0-concat", "frames_32x48"
MASKED = [f"{name}_32x48_rho0-concat" for name in ("masked", "masked16", "masked8")]
NEED_GPU = [f"{family}:0" for family in BACKENDS if family != "cpu"]

Make = Callable[[pytest.MonkeyPatch], Subject]
SIMULATED: dict[str, Make] = {
    "tensorrt 10.0, cuda-python": lambda m: SimulatedTensorrt(m, "tensorrt", "10.0.1", "cuda-python"),
    "tensorrt 10.3, cuda-python": lambda m: SimulatedTensorrt(m, "tensorrt", "10.3.0", "cuda-python"),
    "tensorrt 10.3, pycuda": lambda m: SimulatedTensorrt(m, "tensorrt", "10.3.0", "pycuda"),
    "tensorrt 10.3, one memory": lambda m: SimulatedTensorrt(
        m, "tensorrt", "10.3.0", "cuda-python", SimulatedGpu("Orin", is_integrated=True)
    ),
    "tensorrt 10.16, one memory, pycuda": lambda m: SimulatedTensorrt(
        m, "tensorrt", "10.16.2", "pycuda", SimulatedGpu("Thor", (11, 0), is_integrated=True)
    ),
    "tensorrt 11.4, cuda-python": lambda m: SimulatedTensorrt(m, "tensorrt", "11.4.1", "cuda-python"),
    "tensorrt-rtx 1.7, cuda-python": lambda m: SimulatedTensorrt(m, "tensorrt_rtx", "1.7.1.116", "cuda-python"),
    "onnxruntime cuda": lambda m: simulated_gpu_provider(m, "cuda:0", CudaRunner),
    "onnxruntime tensorrt": lambda m: simulated_gpu_provider(m, "ort-tensorrt:0", OrtTensorrtRunner),
    "torch": simulated_torch_gpu,
}


@pytest.fixture(
    params=[
        "cpu",
        "torch:cpu",
        *(pytest.param(device, marks=pytest.mark.gpu) for device in NEED_GPU),
        *(pytest.param(make, id=f"simulated {name}") for name, make in SIMULATED.items()),
    ]
)
def subject(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Subject:
    """A device, ready to load bundles."""
    return real(request.param) if isinstance(request.param, str) else request.param(monkeypatch)


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory, graphs: SimpleNamespace) -> Bundle:
    """All kinds of configurations, states of three types among them; nobody writes to it but builders of engines."""
    return graphs.write_bundle(
        tmp_path_factory.mktemp("suite") / "suite.edgeseg",
        [
            graphs.stateless(),
            graphs.two_phases(),
            graphs.two_frames(),
            graphs.masked_phases("masked"),
            graphs.masked_phases("masked16", TensorProto.FLOAT16),
            graphs.masked_phases("masked8", TensorProto.INT8),
        ],
    )


def left_and_right(session: Session, frames: list[np.ndarray]) -> list[tuple[int, int]]:
    """What the counting graphs tell per step: one value in each half of the label map."""
    seen = []
    for frame in frames:
        labels = session.step(frame)
        halves = np.unique(labels[:, :24]), np.unique(labels[:, 24:])
        assert all(half.size == 1 for half in halves)
        seen.append((int(halves[0][0]), int(halves[1][0])))
    return seen


def test_step_gives_the_labels_of_the_graph(subject, suite):
    frame = np.zeros((32, 48, 3), np.uint8)
    frame[:, :16, 0] = frame[:, 16:32, 1] = frame[:, 32:, 2] = 200
    with subject.load(suite, PLAIN) as session:
        labels = session.step(frame)
    assert labels.dtype == np.uint8
    assert labels.shape == (32, 48)
    assert labels[0].tolist() == [0] * 16 + [1] * 16 + [2] * 16


@pytest.mark.parametrize("name", MASKED)
def test_labels_are_those_of_the_cpu_over_a_sequence_and_a_reset(subject, suite, name):
    frames = np.random.default_rng(3).integers(0, 256, (7, 32, 48, 3), np.uint8)
    with load(suite, configuration=name, threads=1) as reference, subject.load(suite, name) as session:
        for index, frame in enumerate(frames):
            if index == 4:
                reference.reset()
                session.reset()
            expected = reference.step(frame)
            assert len(np.unique(expected)) == 4
            # Another device may round otherwise where two channels are nearly equal.
            assert np.mean(session.step(frame) == expected) >= (1.0 if subject.device == "cpu" else 0.999)


def test_roles_and_state_follow_the_links_when_phases_alternate(subject, suite, frame):
    with subject.load(suite, PHASES) as session:
        seen = left_and_right(session, [frame(value) for value in (10, 11, 12, 13, 14, 15)])
    assert seen == [(0, 255), (101, 10), (52, 11), (103, 12), (54, 13), (105, 14)]


def test_state_goes_on_when_a_role_follows_itself(subject, suite, frame):
    with subject.load(suite, FRAMES) as session:
        seen = left_and_right(session, [frame(value) for value in (10, 11, 12, 13, 14)])
    assert seen == [(0, 255), (21, 10), (22, 11), (23, 12), (24, 13)]


def test_reset_starts_a_new_sequence(subject, suite, frame):
    with subject.load(suite, PHASES) as session:
        left_and_right(session, [frame(1)] * 4)
        session.reset()
        assert left_and_right(session, [frame(7), frame(8)]) == [(0, 255), (101, 7)]


def test_state_stays_right_over_many_steps_and_two_sessions(subject, suite, frame):
    with subject.load(suite, PHASES) as one, subject.load(suite, PHASES) as other:
        left_and_right(other, [frame(99)])
        seen = left_and_right(one, [frame(value) for value in range(80)])
        assert seen[1:] == [((100 if s % 2 else 50) + s, s - 1) for s in range(1, 80)]
        assert left_and_right(other, [frame(98)]) == [(101, 99)]


@pytest.fixture
def _own_heap() -> Iterator[None]:
    """A collection looks through what the test made, not through what all tests before it left."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("_own_heap")
def test_buffers_live_as_long_as_the_session_when_garbage_is_collected(subject, suite, frame):
    with subject.load(suite, FRAMES) as session:
        session.step(frame(5))
        gc.collect()
        scratch = [np.full(100_000, 7, np.uint8) for _ in range(20)]
        assert left_and_right(session, [frame(6)]) == [(21, 5)]
        assert len(scratch) == 20


def test_steps_go_on_when_another_thread_takes_the_session(subject, suite, frame):
    seen: list[tuple[int, int]] = []
    with subject.load(suite, PHASES) as session:
        left_and_right(session, [frame(10)])
        thread = threading.Thread(target=lambda: seen.extend(left_and_right(session, [frame(11), frame(12)])))
        thread.start()
        thread.join()
    assert seen == [(101, 10), (52, 11)]


def test_step_returns_a_copy_that_later_steps_leave_alone(subject, suite, frame):
    with subject.load(suite, FRAMES) as session:
        first = session.step(frame(1))
        session.step(frame(2))
    assert first[0, 0] == 0


def test_outputs_that_nobody_reads_do_no_harm(subject, tmp_path, graphs, frame):
    entry = graphs.stateless("extra")
    graph = entry.graphs["step"].graph
    graph.node.append(helper.make_node("Identity", ["float"], ["confidence"]))
    graph.output.append(graphs.tensor("confidence", TensorProto.FLOAT, (1, 32, 48, 3)))
    made = graphs.write_bundle(tmp_path / "extra.edgeseg", [entry])
    with subject.load(made, "extra_32x48") as session:
        assert np.unique(session.step(frame(3))).tolist() == [0]


def test_step_says_so_when_the_session_is_closed(subject, suite, frame):
    session = subject.load(suite, PLAIN)
    session.close()
    session.close()
    with pytest.raises(DeviceError, match="not active"):
        session.step(frame(0))


def test_a_session_loads_again_when_it_was_closed(subject, suite, frame):
    subject.load(suite, PHASES).close()
    with subject.load(suite, PHASES) as session:
        assert left_and_right(session, [frame(10), frame(11)]) == [(0, 255), (101, 10)]


def test_step_raises_a_device_error_when_the_graph_fails(subject, tmp_path, graphs, frame):
    if subject.is_gpu:
        pytest.skip("a GPU gives garbage where the CPU finds an index out of range")
    made = graphs.write_bundle(tmp_path / "f.edgeseg", [graphs.stateless("fails", graph=graphs.failing_when_bright())])
    with subject.load(made, "fails_32x48") as session:
        session.step(frame(9))
        with pytest.raises(DeviceError, match=f"step failed on {subject.device}"):
            session.step(frame(10))


def test_load_names_the_missing_input_when_links_and_graph_disagree(subject, tmp_path, graphs):
    entry = graphs.two_frames()
    entry.links = entry.links[:1] + entry.links[2:]
    made = graphs.write_bundle(tmp_path / "torn.edgeseg", [entry])
    with pytest.raises(ArtifactError, match=r"needs the inputs state_0_in, state_1_in, its links feed state_0_in"):
        subject.load(made, FRAMES)


def test_load_refuses_when_the_state_of_two_roles_has_two_types(subject, tmp_path, graphs):
    entry = graphs.masked_phases("masked")
    entry.graphs["phase0"] = graphs.masked_phases("other", TensorProto.FLOAT16).graphs["phase0"]
    made = graphs.write_bundle(tmp_path / "types.edgeseg", [entry])
    with pytest.raises(ArtifactError, match=r"of phase\d is float\d\d .*, but the state it is linked with is float"):
        subject.load(made, MASKED[0])


def test_load_refuses_when_the_graph_has_another_size_than_its_knobs(subject, tmp_path, graphs):
    entry = graphs.stateless("odd", size_hw=(64, 64), graph=graphs.brightest_channel((32, 48)))
    made = graphs.write_bundle(tmp_path / "odd.edgeseg", [entry])
    with pytest.raises(ArtifactError, match="its graphs take 32 x 48, the manifest says 64 x 64"):
        subject.load(made, "odd_64x64")


@pytest.mark.parametrize("family", ["cuda", "ort-tensorrt", "tensorrt", "tensorrt-rtx"])
def test_the_device_string_of_a_gpu_needs_its_number(family):
    assert f"a GPU is written '{family}:0', got '{family}'" in str(usable_reason(family))
