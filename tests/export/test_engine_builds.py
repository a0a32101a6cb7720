"""The engines of a bundle: linted first, used again where they fit, built one by one, kept when a later one fails."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeseg.bundle import Bundle
from edgeseg.classes import ClassSet
from edgeseg.config import Configuration
from edgeseg.errors import ArtifactError, DeviceError, InputError
from edgeseg.export.build_options import BuildOptions
from edgeseg.export.bundle_writer import writing_bundle
from edgeseg.export.engine_builds import build_bundle
from edgeseg.export.variant import Variant
from edgeseg.runtime.engine_cache import engine_folder, find_engine, timing_cache_path
from support.quantised_graphs import half_graph, int8_graph
from support.tensorrt_api import StandIn, stand_in_target

CLASSES = ClassSet(("a", "b"), ((1, 2, 3), (4, 5, 6)))
PLAIN = BuildOptions()
NAMES = ["net_32x48_fp16", "net_32x48_int8"]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """Two configurations of one graph each."""
    graphs = {"fp16": half_graph(), "int8": int8_graph()}
    variants = [
        Variant(Configuration("net", (32, 48), precision=precision), {"step": graph}, "step", ("step",))
        for precision, graph in graphs.items()
    ]
    return write(tmp_path, variants)


def write(folder: Path, variants: list[Variant]) -> Bundle:
    with writing_bundle(folder / "net.edgeseg", CLASSES) as writer:
        writer.finish(writer.write_graphs(variants))
    return Bundle.open(folder / "net.edgeseg")


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> Callable:
    """`target(behaviour)`: device tensorrt:0 with TensorRT 10.3."""
    return lambda behaviour, version="10.3.0": stand_in_target(monkeypatch, version, behaviour)


def test_all_configurations_are_built_and_found_by_the_runtime(bundle: Bundle, target: Callable) -> None:
    rows = build_bundle(bundle, target(StandIn()), PLAIN)
    assert [(row.record.configuration, row.record.role, row.reused) for row in rows] == [
        (name, "step", False) for name in NAMES
    ]
    assert rows[0].record.path.read_bytes() == b"plan of 10.3.0"
    assert rows[0].products == {"int8": 1}
    assert rows[0].record.key.built_for == "TensorRT 10.3.0 on Orin (compute capability 8.7)"


def test_engines_that_fit_are_used_again_and_others_built(bundle: Bundle, target: Callable) -> None:
    build_bundle(bundle, target(StandIn()), PLAIN, configurations=[NAMES[0]])
    again = build_bundle(bundle, target(behaviour := StandIn()), PLAIN)
    assert [row.reused for row in again] == [True, False]
    assert NAMES[1] in behaviour.asked["file"]
    for options, version in ((BuildOptions(workspace_mb=64), "10.3.0"), (PLAIN, "10.4.0")):
        others = build_bundle(bundle, target(StandIn(), version), options, configurations=[NAMES[0]])
        assert [row.reused for row in others] == [False]
    rebuilt = build_bundle(bundle, target(StandIn()), PLAIN, rebuild=True)
    assert [row.reused for row in rebuilt] == [False, False]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda record: record.path.write_bytes(b"plan of 10.3.1"), "its SHA-256 is not its record's"),
        (lambda record: record.path.unlink(), "is missing"),
        (lambda record: next(record.path.parent.glob("net_32x48_fp16.*.json")).write_text("{"), "is not readable"),
    ],
    ids=["engine changed", "engine gone", "record cut"],
)
def test_what_is_damaged_is_built_anew_with_one_warning(
    bundle: Bundle, target: Callable, caplog, damage, words
) -> None:
    (row, _) = build_bundle(bundle, target(StandIn()), PLAIN)
    damage(row.record)
    again = build_bundle(bundle, target(StandIn()), PLAIN)
    assert [row.reused for row in again] == [False, True]
    assert row.record.path.read_bytes() == b"plan of 10.3.0"
    (warning,) = caplog.messages
    assert words in warning
    assert [row.reused for row in build_bundle(bundle, target(StandIn()), PLAIN)] == [True, True]


def test_failed_build_keeps_what_was_built_before(bundle: Bundle, target: Callable) -> None:
    build_bundle(bundle, target(StandIn()), PLAIN, configurations=[NAMES[0]])
    before = sorted(path.name for path in engine_folder(bundle.root).iterdir())
    with pytest.raises(DeviceError, match=r"ran out of memory while it built net_32x48_int8 \(step\)"):
        build_bundle(bundle, target(StandIn(build_error="out of memory")), PLAIN)
    assert sorted(path.name for path in engine_folder(bundle.root).iterdir()) == before


def test_interrupted_build_leaves_nothing(bundle: Bundle, target: Callable) -> None:
    def interrupt(name: str, share: float, phase: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_bundle(bundle, target(StandIn()), PLAIN, progress=interrupt)
    folder = engine_folder(bundle.root)
    assert not folder.exists() or list(folder.iterdir()) == []


def test_timing_cache_is_kept_and_given_to_the_next_build(bundle: Bundle, target: Callable) -> None:
    build_bundle(bundle, target(StandIn()), PLAIN)
    timing = timing_cache_path(bundle.root, "tensorrt", "10.3.0", "Orin")
    assert timing.read_bytes() == b"+timed+timed"


def test_graphs_are_refused_before_anything_is_built_with_all_findings(tmp_path: Path, target: Callable) -> None:
    nodes = [
        helper.make_node("Cast", ["image"], ["wide"], name="widen", to=TensorProto.DOUBLE),
        helper.make_node("Cast", ["wide"], ["x"], name="narrow", to=TensorProto.FLOAT),
        helper.make_node("TopK", ["x", "k"], ["values", "places"], name="rank", axis=2),
        helper.make_node("ReduceMax", ["values"], ["most"], name="most", axes=[3], keepdims=0),
        helper.make_node("Cast", ["most"], ["labels"], name="bytes", to=TensorProto.UINT8),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 32, 4000, 3])
    labels = helper.make_tensor_value_info("labels", TensorProto.UINT8, [1, 32, 3900])
    graph = helper.make_graph(nodes, "g", [image], [labels], [numpy_helper.from_array(np.array([3900]), "k")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    knobs = Configuration("net", (32, 4000))
    bundle = write(tmp_path, [Variant(knobs, {"step": model}, "step", ("step",))])
    with pytest.raises(ArtifactError) as refusal:
        build_bundle(bundle, target(behaviour := StandIn()), PLAIN)
    assert "got 2 things that none takes" in str(refusal.value)
    assert "net_32x4000 (step), widen (Cast): a tensor of type double is not taken" in str(refusal.value)
    assert "rank (TopK): K is 3900" in str(refusal.value)
    assert "file" not in behaviour.asked


def test_damaged_graph_is_refused(bundle: Bundle, target: Callable) -> None:
    path = bundle.path(bundle.configurations[0].graphs["step"].file)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match="is damaged"):
        build_bundle(bundle, target(StandIn()), PLAIN)


def test_dla_is_refused_for_float_configurations(tmp_path: Path, target: Callable) -> None:
    variant = Variant(Configuration("net", (32, 48)), {"step": int8_graph()}, "step", ("step",))
    with pytest.raises(InputError, match=r"FP16 and INT8 only \| got fp32: net_32x48"):
        build_bundle(write(tmp_path, [variant]), target(StandIn(dla_cores=1)), BuildOptions(dla=0))


def test_unknown_configuration_lists_the_known(bundle: Bundle, target: Callable) -> None:
    with pytest.raises(ArtifactError, match="it has: net_32x48_fp16, net_32x48_int8"):
        build_bundle(bundle, target(StandIn()), PLAIN, configurations=["other"])


def test_engine_is_found_where_the_key_says_after_a_build_for_others_too(bundle: Bundle, target: Callable) -> None:
    from edgeseg.runtime.engine_key import EngineHost

    build_bundle(bundle, target(StandIn()), BuildOptions(hardware_compatible="ampere+"))
    host = EngineHost("tensorrt:0", "tensorrt", "10.3.0", "8.6", "another GPU")
    assert find_engine(bundle.root, bundle.configurations[0], "step", host).key.gpu is None


def test_builds_need_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import edgeseg.export.engine_builds"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
