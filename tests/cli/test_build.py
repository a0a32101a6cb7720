"""`edgeseg build`, with the real TensorRT for RTX, which needs no GPU, and with a stand-in of TensorRT."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edgeseg.bundle import Bundle
from edgeseg.cli import main
from edgeseg.runtime.engine_cache import engine_folder, find_engine
from edgeseg.runtime.engine_key import EngineHost
from support.tensorrt_api import StandIn, stand_in_target
from support.tensorrt_rtx import rtx_target

RTX = ("--device", "tensorrt-rtx:0")
ONE = ("--configuration", "plain_32x48")


@pytest.fixture
def build(own_bundle: Bundle) -> Callable[..., Result]:
    """`build(option, ...)`: run the command on a bundle of the test's own."""
    return lambda *options: CliRunner().invoke(main, ["build", str(own_bundle.root), *options])


def test_engine_is_built_without_a_gpu_and_used_again(build: Callable[..., Result], own_bundle: Bundle) -> None:
    version = rtx_target().library.version
    result = build(*RTX, *ONE)
    assert result.exit_code == 0, result.output
    assert "plain_32x48" in result.stdout
    assert f"1 engine for TensorRT for RTX {version} on any GPU of compute capability 8.0" in result.stdout
    host = EngineHost("tensorrt-rtx:0", "tensorrt_rtx", version, "8.6", "NVIDIA GeForce RTX 3060")
    record = find_engine(own_bundle.root, own_bundle.configuration("plain_32x48"), "step", host)
    again = json.loads(build(*RTX, *ONE, "--json").stdout)
    assert again["device"] == "tensorrt-rtx:0"
    assert [(each["reused"], each["engine"]) for each in again["engines"]] == [(True, str(record.path))]


def test_report_lists_layers_as_table_and_as_json(build: Callable[..., Result], tmp_path: Path) -> None:
    rtx_target()
    table, values = tmp_path / "layers.txt", tmp_path / "layers.json"
    for path in (table, values):
        assert build(*RTX, *ONE, "--report", str(path)).exit_code == 0
    assert table.read_text().startswith("plain_32x48 (step)\nlayer")
    (engine,) = json.loads(values.read_text())
    products = [layer for layer in engine["layers"] if layer["kind"] == "correlation"]
    assert [layer["arithmetic"] for layer in products] == ["fp32"]
    assert engine["products"] == {"fp32": 1}


def test_engine_for_turing_is_another_one(build: Callable[..., Result]) -> None:
    rtx_target()
    result = build(*RTX, *ONE, "--compute-capability", "7.5", "--json")
    assert json.loads(result.stdout)["engines"][0]["built_for"].endswith("any GPU of compute capability 7.5")


@pytest.mark.parametrize("option", [("--dla", "0"), ("--version-compatible",), ("--hardware-compatible", "ampere+")])
def test_option_of_the_other_library_is_refused(build: Callable[..., Result], option: tuple[str, ...]) -> None:
    rtx_target()
    result = build(*RTX, *ONE, *option)
    assert result.exit_code == 2
    assert f"{option[0]} is for device tensorrt:0" in result.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--device", "cpu"), "nothing is built for it"),
        ((*RTX, "--configuration", "other"), "has no configuration 'other'"),
        ((*RTX, "--workspace-mb", "0"), "--workspace-mb is at least 1"),
        ((*RTX, "--compute-capability", "9.0"), "does not build for SM90"),
        ((*RTX, "--compute-capability", "abc"), "--compute-capability is two numbers with a point, such as 8.6"),
    ],
)
def test_wrong_request_is_refused_in_words(build: Callable[..., Result], options: tuple[str, ...], words: str) -> None:
    rtx_target()
    result = build(*options)
    assert result.exit_code == 2
    assert words in result.stderr


def test_missing_tensorrt_is_told(build: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    result = build("--device", "tensorrt:0")
    assert result.exit_code == 2
    assert "TensorRT cannot be used here" in result.stderr


def test_tensorrt_builds_for_the_gpu_at_hand(
    build: Callable[..., Result], own_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in_target(monkeypatch, "10.3.0", StandIn())
    result = build("--device", "tensorrt:0", *ONE, "--optimization-level", "2")
    assert result.exit_code == 0, result.output
    assert "1 engine for TensorRT 10.3.0 on Orin (compute capability 8.7)" in result.stdout


def test_build_out_of_memory_is_told(
    build: Callable[..., Result], own_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in_target(monkeypatch, "10.3.0", StandIn(build_error="Requested amount of GPU memory: out of memory"))
    result = build("--device", "tensorrt:0", *ONE)
    assert result.exit_code == 2
    assert "ran out of memory while it built plain_32x48 (step)" in result.stderr
    assert "add swap" in result.stderr
    assert list(engine_folder(own_bundle.root).glob("*")) == []


BETWEEN_BUILDS = 75
"""Exit status of a process that got the interrupt while it was not building."""


def interrupted_builds(bundle: Bundle) -> tuple[int, str]:
    """Exit status and standard error of a process that builds again and again, so that Ctrl-C falls into a build."""
    words = ["build", str(bundle.root), *RTX, *ONE, "--rebuild"]
    code = f"""
import sys
import click
from edgeseg.cli import main
print("ready", flush=True)
try:
    while not (code := main({words!r}, standalone_mode=False)):
        pass
except click.Abort:
    code = {BETWEEN_BUILDS}
sys.exit(code)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    deadline_s = time.monotonic() + 60
    while not list(engine_folder(bundle.root).glob("plain*.json")) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    try:
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, errors


def test_ctrl_c_ends_a_real_build_and_leaves_nothing_half_written(own_bundle: Bundle) -> None:
    rtx_target()
    for _ in range(5):
        status, errors = interrupted_builds(own_bundle)
        if status != BETWEEN_BUILDS:
            break
    assert errors == "edgeseg: interrupted\n"
    assert status == 130
    folder = engine_folder(own_bundle.root)
    assert all(path.suffix in (".json", ".engine") and not path.name.startswith(".") for path in folder.iterdir())
    version = rtx_target().library.version
    host = EngineHost("tensorrt-rtx:0", "tensorrt_rtx", version, "8.6", "some RTX")
    find_engine(own_bundle.root, own_bundle.configuration("plain_32x48"), "step", host)
