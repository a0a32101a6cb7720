"""The comparison with peers, on small networks and a video of 10 frames."""

import importlib.util
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.peer_networks import DenseNetwork, build_peers
from benchmarks.peer_sides import Ours, Side, check_belongs_together, dense_configuration, label_agreement
from benchmarks.peers import findings, main, ratio_text, table_rows
from edgeseg.bundle import Bundle
from edgeseg.classes import ClassSet
from edgeseg.data.open import open_dataset
from edgeseg.errors import InputError
from edgeseg.export.accuracy import EvaluationData
from edgeseg.export.checkpoint_source import checkpoint_source
from edgeseg.export.pipeline import export_bundle
from edgeseg.export.sweep import Grid, plan_grid
from edgeseg.export.wrapper import Preprocessing
from edgeseg.models.registry import build_network
from edgeseg.training.checkpoint import CheckpointMeta, LoadedCheckpoint, load_checkpoint, save_checkpoint

CAMERA_HW, SIZE_HW, FRAMES = (64, 96), (48, 64), 10
CLASSES = ClassSet(("ground", "square"), ((0, 0, 0), (255, 0, 0)))
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
FLOAT32_PEERS = ["torch eager", "torch channels_last", "torch.compile", "onnxruntime", "openvino float32"]
NEEDS = {
    "torch.compile": (shutil.which("g++") or shutil.which("clang++"), "torch.compile needs a C++ compiler"),
    "openvino float32": (importlib.util.find_spec("openvino"), "openvino is not installed"),
}


@pytest.fixture(scope="module", autouse=True)
def keep_thread_counts() -> Iterator[None]:
    before = torch.get_num_threads(), cv2.getNumThreads()
    yield
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A square on noise that moves by 4 pixels a frame; 10 frames per second."""
    root = tmp_path_factory.mktemp("data")
    (root / "dataset.toml").write_text('name = "square"\nfps = 10\n[classes]\nnames = ["ground", "square"]\n')
    random = np.random.default_rng(0)
    for index in range(FRAMES):
        labels = np.zeros(CAMERA_HW, np.uint8)
        labels[16:48, 4 * index : 4 * index + 40] = 1
        frame = (90 * labels[..., None] + random.integers(0, 160, (*CAMERA_HW, 3))).astype(np.uint8)
        for kind, image in (("frames", frame), ("labels", labels)):
            folder = root / kind / "val" / "a"
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f"{index}.png"), image)
    return root


@pytest.fixture(scope="module")
def data(data_root: Path) -> EvaluationData:
    return EvaluationData.open(open_dataset(data_root), "val")


def write_checkpoint(path: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    network = build_network("swiftnet_r18", 2, width=0.125)
    trained_on = {"dataset": "square", "splits": ["train"], "size_hw": list(SIZE_HW)}
    save_checkpoint(path, network, CheckpointMeta("swiftnet_r18", {"width": 0.125}, CLASSES, trained_on=trained_on))
    return path


@pytest.fixture(scope="module")
def checkpoint_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "small.safetensors", seed=0)


@pytest.fixture(scope="module")
def checkpoint(checkpoint_path: Path) -> LoadedCheckpoint:
    return load_checkpoint(checkpoint_path)


@pytest.fixture(scope="module")
def bundle(checkpoint_path: Path, data: EvaluationData, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Dense with a label per pixel, and with one per 4 x 4 pixels."""
    requests = plan_grid([checkpoint_source(checkpoint_path)], Grid(labels_strides=(1, 4)), sweep=True)
    requests = tuple(request for request in requests if request.knobs.size_hw == SIZE_HW)
    return export_bundle(requests, tmp_path_factory.mktemp("bundle") / "small.edgeseg", data=data)


