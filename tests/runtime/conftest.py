"""Real bundles of tiny graphs, made with onnx alone, whose labels tell what was run."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeseg.accuracy import Accuracy
from edgeseg.bundle import Bundle, BundleConfiguration, FileRecord, Graph, StateLink, configuration_digest, file_sha256
from edgeseg.classes import ClassSet
from edgeseg.config import Configuration
from edgeseg.manifest import manifest_dict
from edgeseg.runtime.session import Session
from edgeseg.runtime.session_loading import load

SIZE_HW = (32, 48)
CLASSES = ClassSet(("red", "green", "blue"), ((255, 0, 0), (0, 255, 0), (0, 0, 255)), movable=("blue",))


def model(nodes: list, inputs: list, outputs: list, constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    initialisers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, initialisers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def tensor(name: str, dtype: int, shape: Sequence[int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, list(shape))


def image_and_labels(size_hw: tuple[int, int]) -> tuple[onnx.ValueInfoProto, onnx.ValueInfoProto]:
    return tensor("image", TensorProto.UINT8, (1, *size_hw, 3)), tensor("labels", TensorProto.UINT8, (1, *size_hw))


def brightest_channel(size_hw: tuple[int, int] = SIZE_HW, extra_convolutions: int = 0) -> onnx.ModelProto:
    """Stateless: the label is the index of the brightest channel. Extra convolutions only make it slower."""
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["x0"], perm=[0, 3, 1, 2]),
    ]
    constants = {}
    for index in range(1 + extra_convolutions):
        kernel = np.zeros((3, 3, 3, 3), np.float32)
        kernel[np.arange(3), np.arange(3), 1, 1] = 1.0
        constants[f"kernel{index}"] = kernel
        nodes.append(helper.make_node("Conv", [f"x{index}", f"kernel{index}"], [f"x{index + 1}"], pads=[1] * 4))
    nodes += [
        helper.make_node("ArgMax", [f"x{1 + extra_convolutions}"], ["index"], axis=1, keepdims=0),
        helper.make_node("Cast", ["index"], ["labels"], to=TensorProto.UINT8),
    ]
    image, labels = image_and_labels(size_hw)
    return model(nodes, [image], [labels], constants)


def counting(base: int, *, has_state: bool) -> onnx.ModelProto:
    """Stateful: left half of the labels = base + steps since the reset, right half = first pixel of the frame before.

    The first graph (`has_state` False) has no state inputs: left half = base, right half = 255.
    """
    half = (1, SIZE_HW[0], SIZE_HW[1] // 2)
    constants = {
        "zero": np.array([0, 0, 0, 0], np.int64),
        "one": np.array([1, 1, 1, 1], np.int64),
        "shape": np.array(half, np.int64),
        "base": np.array([base], np.float32),
        "step": np.array([1], np.float32),
        "none": np.full((1, 1, 1, 1), 255, np.float32),
        "nought": np.array([0], np.float32),
        "single": np.array([1], np.int64),
        "flat": np.array([1, 1, 1], np.int64),
    }
    # TensorRT does nothing with uint8 but cast it.
    count = "state_0_in" if has_state else "start"
    nodes = [helper.make_node("Cast", ["state_1_in"], ["before"], to=TensorProto.FLOAT)] if has_state else []
    nodes += [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Slice", ["float", "zero", "one"], ["pixel"]),
        helper.make_node("Cast", ["pixel"], ["state_1_out"], to=TensorProto.UINT8),
        # Labels that depend on no input would be a constant to some exporters.
        helper.make_node("Mul", ["pixel", "nought"], ["nothing"]),
        helper.make_node("Reshape", ["nothing", "single"], ["start"]),
        helper.make_node("Add", [count, "step"], ["state_0_out"]),
        helper.make_node("Add", [count, "base"], ["value"]),
        helper.make_node("Expand", ["value", "shape"], ["left"]),
        helper.make_node("Reshape", ["before" if has_state else "none", "flat"], ["before_flat"]),
        helper.make_node("Expand", ["before_flat", "shape"], ["right"]),
        helper.make_node("Concat", ["left", "right"], ["both"], axis=2),
        helper.make_node("Cast", ["both"], ["labels"], to=TensorProto.UINT8),
    ]
    image, labels = image_and_labels(SIZE_HW)
    states = [("state_0", TensorProto.FLOAT, (1,)), ("state_1", TensorProto.UINT8, (1, 1, 1, 1))]
    inputs = [tensor(f"{name}_in", dtype, shape) for name, dtype, shape in states] if has_state else []
    outputs = [tensor(f"{name}_out", dtype, shape) for name, dtype, shape in states]
    return model(nodes, [image, *inputs], [labels, *outputs], constants)


def masked(role: str, dtype: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """A convolution to 4 channels; the label is the index of the largest.

    `init` computes all and gives channels 0 and 1, `phase1` computes 2 and 3 and keeps 0 and 1 of the step before,
    `phase0` the other way round. The state is of type FLOAT, FLOAT16, or INT8 with scale 0.05.
    """
    computed = {"init": slice(0, 4), "phase1": slice(2, 4), "phase0": slice(0, 2)}[role]
    kernel = np.random.default_rng(7).normal(size=(4, 3, 3, 3)).astype(np.float32)
    # Without its mean, so that each channel is the largest somewhere.
    kernel -= kernel.mean((1, 2, 3), keepdims=True)
    constants = {"kernel": kernel[computed], "byte": np.array(1 / 255, np.float32)}
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "byte"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["x"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["x", "kernel"], ["fresh"], pads=[1] * 4),
    ]
    if role == "init":
        constants["halves"] = np.array([2, 2], np.int64)
        nodes.append(helper.make_node("Split", ["fresh", "halves"], ["given", "rest"], axis=1))
        nodes.append(helper.make_node("Identity", ["fresh"], ["all"]))
    else:
        order = ["kept", "fresh"] if role == "phase1" else ["fresh", "kept"]
        nodes.append(helper.make_node("Identity", ["fresh"], ["given"]))
        nodes.append(helper.make_node("Concat", order, ["all"], axis=1))
    if dtype == TensorProto.INT8:
        constants |= {"step": np.array(0.05, np.float32), "zero": np.array(0, np.int8)}
        to_state, from_state = ("QuantizeLinear", ["step", "zero"], {}), ("DequantizeLinear", ["step", "zero"], {})
    else:
        to_state, from_state = ("Cast", [], {"to": dtype}), ("Cast", [], {"to": TensorProto.FLOAT})
    nodes.append(helper.make_node(to_state[0], ["given", *to_state[1]], ["state_0_out"], **to_state[2]))
    if role != "init":
        nodes.insert(0, helper.make_node(from_state[0], ["state_0_in", *from_state[1]], ["kept"], **from_state[2]))
    nodes += [
        helper.make_node("ArgMax", ["all"], ["index"], axis=1, keepdims=0),
        helper.make_node("Cast", ["index"], ["labels"], to=TensorProto.UINT8),
    ]
    image, labels = image_and_labels(SIZE_HW)
    state_in, state_out = (tensor(f"state_0_{side}", dtype, (1, 2, *SIZE_HW)) for side in ("in", "out"))
    return model(nodes, [image] if role == "init" else [image, state_in], [labels, state_out], constants)


def failing_when_bright() -> onnx.ModelProto:
    """Fails in the middle of a run when the first pixel is over 9, else gives zeros."""
    nodes = [
        helper.make_node("Cast", ["image"], ["integers"], to=TensorProto.INT64),
        helper.make_node("Slice", ["integers", "zero", "one"], ["index"]),
        helper.make_node("Gather", ["ten", "index"], ["value"]),
        helper.make_node("Reshape", ["value", "flat"], ["value_flat"]),
        helper.make_node("Expand", ["value_flat", "shape"], ["integer_labels"]),
        helper.make_node("Cast", ["integer_labels"], ["labels"], to=TensorProto.UINT8),
    ]
    constants = {
        "zero": np.array([0, 0, 0, 0], np.int64),
        "one": np.array([1, 1, 1, 1], np.int64),
        "ten": np.zeros(10, np.int64),
        "flat": np.array([1, 1, 1], np.int64),
        "shape": np.array((1, *SIZE_HW), np.int64),
    }
    image, labels = image_and_labels(SIZE_HW)
    return model(nodes, [image], [labels], constants)


def accuracy(miou: Sequence[float], fps: float = 15.0) -> Accuracy:
    return Accuracy("made", "val", fps, 100, SIZE_HW, tuple(miou), (None,) * len(miou), (0.5, 0.5, None))


def write_bundle(root: Path, entries: Sequence[SimpleNamespace], colour_order: str = "RGB") -> Bundle:
    """Write graphs and manifest; an entry has knobs, graphs (role -> model), first, then, links, accuracy, macs."""
    root.mkdir(parents=True)
    files: dict[str, FileRecord] = {}
    configurations = []
    for entry in entries:
        graphs = {}
        for role, graph in entry.graphs.items():
            name, weights = f"{entry.knobs.name}.{role}.onnx", f"{entry.knobs.name}.{role}.bin"
            onnx.save(graph, root / name, save_as_external_data=True, location=weights, size_threshold=128)
            written = [file for file in (name, weights) if (root / file).exists()]
            files |= {file: FileRecord(file_sha256(root / file), (root / file).stat().st_size) for file in written}
            graphs[role] = Graph(name, tuple(written[1:]), entry.macs, 10)
        configurations.append(
            BundleConfiguration(
                knobs=entry.knobs,
                graphs=graphs,
                first=entry.first,
                then=entry.then,
                links=entry.links,
                digest=configuration_digest(graphs, files),
                accuracy=entry.accuracy,
            )
        )
    made = Bundle(
        root,
        root.stem,
        CLASSES,
        colour_order,
        tuple(configurations),
        files,
        {"edgeseg": "0"},
        "2026-01-01T00:00:00+00:00",
    )
    (root / "manifest.json").write_text(json.dumps(manifest_dict(made)))
    return Bundle.open(root)


def stateless(name: str = "plain", size_hw: tuple[int, int] = SIZE_HW, graph: onnx.ModelProto | None = None,
              miou: Sequence[float] | None = (0.6, 0.5, 0.4), macs: int = 1000) -> SimpleNamespace:  # fmt: skip
    return SimpleNamespace(
        knobs=Configuration(name, size_hw), graphs={"step": graph or brightest_channel(size_hw)}, first="step",
        then=("step",), links=(), accuracy=accuracy(miou) if miou else None, macs=macs,
    )  # fmt: skip


def links(*pairs: tuple[str, str]) -> tuple[StateLink, ...]:
    return tuple(StateLink(before, f"state_{i}_out", after, f"state_{i}_in") for before, after in pairs for i in (0, 1))


def two_phases(miou: Sequence[float] | None = (0.55, 0.5, 0.45)) -> SimpleNamespace:
    """init gives 0 in the left half, phase1 100 + steps, phase0 50 + steps."""
    return SimpleNamespace(
        knobs=Configuration("phases", SIZE_HW, rho=0.0, cwm_form="concat"),
        graphs={
            "init": counting(0, has_state=False),
            "phase1": counting(100, has_state=True),
            "phase0": counting(50, has_state=True),
        },
        first="init",
        then=("phase1", "phase0"),
        links=links(("init", "phase1"), ("phase1", "phase0"), ("phase0", "phase1")),
        accuracy=accuracy(miou) if miou else None,
        macs=500,
    )


def masked_phases(name: str, dtype: int = TensorProto.FLOAT) -> SimpleNamespace:
    """A network of `masked` roles, in the order of a channel-wise masked one."""
    order = ("init", "phase1", "phase0")
    pairs = (("init", "phase1"), ("phase1", "phase0"), ("phase0", "phase1"))
    return SimpleNamespace(
        knobs=Configuration(name, SIZE_HW, rho=0.0, cwm_form="concat"),
        graphs={role: masked(role, dtype) for role in order},
        first="init",
        then=order[1:],
        links=tuple(StateLink(before, "state_0_out", after, "state_0_in") for before, after in pairs),
        accuracy=None,
        macs=500,
    )


def two_frames() -> SimpleNamespace:
    """init gives 0 in the left half, each later step 20 + steps: a role that follows itself."""
    return SimpleNamespace(
        knobs=Configuration("frames", SIZE_HW, input_frames=2),
        graphs={"init": counting(0, has_state=False), "step": counting(20, has_state=True)},
        first="init",
        then=("step",),
        links=links(("init", "step"), ("step", "step")),
        accuracy=accuracy((0.58, 0.5, 0.4)),
        macs=800,
    )


@pytest.fixture(scope="session")
def graphs() -> SimpleNamespace:
    """The builders of this module, for tests that make their own bundles."""
    return SimpleNamespace(
        brightest_channel=brightest_channel, counting=counting, failing_when_bright=failing_when_bright, links=links,
        stateless=stateless, two_phases=two_phases, two_frames=two_frames, masked_phases=masked_phases, model=model,
        tensor=tensor, image_and_labels=image_and_labels, write_bundle=write_bundle, classes=CLASSES,
        size_hw=SIZE_HW,
    )  # fmt: skip


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A stateless configuration, one of two phases and one of two frames; nobody writes to it."""
    return write_bundle(tmp_path_factory.mktemp("bundles") / "tiny.edgeseg", [stateless(), two_phases(), two_frames()])


@pytest.fixture
def own_bundle(tmp_path: Path) -> Bundle:
    """One stateless configuration, to be damaged."""
    return write_bundle(tmp_path / "own.edgeseg", [stateless()])


@pytest.fixture(scope="session")
def frame() -> Callable[[int], np.ndarray]:
    """value -> frame uint8 (32, 48, 3) with that value everywhere."""
    return lambda value: np.full((*SIZE_HW, 3), value, np.uint8)


@pytest.fixture
def session(bundle: Bundle) -> Iterator[Session]:
    """The stateless configuration, on one thread."""
    with load(bundle, configuration="plain_32x48", threads=1) as session:
        yield session
