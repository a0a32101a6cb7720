"""Every mistake and mishap from the command line: one clear line, the right exit code, nothing half-written.

Where each case of the list is held that is not held here:

- missing or empty data folder, layout, split: tests/data/test_open.py, test_camvid.py, test_folder.py,
  test_cityscapes.py
- frame of the wrong shape or dtype to `step`; damaged bundles, other profiles and devices in `load`:
  tests/runtime/test_session.py; manifests: tests/test_bundle.py; device profiles: tests/test_device_profile.py
- checkpoints (truncated, foreign, pickled, contradictory): tests/training/test_checkpoint.py; recipes and `--set`:
  tests/training/test_recipe.py; a training that is killed, or whose loss is no number: tests/training/test_loop.py
- options of export and eval, SIGINT during export: test_export.py; SIGINT during train: test_train.py; other options:
  test_run.py, test_profile.py, test_pick.py, test_info.py
- networks of one's own that fail, garbage instead of ONNX: tests/export/test_foreign.py
- a stage of the loop that fails (source, network, callback): tests/runtime/test_loop.py; cut-off videos:
  tests/runtime/test_source.py; disk full by a stand-in: tests/test_atomic.py, tests/export/test_bundle_writer.py
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper

import edgeseg.manifest
from edgeseg.cli import main
from edgeseg.device_profile import DeviceProfile
from support.small_disk import small_disk

torch = pytest.importorskip("torch", reason="training and export need torch")
torch.set_num_threads(1)

SMALL = "--set network.width=0.125 --set data.size_hw=[48,64] --set optimiser.batch=2 --set run.validate_every=2"
TRAIN = f"train {{place}}/small.toml {SMALL} --set optimiser.steps=2 --out new"
PLAIN = "--configuration plain_32x48"
VIT = "export {place}/vit.safetensors --out a.edgeseg"


@pytest.fixture(scope="module")
def place(tmp_path_factory, bundle, make) -> Path:
    """A folder of good and bad artifacts that nobody writes to."""
    root = tmp_path_factory.mktemp("place")
    shutil.copytree(bundle.root, root / "tiny.edgeseg")
    (root / "small.toml").write_text('[network]\nname = "swiftnet_r18"\n')
    _write_data(root, make)
    _write_checkpoints(root, make)
    _write_bundles(root)
    _write_videos(root)
    return root


def _write_data(root: Path, make) -> None:
    for name in ("data", "label_size", "label_value", "damaged_png", "damaged_jpg"):
        make.noise(root / name, {"train": 4, "val": 4})
    make.noise(root / "single", {"train": 4, "val": 1})
    for split in ("train", "val"):
        cv2.imwrite(str(root / "label_size" / "labels" / split / "a" / "002.png"), np.zeros((40, 64), np.uint8))
        cv2.imwrite(str(root / "label_value" / "labels" / split / "a" / "002.png"), np.full((48, 64), 77, np.uint8))
        png = root / "damaged_png" / "frames" / split / "a" / "002.png"
        png.write_bytes(png.read_bytes()[:500])
        frame = root / "damaged_jpg" / "frames" / split / "a" / "002.png"
        cv2.imwrite(str(frame.with_suffix(".jpg")), cv2.imread(str(frame)))
        frame.unlink()
        jpg = frame.with_suffix(".jpg")
        jpg.write_bytes(jpg.read_bytes()[:1000])


def _write_checkpoints(root: Path, make) -> None:
    make.checkpoint(root / "net.safetensors")
    make.checkpoint(root / "net4.safetensors", ("road", "car", "sky", "dog"))
    make.checkpoint(root / "other.safetensors", architecture="segformer_b0")
    _write_transformer(root / "vit.safetensors")
    whole = (root / "net.safetensors").read_bytes()
    (root / "half.safetensors").write_bytes(whole[: len(whole) // 2])
    # log of a negative number: every logit is nan.
    nodes = [helper.make_node("Neg", ["x"], ["negative"]), helper.make_node("Log", ["negative"], ["y"])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 48, 64]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "graph", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), root / "nan.onnx")


def _write_transformer(path: Path) -> None:
    """ViT-Ti, untrained, without an auxiliary decoder."""
    from edgeseg.classes import ClassSet, distinct_colours
    from edgeseg.models.registry import build_network
    from edgeseg.training.checkpoint import CheckpointMeta, save_checkpoint

    options = {"decoder": "linear", "size_hw": [48, 64]}
    classes = ClassSet(("road", "car", "sky"), distinct_colours(3))
    meta = CheckpointMeta("segmenter_ti", options, classes, trained_on={"size_hw": [48, 64]})
    save_checkpoint(path, build_network("segmenter_ti", 3, **options), meta)


def _write_bundles(root: Path) -> None:
    tiny = root / "tiny.edgeseg"
    byte = shutil.copytree(tiny, root / "byte.edgeseg") / "plain_32x48.step.onnx"
    content = bytearray(byte.read_bytes())
    content[len(content) // 2] ^= 1
    byte.write_bytes(bytes(content))
    outside = shutil.copytree(tiny, root / "outside.edgeseg") / "manifest.json"
    values = json.loads(outside.read_text().replace("plain_32x48.step.onnx", "../plain_32x48.step.onnx"))
    outside.write_text(json.dumps({**values, "checksum": edgeseg.manifest._checksum(values)}))
    untested = shutil.copytree(tiny, root / "untested.edgeseg") / "manifest.json"
    values = json.loads(untested.read_text())
    for entry in values["configurations"]:
        entry["accuracy"] = None
    untested.write_text(json.dumps({**values, "checksum": edgeseg.manifest._checksum(values)}))
    DeviceProfile("cpu", {}, "else", "0" * 64, 15.0, True, None, 1, (), "2026-01-01", "").save(root / "else.json")
    (root / "list.json").write_text("[1]")


def _write_videos(root: Path) -> None:
    random = np.random.default_rng(0)
    writer = cv2.VideoWriter(str(root / "good.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 15, (48, 32))
    for _ in range(30):
        writer.write(random.integers(0, 256, (32, 48, 3), dtype=np.uint8))
    writer.release()
    whole = (root / "good.avi").read_bytes()
    (root / "cut.avi").write_bytes(whole[: len(whole) // 2])
    (root / "empty.mp4").touch()


def contents(folder: Path) -> dict[str, int]:
    """Path below `folder` -> size of everything that lies there."""
    return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*")}


MISTAKES = {
    "train": [
        ("train nothing --data {place}/data --out new", "no recipe 'nothing' | shipped: camvid"),
        (f"{TRAIN} --data nowhere", "nowhere: no such folder"),
        (f"{TRAIN} --data {{place}}/good.avi", "good.avi: a file | expected"),
        (f"{TRAIN} --data {{place}}/label_size", "label map of another size | got (40, 64), expected (48, 64)"),
        (f"{TRAIN} --data {{place}}/label_value", "002.png: label value 77 on 3072 pixels | expected 0 to 2"),
        (f"{TRAIN} --data {{place}}/data --set optimiser.foo=1", "unknown key optimiser.foo | known: optimiser.name"),
        (f"{TRAIN} --data {{place}}/data --set network.name=unet", "unknown network 'unet' | known: swiftnet_r18"),
        (f"{TRAIN} --data {{place}}/data --start-from {{place}}/net4.safetensors", "(4, 16, 1, 1), expected (3,"),
        (f"{TRAIN} --data {{place}}/data --start-from {{place}}/half.safetensors", "not a whole safetensors file"),
        (f"{TRAIN} --data {{place}}/data --start-from {{place}}", "a folder, not a checkpoint"),
        (f"{TRAIN} --data {{place}}/data --device npu", "unknown device 'npu' | expected cpu"),
        (f"{TRAIN} --data {{place}}/data --out {{place}}/small.toml/new", "small.toml is no folder"),
    ],
    "export": [
        (f"{VIT} --plan 12:0.4", "plan 12:0.4: layer out of range | got 12, expected 1 to 11"),
        (f"{VIT} --plan 3:1", "proportion out of range | got 1 after layer 3"),
        (f"{VIT} --plan 3:nan", "proportion out of range | got nan after layer 3"),
        (f"{VIT} --plan 3:0.4,3:0.2", "layers do not rise | got [3, 3]"),
        (f"{VIT} --plan 3", "plan '3' is not readable"),
        (f"{VIT} --plan 3:0.4", "the network has no auxiliary decoder"),
        (f"{VIT} --plan 3:0.4 --method prune", "the network has no pruning heads"),
        (f"{VIT} --method pause", "--method pause without a plan"),
        (f"{VIT} --size 50x64", "does not divide into patches | got 50x64, expected multiples of 16"),
        ("export {place}/net.safetensors --plan 3:0.4 --out a.edgeseg", "has no tokens that could stop"),
        ("export {place}/other.safetensors --out a.edgeseg", "unknown architecture 'segformer_b0' | known: swift"),
        ("export {place}/net4.safetensors --data {place}/data --out a.edgeseg", "it has also dog"),
        ("export {place}/net.safetensors --data {place}/label_size --out a.edgeseg", "label map of another size"),
        ("export {place}/net.safetensors --data {place}/damaged_png --out a.edgeseg", "002.png: image cannot be read"),
        ("export {place}/net.safetensors --data {place}/damaged_jpg --out a.edgeseg", "002.jpg: image cannot be read"),
        ("export {place}/net.safetensors --data {place}/single --out a.edgeseg", "no frame has labels 1 frames later"),
        ("export {place}/net.safetensors --out {place}/small.toml/a.edgeseg", "small.toml is no folder"),
        ("export {place}/net.safetensors --out a.edgeseg --size 100000x100000", "out of memory | choose a smaller --s"),
        ("export {place}/nan.onnx --classes a,b,c --out a.edgeseg", "gives NaN or infinite logits, on frame 0"),
        ("export {place}/net.py:build --classes a --out a.edgeseg", "net.py' is no module name"),
        ("eval {place}/net.safetensors --data {place}/label_value --max-offset 0", "label value 77"),
        ("eval {place}/net.safetensors --data {place}/data --size 100000x100000 --max-offset 0", "out of memory |"),
        ("demo --out {place}/small.toml/demo", "small.toml is no folder"),
    ],
    "profile": [
        ("profile {place}/byte.edgeseg --fps 15", "plain_32x48.step.onnx is damaged | its SHA-256"),
        ("profile {place}/outside.edgeseg --fps 15", "'../plain_32x48.step.onnx' leaves the bundle"),
        ("profile {place}/untested.edgeseg --fps 15", "no configuration has an accuracy table"),
        ("profile {place}/tiny.edgeseg --fps 15 --out {place}", "cannot be written (Is a directory)"),
        ("profile {place}/tiny.edgeseg --fps 15 --out {place}/small.toml/p.json", "small.toml is no folder"),
        ("profile {place}/tiny.edgeseg --fps 15 --plot p.xyz", "a plot is written as .png, .svg, .pdf | got p.xyz"),
        ("profile {place}/tiny.edgeseg --fps 15 --plot {place}/small.toml/p.png", "small.toml is no folder"),
        ("profile {place}/tiny.edgeseg --fps 15 --out p.png", "--out and --plot are the same file"),
        ("profile {place}/tiny.edgeseg --fps 15 --video {place}/empty.mp4", "cannot be opened as a video"),
        ("pick {place}/tiny.edgeseg --fps 15 --profile {place}/else.json", "measured with another bundle"),
        ("pick {place}/tiny.edgeseg --fps 15 --profile {place}/list.json", "is not a device profile"),
    ],
    "run": [
        (f"run {{place}}/byte.edgeseg --source street {PLAIN}", "plain_32x48.step.onnx is damaged"),
        (f"run {{place}}/tiny.edgeseg --source {{place}}/empty.mp4 {PLAIN}", "empty.mp4 cannot be opened as a video"),
        (f"run {{place}}/tiny.edgeseg --source 77 {PLAIN}", "camera 77 cannot be opened | is it connected"),
        (f"run {{place}}/tiny.edgeseg --source http://127.0.0.1:9/a {PLAIN}", "cannot be opened (Connection refused)"),
        (f"run {{place}}/tiny.edgeseg --source street:32x48@15 --fps 5 {PLAIN}", "street:32x48@15 and --fps 5"),
        (f"run {{place}}/tiny.edgeseg --source {{place}}/good.avi {PLAIN} --save {{place}}/good.avi", "the same file"),
        (f"run {{place}}/tiny.edgeseg --source street {PLAIN} --save a --json-lines a", "--json-lines are the same"),
        (f"run {{place}}/tiny.edgeseg --source street {PLAIN} --save {{place}}/small.toml/v.mp4", "is no folder"),
        (f"run {{place}}/tiny.edgeseg --source street {PLAIN} --json-lines {{place}}", "(Is a directory)"),
        (f"run {{place}}/tiny.edgeseg --source {{place}}/cut.avi --no-pace {PLAIN}", "broke at frame 1"),
        ("run {place}/untested.edgeseg --source street", "no configuration has an accuracy table"),
    ],
    "info": [
        ("info {place}/outside.edgeseg", "leaves the bundle"),
        ("info {place}/byte.edgeseg --verify", "plain_32x48.step.onnx is damaged"),
        ("info {place}/half.safetensors", "not a whole safetensors file"),
        ("info {place}/list.json", "is not a device profile"),
        ("info {place}/data", "is not a bundle | expected a file manifest.json"),
        ("info nothing --verify", "nothing at nothing"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("line", "words"), [pytest.param(*case, id=case[0]) for key in MISTAKES for case in MISTAKES[key]]
)
def test_mistake_is_one_line_with_exit_code_2_and_leaves_nothing(place, tmp_path, monkeypatch, line, words):
    monkeypatch.chdir(tmp_path)
    before = contents(place)
    result = CliRunner().invoke(main, line.format(place=place).split())
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert result.stderr.startswith("edgeseg: ")
    assert len(result.stderr.strip().splitlines()) == 1
    assert contents(tmp_path) == {}
    assert contents(place) == before


def test_decoders_are_silent_when_a_video_cannot_be_read(place):
    line = f"run {place}/tiny.edgeseg --source {place}/cut.avi --no-pace {PLAIN}".split()
    result = subprocess.run([sys.executable, "-m", "edgeseg", *line], capture_output=True, text=True)
    assert result.stderr.splitlines() == [
        f"edgeseg: {place}/cut.avi broke at frame 13 of 30 | the file is damaged or cut off"
    ]


def test_traceback_is_shown_only_when_asked_for(place):
    line = f"info {place}/data".split()
    assert "Traceback" in CliRunner().invoke(main, [*line, "--verbose"]).stderr


def test_labels_out_of_range_end_the_run_with_their_file_when_they_are_scored(place, make, tmp_path):
    toml = (
        (place / "label_value" / "dataset.toml").read_text().replace('"road", "car", "sky"', '"red", "green", "blue"')
    )
    data = shutil.copytree(place / "label_value", tmp_path / "data")
    (data / "dataset.toml").write_text(toml.replace('movable = ["car"]', 'movable = ["blue"]'))
    result = CliRunner().invoke(main, ["run", f"{place}/tiny.edgeseg", "--source", str(data), *PLAIN.split()])
    assert result.exit_code == 2
    assert "002.png: label value 77" in result.stderr


@pytest.fixture(scope="module")
def full_disk(tmp_path_factory) -> Iterator[Callable[[int], Path]]:
    """free bytes -> an otherwise full file system of 4 MB with so many of them."""
    with small_disk(tmp_path_factory.mktemp("disk"), 4 << 20) as root:

        def fill(free: int) -> Path:
            for path in root.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            (root / "fill").write_bytes(b"x" * ((4 << 20) - free))
            return root

        yield fill


@pytest.mark.parametrize(
    ("line", "free", "words", "left"),
    [
        ("export {place}/net.safetensors --out {disk}/a.edgeseg", 300_000, "a.edgeseg cannot be written", []),
        ("profile {place}/tiny.edgeseg --fps 15 --samples 300 --out {disk}/p.json", 4096, "p.json cannot be wri", []),
        (f"run {{place}}/tiny.edgeseg --source street:128x192 {PLAIN} --no-pace --frames 200 --save {{disk}}/v.mp4",
         200_000, "v.mp4 cannot be written", ["v.mp4"]),
        (f"run {{place}}/tiny.edgeseg --source street:128x192 {PLAIN} --no-pace --frames 9 --save {{disk}}/v.mp4",
         4096, "v.mp4 cannot be written (No space left on device)", []),
        (f"run {{place}}/tiny.edgeseg --source {{place}}/good.avi {PLAIN} --no-pace --json-lines {{disk}}/lines", 4096,
         "lines cannot be written", ["lines"]),
        (f"{TRAIN} --data {{place}}/data --out {{disk}}/r", 300_000, "checkpoint.safetensors cannot be written",
         ["r", "r/log.csv"]),
        (f"{TRAIN} --data {{place}}/data --out {{disk}}/r", 1_500_000, "state.safetensors cannot be written",
         ["r", "r/checkpoint.safetensors", "r/log.csv"]),
    ],
)  # fmt: skip
def test_full_disk_is_named_and_leaves_only_what_is_whole(place, full_disk, line, free, words, left):
    disk = full_disk(free)
    result = CliRunner().invoke(main, line.format(place=place, disk=disk).split())
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert "No space left on device" in result.stderr
    assert sorted(contents(disk).keys() - {"fill"}) == left


def has_begun(path: Path) -> bool:
    """Whether a file has content, or a folder a child."""
    return any(path.iterdir()) if path.is_dir() else path.is_file() and path.stat().st_size > 0


@pytest.mark.parametrize(
    ("line", "number", "begun", "left"),
    [
        ("profile {place}/tiny.edgeseg --fps 15 --samples 1000000 --out p.json", "SIGINT", None, []),
        (f"run {{place}}/tiny.edgeseg --source street:32x48@15 {PLAIN} --save v.mp4 --json-lines l", "SIGINT", "l",
         ["l", "v.mp4"]),
        (f"run {{place}}/tiny.edgeseg --source street:32x48@15 {PLAIN} --save v.mp4 --json-lines l", "SIGTERM", "l",
         ["l", "v.mp4"]),
        (f"{TRAIN} --data {{place}}/data --set optimiser.steps=100000", "SIGTERM", "new/checkpoint.safetensors",
         ["new/checkpoint.safetensors", "new/log.csv", "new/state.safetensors"]),
        ("demo --data {place}/data --checkpoint {place}/net.safetensors --fps 15 --out new", "SIGTERM", "new", []),
    ],
)  # fmt: skip
def test_signal_ends_the_command_and_leaves_only_what_is_whole(place, tmp_path, line, number, begun, left):
    """The signal comes when `begun` holds something, or after 2 s: a loop's video is kept, and a training's state."""
    process = subprocess.Popen(
        [sys.executable, "-m", "edgeseg", *line.format(place=place).split()],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    started_s = time.monotonic()
    while process.poll() is None and not (has_begun(tmp_path / begun) if begun else time.monotonic() > started_s + 2):
        time.sleep(0.02)
    process.send_signal(getattr(signal, number))
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + getattr(signal, number), stderr
    assert "Traceback" not in stderr
    assert sorted(name for name in contents(tmp_path) if (tmp_path / name).is_file()) == left
    if "v.mp4" in left:
        assert "configuration  plain_32x48" in stdout
        assert cv2.VideoCapture(str(tmp_path / "v.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) >= 1