@pytest.fixture(scope="module")
def network() -> DenseNetwork:
    """Two convolutions at stride 4 that give both labels on about half of a frame of the video."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1)).eval()
    with torch.inference_mode():
        logits = module(torch.randn(1, 3, *SIZE_HW))
        module[2].bias[0] += (logits[:, 1] - logits[:, 0]).median()
    return DenseNetwork(module, Preprocessing(MEAN, STD), SIZE_HW, threads=1)


@pytest.mark.parametrize("name", FLOAT32_PEERS)
def test_peer_gives_the_labels_of_the_network(name: str, network: DenseNetwork, data: EvaluationData) -> None:
    if name in NEEDS and not NEEDS[name][0]:
        pytest.skip(NEEDS[name][1])
    frame = data.videos[0].video.frame_rgb(3)
    small = cv2.resize(frame, SIZE_HW[::-1], interpolation=cv2.INTER_AREA)
    image = torch.from_numpy(((small / 255 - np.array(MEAN)) / np.array(STD)).transpose(2, 0, 1)[None]).float()
    with torch.inference_mode():
        logits = network.module(image)
    expected = torch.nn.functional.interpolate(logits, SIZE_HW, mode="bilinear")[0].argmax(0).numpy()
    labels = build_peers([name], network)[0][name].predict(frame)
    assert labels.dtype == np.uint8
    assert 0.05 < expected.mean() < 0.95, "one class alone would compare nothing"
    assert np.mean(labels == expected) >= 0.999


def test_peers_leave_the_network_as_it_was(network: DenseNetwork) -> None:
    build_peers(["torch channels_last"], network)
    assert next(network.module.parameters()).is_contiguous()


def test_bgr_network_gets_its_channels_swapped() -> None:
    frame = np.zeros((*SIZE_HW, 3), np.uint8)
    frame[..., 0] = 7
    half = (0.5, 0.5, 0.5)
    bgr = DenseNetwork(nn.Identity(), Preprocessing(half, half, "BGR"), SIZE_HW, threads=1)
    assert bgr.fit(frame)[0, 0].tolist() == [0, 0, 7]


def test_peer_is_missing_with_the_reason_when_its_package_is_not_installed(
    network: DenseNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    ready, missing = build_peers(["openvino", "torch eager"], network)
    assert list(ready) == ["torch eager"]
    assert "pip install 'edgeseg[bench]'" in missing["openvino"]


def test_torch_compile_is_missing_with_the_reason_when_there_is_no_compiler(
    network: DenseNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    ready, missing = build_peers(["torch.compile"], network)
    assert not ready
    assert "needs a C++ compiler" in missing["torch.compile"]


def test_peer_that_fails_is_reported_when_others_run(network: DenseNetwork) -> None:
    broken = replace(network, size_hw=(0, 0))
    assert "failed: " in build_peers(["onnxruntime"], broken)[1]["onnxruntime"]


def test_ratio_is_taken_within_each_round() -> None:
    assert ratio_text([2.0, 30.0, 4.0], [1.0, 10.0, 1.0]) == "3.00 [2.20, 3.80]"


def test_row_holds_latency_scores_and_ratio() -> None:
    side = Side("slow", lambda frame: frame[..., 0], (0.5, 0.4), "a note")
    samples = {"slow": [0.020, 0.020], "fast": [0.010, 0.010]}
    (row,) = table_rows([side], samples, {15.0: {"slow": 0.4}}, {"fast": "our dense"}, {"slow": 0.9987})
    assert row == {
        "side": "slow",
        "min_ms": 20.0,
        "median_ms": 20.0,
        "p90_ms": 20.0,
        "cv": 0.0,
        "mIoU": 0.5,
        "LAmIoU 15 fps": 0.4,
        "time / our dense": "2.00 [2.00, 2.00]",
        "equal labels": "99.87 %",
        "mIoU at k = 0, 1, ...": [0.5, 0.4],
        "note": "a note",
    }


def test_finding_names_the_best_peer_when_the_pick_loses(bundle: Bundle) -> None:
    entry = bundle.configurations[0]
    lamiou = {15.0: {entry.name: 0.50, "torch eager": 0.40, "openvino": 0.52}}
    lines = findings(lamiou, Ours(entry, entry, {15.0: entry}), ["torch eager", "openvino"])
    assert lines["pick at 15 fps"].endswith("the best peer, openvino, 0.5200 (pick - peer = -0.0200)")


def test_configuration_takes_part_once_when_it_has_several_roles(bundle: Bundle) -> None:
    dense, coarse = bundle.configurations
    roles = Ours(dense, dense, {15.0: dense, 30.0: coarse}).roles()
    assert {name: role for name, (_, role) in roles.items()} == {
        dense.name: "pick at 15 fps, what the peers run, most accurate",
        coarse.name: "pick at 30 fps",
    }


def test_dense_configuration_has_a_label_per_pixel(bundle: Bundle) -> None:
    assert dense_configuration(bundle, SIZE_HW).knobs.labels_stride == 1


def test_peer_size_is_refused_when_the_bundle_has_no_dense_configuration_of_it(bundle: Bundle) -> None:
    with pytest.raises(InputError, match=r"0 dense configurations of 96x96 .* it has the sizes 48x64"):
        dense_configuration(bundle, (96, 96))


def test_other_video_is_refused(bundle: Bundle, checkpoint: LoadedCheckpoint) -> None:
    street = EvaluationData.open(open_dataset("street", size_hw=(64, 96)), "val")
    with pytest.raises(
        InputError, match=r"not scored on the data .* got square val \(10 frames\), expected street val"
    ):
        check_belongs_together(bundle, checkpoint, street)


def test_two_frame_checkpoint_is_refused(bundle: Bundle, checkpoint: LoadedCheckpoint, data: EvaluationData) -> None:
    two = LoadedCheckpoint(checkpoint.network, replace(checkpoint.meta, input_frames=2))
    with pytest.raises(InputError, match="label one frame at a time"):
        check_belongs_together(bundle, two, data)


def test_other_weights_are_refused() -> None:
    def all_of(label: int) -> Side:
        return Side(f"all {label}", lambda frame: np.full(frame.shape[:2], label, np.uint8), (0.5,), "")

    frames = [np.zeros((4, 4, 3), np.uint8)]
    assert label_agreement(all_of(1), all_of(1), frames) == 1
    with pytest.raises(InputError, match=r"do not run the same network \| got 0.0 % equal labels"):
        label_agreement(all_of(1), all_of(0), frames)


def test_command_writes_table_and_samples(
    checkpoint_path: Path, data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--checkpoint", str(checkpoint_path), "--data", str(data_root), "--out", str(tmp_path / "out")]
    small = ["--peers", "torch eager", "onnxruntime", "--fps", "10", "20", "--rounds", "3", "--threads", "1"]
    assert main([*arguments, *small, "--peer-size", "48x64"]) == 0
    document = json.loads((tmp_path / "out" / "peers.json").read_text())
    rows = {row["side"]: row for row in document["rows"]}
    assert {"swiftnet_r18_48x64_w0.125", "torch eager", "onnxruntime"} <= set(rows)
    ours = rows["swiftnet_r18_48x64_w0.125"]
    assert "what the peers run" in ours["note"]
    assert rows["torch eager"]["mIoU"] == pytest.approx(ours["mIoU"], abs=1e-3)
    assert rows["onnxruntime"]["mIoU at k = 0, 1, ..."] == pytest.approx(ours["mIoU at k = 0, 1, ..."], abs=2e-3)
    assert {len(values) for values in document["samples_s"].values()} == {3}
    assert document["facts"]["interpolated"].startswith("LAmIoU at 20 fps")
    assert capsys.readouterr().out.startswith("# peers\n\n| side |")


def test_command_ends_with_2_and_writes_nothing_when_the_checkpoint_is_missing(
    data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["--checkpoint", str(tmp_path / "none"), "--data", str(data_root), "--out", str(out)]) == 2
    assert "no such checkpoint" in capsys.readouterr().err
    assert not out.exists()
