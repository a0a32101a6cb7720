import json

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from edgeseg.cli import main

NAME = "plain_96x128"


def show(*arguments):
    return CliRunner().invoke(main, ["show", *map(str, arguments), "--threads", "1"])


@pytest.fixture(scope="module")
def panned_bundle(tmp_path_factory, graphs):
    root = tmp_path_factory.mktemp("bundles") / "panned.edgeseg"
    entry = graphs.stateless("plain", (96, 128), graphs.brightest_channel((96, 128)))
    return graphs.write_bundle(root, [entry])


@pytest.fixture(scope="module")
def panned(tmp_path_factory, graphs):
    """Data set of 20 frames of 96 x 128 at 10/s: a scene of three classes that pans by 3 pixels a frame."""
    root = tmp_path_factory.mktemp("panned")
    random = np.random.default_rng(7)
    texture = random.integers(40, 90, (24, 60)).repeat(4, axis=0).repeat(4, axis=1)
    classes = random.integers(0, 3, (4, 10)).repeat(24, axis=0).repeat(24, axis=1)
    scene = np.repeat(texture[..., None], 3, axis=2)
    np.put_along_axis(scene, classes[..., None], texture[..., None] + 120, axis=2)
    for kind, picture in (("frames", scene[..., ::-1]), ("labels", classes)):
        folder = root / kind / "val" / "a"
        folder.mkdir(parents=True)
        for index in range(20):
            cv2.imwrite(str(folder / f"{index:03d}.png"), picture[:, 3 * index : 3 * index + 128].astype(np.uint8))
    names = ", ".join(f'"{name}"' for name in graphs.classes.names)
    (root / "dataset.toml").write_text(f'name = "panned"\nfps = 10.0\n[classes]\nnames = [{names}]\n')
    return root


def frames_of(path) -> list[np.ndarray]:
    capture, frames = cv2.VideoCapture(str(path)), []
    while True:
        ok, frame = capture.read()
        if not ok:
            return frames
        frames.append(frame)


def test_moved_labels_score_better_than_late_ones_when_the_scene_pans(panned_bundle, panned, tmp_path):
    result = show(panned_bundle.root, "--source", panned, "--delay", 3, "--out", tmp_path / "v.mp4", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["frames"], report["scored_frames"]) == (20, 17)
    assert report["compensation"] == "late-warp+extrapolate_dis-ultrafast_d2"
    assert report["miou_moved"] > report["miou_late"] + 0.1


def test_both_score_alike_when_nothing_is_moved(panned_bundle, panned, tmp_path):
    result = show(
        panned_bundle.root, "--source", panned, "--compensation", "none", "--out", tmp_path / "v.mp4", "--json"
    )
    report = json.loads(result.stdout)
    assert report["miou_moved"] == report["miou_late"]


def test_the_video_holds_three_panels_of_every_frame(panned_bundle, panned, tmp_path):
    result = show(panned_bundle.root, "--source", panned, "--frames", 8, "--out", tmp_path / "v.mp4")
    frames = frames_of(tmp_path / "v.mp4")
    assert len(frames) == 8
    assert frames[0].shape == (96 + 44, 3 * 128, 3)
    assert "video" in result.stdout


def test_the_video_is_the_same_when_it_is_made_again(panned_bundle, panned, tmp_path):
    for name in ("a.mp4", "b.mp4"):
        show(panned_bundle.root, "--source", panned, "--frames", 8, "--out", tmp_path / name)
    for a, b in zip(frames_of(tmp_path / "a.mp4"), frames_of(tmp_path / "b.mp4"), strict=True):
        np.testing.assert_array_equal(a, b)


def test_errors_of_late_labels_are_orange_in_the_third_panel(panned_bundle, panned, tmp_path):
    show(panned_bundle.root, "--source", panned, "--out", tmp_path / "v.mp4")
    panel = frames_of(tmp_path / "v.mp4")[10][44:, 2 * 128 :].astype(int)
    orange = (panel[..., 2] > 150) & (panel[..., 0] < 90)
    blue = (panel[..., 0] > 150) & (panel[..., 2] < 120)
    assert orange.mean() > 0.05
    assert orange.sum() > 3 * blue.sum()


def test_the_video_is_made_when_the_source_has_no_labels(panned_bundle, panned, tmp_path):
    result = show(
        panned_bundle.root, "--source", panned / "frames" / "val" / "a", "--fps", 10, "--out", tmp_path / "v.mp4"
    )
    assert result.exit_code == 0, result.output
    assert "mIoU" not in result.stdout
    assert len(frames_of(tmp_path / "v.mp4")) == 20


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--source", "0"], "cannot be played again"),
        (["--source", "street", "--out", "v.avi"], "videos are written as .mp4"),
        (["--source", "street", "--compensation", "late-warp_best_d2"], "unknown compensation 'late-warp_best_d2'"),
        (["--source", "street", "--delay", "0"], "Invalid value for '--delay'"),
        (["--source", "nothing.mp4"], "no video file"),
        (["--source", "street", "--configuration", "big"], "has no configuration 'big'"),
    ],
)
def test_show_exits_with_2_when_an_option_is_wrong(panned_bundle, arguments, words):
    result = show(panned_bundle.root, *arguments)
    assert result.exit_code == 2
    assert words in result.stderr


@pytest.mark.parametrize("spelling", ["file://{folder}/v.mp4", "@{folder}/address"])
def test_show_refuses_to_replace_its_source_however_that_is_spelled(panned_bundle, tmp_path, spelling):
    (tmp_path / "v.mp4").write_bytes(b"the only recording")
    (tmp_path / "address").write_text(f"{tmp_path}/v.mp4\n")
    result = show(panned_bundle.root, "--source", spelling.format(folder=tmp_path), "--out", tmp_path / "v.mp4")
    assert result.exit_code == 2
    assert "--source and --out are the same file" in result.stderr


def test_no_video_is_left_when_the_source_breaks(panned_bundle, panned, tmp_path):
    import shutil

    folder = tmp_path / "frames"
    shutil.copytree(panned / "frames" / "val" / "a", folder)
    (folder / "009.png").write_bytes((folder / "009.png").read_bytes()[:-16])
    result = show(panned_bundle.root, "--source", folder, "--fps", 10, "--out", tmp_path / "out" / "v.mp4")
    assert result.exit_code == 2
    assert "broke at frame 9" in result.stderr
    assert not (tmp_path / "out" / "v.mp4").exists()
