"""One graph to one engine by each version of TensorRT: stand-ins that have the version's names and no others."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from edgeseg.errors import DeviceError, InputError
from edgeseg.export.build_options import BuildOptions, check_options, open_target
from edgeseg.export.build_progress import PhaseTree
from edgeseg.export.tensorrt_build import build_engine
from support.tensorrt_api import GONE_BUILDER_11, GONE_CONFIG_11, StandIn, stand_in_target, tensorrt_module

GRAPH = Path("graph.onnx")
VERSIONS = ("10.0.1", "10.3.0", "10.16.2", "11.0.0", "11.4.1")
PLAIN = BuildOptions()


@pytest.mark.parametrize("version", VERSIONS)
def test_engine_is_built_by_names_that_the_version_has(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = (behaviour := StandIn(dla_cores=2)).asked
    target = stand_in_target(monkeypatch, version, behaviour)
    options = BuildOptions(workspace_mb=512, dla=1, optimization_level=4)
    check_options(target, options)
    built = build_engine(GRAPH, "net (step)", target, options)
    assert bytes(built.plan) == f"plan of {version}".encode()
    assert asked["file"] == "graph.onnx"
    creation = target.library.module.NetworkDefinitionCreationFlag
    assert asked["network_flags"] == 1 << int(creation.STRONGLY_TYPED)
    assert [(pool.name, size) for pool, size in asked["set_memory_pool_limit"]] == [("WORKSPACE", 512 << 20)]
    assert asked["builder_optimization_level"] == 4
    assert asked["profiling_verbosity"].name == "DETAILED"
    assert (asked["default_device_type"].name, asked["DLA_core"]) == ("DLA", 1)
    assert [flag.name for (flag,) in asked["set_flag"]] == ["GPU_FALLBACK"]
    assert [(layer.arithmetic, layer.nodes) for layer in built.layers] == [("int8", ("conv", "relu"))]


def test_names_that_11_removed_raise_in_its_stand_in() -> None:
    eleven, ten = (tensorrt_module(version, StandIn()) for version in ("11.4.1", "10.16.2"))
    builders = [each.Builder(each.ILogger()) for each in (eleven, ten)]
    for name in GONE_BUILDER_11.split():
        getattr(builders[1], name)
        with pytest.raises(AttributeError, match=name):
            getattr(builders[0], name)
    for name in GONE_CONFIG_11.split():
        setattr(builders[1].create_builder_config(), name, 1)
        with pytest.raises(AttributeError, match=name):
            setattr(builders[0].create_builder_config(), name, 1)
    assert hasattr(ten.BuilderFlag, "FP16")
    assert not hasattr(eleven.BuilderFlag, "FP16")
    assert not hasattr(eleven.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH")


@pytest.mark.parametrize("version", ["8.5.2", "8.6.2"])
def test_version_8_is_refused_by_name(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceError, match=rf"TensorRT {version} is too old.*10\.0 or later"):
        stand_in_target(monkeypatch, version, StandIn())


@pytest.mark.parametrize(
    ("version", "options", "level", "capabilities", "gpu"),
    [
        ("10.3.0", {}, None, ("8.7",), "Orin"),
        ("10.3.0", {"hardware_compatible": "ampere+"}, "AMPERE_PLUS", ("8.0+",), None),
        ("10.16.2", {"hardware_compatible": "same"}, "SAME_COMPUTE_CAPABILITY", ("8.7",), None),
    ],
)
def test_engine_is_for_what_the_hardware_level_says(
    version: str,
    options: dict[str, str],
    level: str | None,
    capabilities: tuple[str, ...],
    gpu: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target, chosen = stand_in_target(monkeypatch, version, behaviour := StandIn()), BuildOptions(**options)
    check_options(target, chosen)
    build_engine(GRAPH, "net", target, chosen)
    asked = behaviour.asked.get("hardware_compatibility_level")
    assert (None if asked is None else asked.name) == level
    assert (target.compute_capabilities(chosen), target.gpu_name(chosen)) == (capabilities, gpu)


def test_version_compatible_engine_is_inspected_with_its_own_code_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    target = stand_in_target(monkeypatch, "10.3.0", behaviour := StandIn())
    build_engine(GRAPH, "net", target, BuildOptions(version_compatible=True))
    assert [flag.name for (flag,) in behaviour.asked["set_flag"]] == ["VERSION_COMPATIBLE"]
    assert behaviour.asked["engine_host_code_allowed"] is True


def test_engine_is_kept_when_it_cannot_be_loaded_for_its_report(monkeypatch: pytest.MonkeyPatch) -> None:
    target = stand_in_target(monkeypatch, "10.3.0", StandIn(loads=False))
    built = build_engine(GRAPH, "net", target, PLAIN)
    assert bytes(built.plan) == b"plan of 10.3.0"
    assert built.layers == ()


@pytest.mark.parametrize(
    ("version", "options", "words"),
    [
        ("10.3.0", BuildOptions(hardware_compatible="same"), "10.3.0 does not build for SAME_COMPUTE_CAPABILITY"),
        ("10.16.2", BuildOptions(dla=0), "--dla 0: .* no DLA core here"),
        ("10.3.0", BuildOptions(compute_capabilities=("8.6",)), "--compute-capability is for device tensorrt-rtx"),
    ],
)
def test_option_that_version_or_board_lacks_is_refused(
    version: str, options: BuildOptions, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = stand_in_target(monkeypatch, version, StandIn())
    with pytest.raises((DeviceError, InputError), match=words):
        check_options(target, options)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"workspace_mb": 0}, "--workspace-mb"),
        ({"dla": -1}, "--dla"),
        ({"hardware_compatible": "turing"}, "known: none, same, ampere"),
        ({"optimization_level": 6}, "--optimization-level"),
        ({"dla": 0, "version_compatible": True}, "leave out"),
    ],
)
def test_options_out_of_range_are_refused(values: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        BuildOptions(**values)


def test_other_device_is_refused_when_nothing_is_built_for_it() -> None:
    with pytest.raises(InputError, match="nothing is built for it"):
        open_target("cuda:0")


@pytest.mark.parametrize(
    ("said", "workspace_mb", "words"),
    [
        ("Error Code 2: OutOfMemory (Requested size was 9126805504 bytes.)", None, "ran out of memory .* swap"),
        ("Error Code 1: Cuda Runtime (out of memory)", None, "ran out of memory"),
        ("no tactics to implement the operation within workspace limit", 8, "--workspace-mb 8 .* give more"),
        ("Could not find any implementation for node conv7", None, "cannot build net .* node conv7 .* device cpu"),
    ],
)
def test_failed_build_says_why_when_it_gives_none(
    said: str, workspace_mb: int | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = stand_in_target(monkeypatch, "10.3.0", StandIn(build_error=said))
    with pytest.raises(DeviceError, match=words):
        build_engine(GRAPH, "net", target, BuildOptions(workspace_mb=workspace_mb))


def test_graph_that_is_not_parsed_names_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = (("head.det", "Det", "false"), ("head.x", "Foo", "No importer registered"))
    target = stand_in_target(monkeypatch, "10.3.0", StandIn(parse_errors=errors))
    expected = (
        r"does not take the graph net \(step\) \| node head.det Det: it is not supported; node head.x Foo: No imp"
    )
    with pytest.raises(DeviceError, match=expected):
        build_engine(GRAPH, "net (step)", target, PLAIN)


def test_driver_that_is_too_old_is_told_by_the_librarys_words(monkeypatch: pytest.MonkeyPatch) -> None:
    target = stand_in_target(monkeypatch, "10.3.0", StandIn(starts=False))
    monkeypatch.setattr("edgeseg.runtime.backends.cuda_driver.cuda_version", lambda: (11, 8))
    with pytest.raises(DeviceError, match=r"does not start .* driver is too old"):
        build_engine(GRAPH, "net", target, PLAIN)


@pytest.mark.parametrize(
    ("given", "taken", "kept"),
    [(None, True, b"+timed"), (b"before", True, b"before+timed"), (b"of another GPU", False, b"+timed")],
)
def test_timing_cache_goes_from_build_to_build(
    given: bytes | None, taken: bool, kept: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = stand_in_target(monkeypatch, "10.3.0", StandIn(takes_timing_cache=taken))
    assert build_engine(GRAPH, "net", target, PLAIN, timing_cache=given).timing_cache == kept


def test_progress_rises_to_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    target, shares = stand_in_target(monkeypatch, "10.3.0", StandIn()), []
    build_engine(GRAPH, "net", target, PLAIN, progress=lambda share, phase: shares.append(share))
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    # A step of the inner phase counts a quarter of one of the two outer steps.
    assert 0.125 in shares


def test_phase_counts_as_far_as_the_phases_in_it_are() -> None:
    told: list[float] = []
    tree = PhaseTree(lambda share, phase: told.append(share))
    tree.start("outer", None, 2)
    tree.step("outer", 0)
    tree.start("inner", "outer", 2)
    tree.step("inner", 0)
    assert told[-1] == 0.75


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_build_stops_at_its_next_step_when_the_user_interrupts(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = stand_in_target(monkeypatch, "10.3.0", behaviour := StandIn())
    interrupted, left = threading.Event(), []

    def interrupt(signum: int, frame: object) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    def progress(share: float, phase: str) -> None:
        if behaviour.steps == 1 and not interrupted.is_set():
            os.kill(os.getpid(), number)
            assert interrupted.wait(10)
            # Long enough for a caller that does not wait to be gone.
            time.sleep(0.3)
            left.append("the library's thread")

    before = signal.signal(number, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            build_engine(GRAPH, "net", target, PLAIN, progress=progress)
    finally:
        signal.signal(number, before)
    assert left == ["the library's thread"]
    assert behaviour.steps <= 3


def test_failure_of_the_progress_display_stops_the_build_and_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    target = stand_in_target(monkeypatch, "10.3.0", behaviour := StandIn())

    def progress(share: float, phase: str) -> None:
        raise BrokenPipeError("the terminal went away")

    with pytest.raises(BrokenPipeError, match="went away"):
        build_engine(GRAPH, "net", target, PLAIN, progress=progress)
    assert behaviour.steps == 1
