"""`edgeseg export` and `edgeseg eval` from the outside: results on stdout, mistakes as one line and exit code 2."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from click.testing import CliRunner

from edgeseg.bundle import Bundle
from edgeseg.cli import main

torch.set_num_threads(1)


def run(*arguments: object, code: int = 0) -> str:
    """stdout of `edgeseg ARGUMENTS`, or stderr when it is to fail."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.stderr


def test_checkpoint_becomes_a_bundle_with_a_table(checkpoint, video, tmp_path):
    out = tmp_path / "a.edgeseg"
    grid = ("--rho", "dense", "--rho", 0, "--size", "48x64", "--labels-stride", 4, "--sweep")
    text = run("export", checkpoint, "--out", out, "--data", video, "--max-offset", 2, *grid)
    rows = [line.split() for line in text.splitlines() if "swiftnet" in line]
    assert [row[0] for row in rows] == ["swiftnet_r18_48x64_w0.125_s4", "swiftnet_r18_48x64_w0.125_rho0-concat_s4"]
    accuracy = Bundle.open(out).configurations[0].accuracy
    assert rows[0][-3:] == [f"{value:.3f}" for value in accuracy.miou]
    assert "2 configurations" in text


def test_json_is_the_only_thing_on_stdout(checkpoint, video, tmp_path):
    text = run("export", checkpoint, "--out", tmp_path / "a.edgeseg", "--data", video, "--max-offset", 0, "--json")
    (row,) = json.loads(text)["configurations"]
    assert row["knobs"]["size_hw"] == [48, 64]
    assert row["macs"] > 0
    assert row["parity"]["label_agreement"] >= 0.999
    assert row["accuracy"]["data_set"] == "noise"


def test_programs_beside_the_graphs_run_on_torch_and_are_told_about(checkpoint, video, tmp_path):
    out = tmp_path / "a.edgeseg"
    text = run("export", checkpoint, "--out", out, "--format", "onnx,torch", "--threads", 1)
    (line,) = [line for line in text.splitlines() if line.startswith("programs: ")]
    assert line.startswith("programs: torch for 1 of 1, labels agree on ")
    assert line.removeprefix("programs: ") in run("info", out)
    name = Bundle.open(out).configurations[0].name
    options = ("--configuration", name, "--source", video, "--no-pace", "--threads", 1, "--json")
    assert json.loads(run("run", out, "--device", "torch:cpu", *options))["results"] == 22


def test_labels_moved_by_every_named_compensation_are_scored(checkpoint, video, tmp_path):
    out = tmp_path / "a.edgeseg"
    options = ("--data", video, "--max-offset", 2, "--compensation", "late-warp,extrapolate")
    text = run("export", checkpoint, "--out", out, *options)
    accuracy = Bundle.open(out).configurations[0].accuracy
    assert [each.mode for each in accuracy.compensations] == ["none", "late-warp", "extrapolate"]
    best = accuracy.best_compensated
    (row,) = [line.split() for line in text.splitlines() if line.lstrip().startswith("moved ")]
    assert row[-3:] == [f"{value:.3f}" for value in best.miou]
    assert best.compensation.name in text
    info = run("info", out)
    assert " ".join(row[-2:]) in info
    assert f"moved by      {best.compensation.name}" in info


@pytest.mark.parametrize(("names", "tables"), [((), 2), (("--compensation", "none"), 0)])
def test_labels_are_scored_moved_by_default_and_not_when_it_is_told_so(checkpoint, video, tmp_path, names, tables):
    options = ("--data", video, "--max-offset", 1, "--json")
    text = run("export", checkpoint, "--out", tmp_path / "a.edgeseg", *options, *names)
    assert len(json.loads(text)["configurations"][0]["accuracy"]["compensated"]) == tables


def test_eval_adds_rows_of_moved_labels(checkpoint, video, tmp_path):
    run("export", checkpoint, "--out", tmp_path / "a.edgeseg", "--data", video, "--max-offset", 2)
    options = ("eval", tmp_path / "a.edgeseg", "--data", video, "--max-offset", 2)
    expected = Bundle.open(tmp_path / "a.edgeseg").configurations[0].accuracy.compensated[0]
    compensation = ("--compensation", "late-warp+extrapolate")
    (entry,) = json.loads(run(*options, *compensation, "--json"))["results"][0]["compensated"]
    assert entry["miou"] == list(expected.miou)
    lines = run(*options, *compensation).splitlines()
    position = lines.index(f"  moved by {expected.compensation.name}")
    assert lines[position + 1].split() == ["mIoU", *(f"{value:.3f}" for value in expected.miou)]
    assert "moved by" not in run(*options)


def test_missing_accuracy_table_is_said_plainly(checkpoint, tmp_path):
    result = CliRunner().invoke(main, ["export", str(checkpoint), "--out", str(tmp_path / "a.edgeseg")])
    assert result.exit_code == 0
    assert "no accuracy table: nothing can be picked" in result.stderr


def test_factory_in_the_working_directory_is_exported(video, tmp_path, monkeypatch):
    (tmp_path / "cli_fcn.py").write_text(
        "from torch import nn\ndef build():\n    return nn.Conv2d(3, 3, 3, padding=1)\n"
    )
    (tmp_path / "net.toml").write_text('name = "fcn"\nsize_hw = [48, 64]\nmean = [0.5, 0.5, 0.5]\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    options = ("--network-toml", "net.toml", "--data", video, "--max-offset", 0, "--std", 0.2, 0.2, 0.2)
    run("export", "cli_fcn:build", "--out", "a.edgeseg", *options)
    assert Bundle.open("a.edgeseg").configurations[0].name == "fcn_48x64"


def test_eval_gives_the_same_scores_for_a_checkpoint_and_its_bundle(checkpoint, video, tmp_path):
    run("export", checkpoint, "--out", tmp_path / "a.edgeseg", "--data", video, "--max-offset", 2)
    options = ("--data", video, "--max-offset", 2, "--radius", 1, "--json")
    ours = json.loads(run("eval", checkpoint, *options))["results"][0]
    theirs = json.loads(run("eval", tmp_path / "a.edgeseg", *options))["results"][0]
    assert ours["miou"] == pytest.approx(theirs["miou"], abs=1e-3)
    assert ours["iou"].keys() == {"road", "car", "sky"}
    assert 0 < ours["frequency_weighted_iou"] <= ours["pixel_accuracy"] <= 1
    assert ours["mean_class_accuracy"] == pytest.approx(theirs["mean_class_accuracy"], abs=1e-3)
    assert ours["trimap_miou"].keys() == {"1"}
    assert theirs["miou"] == pytest.approx(Bundle.open(tmp_path / "a.edgeseg").configurations[0].accuracy.miou)


def test_eval_prints_moving_objects_and_warm_up_for_a_masked_network(checkpoint, video, tmp_path):
    run("export", checkpoint, "--out", tmp_path / "a.edgeseg", "--rho", 0)
    text = run("eval", tmp_path / "a.edgeseg", "--data", video, "--max-offset", 1)
    assert "after warm-up" in text
    assert "moving objects" in text
    assert "noise val: 22 labelled frames at 10 frames/s" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("CHECKPOINT", "--out", "a.bundle"), "--out must end in .edgeseg"),
        (("nothing.safetensors", "--out", "a.edgeseg"), "no such checkpoint"),
        (("CHECKPOINT", "--out", "a.edgeseg", "--size", "48"), "a size is written HEIGHTxWIDTH"),
        (("CHECKPOINT", "--out", "a.edgeseg", "--size", "8x64"), "size_hw is at least 32 x 32"),
        (("CHECKPOINT", "--out", "a.edgeseg", "--rho", "half"), "--rho is a number from 0 to 1"),
        (("CHECKPOINT", "--out", "a.edgeseg", "--rho", "1.5"), "rho lies in [0, 1]"),
        (("CHECKPOINT", "--out", "a.edgeseg", "--cwm-form", "split"), "--cwm-form split is for masked networks"),
        (("CHECKPOINT", "--out", "a.edgeseg", "--labels-stride", "2"), "--labels-stride 2 does not fit"),
        (("CHECKPOINT", "--out", "a.edgeseg", "--labels-stride", "1", "--labels-stride", "4"), "add --sweep"),
        (("CHECKPOINT", "--out", "a.edgeseg", "--classes", "a,b"), "--classes is for networks of your own"),
        (("CHECKPOINT", "--out", "a.edgeseg", "--weights", "int4"), "unknown --weights 'int4'"),
        (("CHECKPOINT", "--out", "a.edgeseg", "--max-offset", "99"), "--max-offset lies between 0 and 60"),
        (("CHECKPOINT", "--out", "a.edgeseg", "--add"), "no bundle at"),
        (("CHECKPOINT", "--out", "a.edgeseg", "--compensation", "all"), "--compensation adds accuracy tables"),
        (("CHECKPOINT", "--out", "a.edgeseg", "--data", "VIDEO", "--compensation", "x"), "unknown compensation 'x'"),
        (("CHECKPOINT", "--out", "a.edgeseg", "--data", "VIDEO", "--split", "test"), "has no split 'test'"),
        (("CHECKPOINT", "--out", "a.edgeseg", "--data", "nowhere"), "nowhere: no such folder"),
        (("CHECKPOINT", "--checkpoint", "CHECKPOINT", "--out", "a.edgeseg", "--sweep"), "both make the configuration"),
        (("no_package:build", "--out", "a.edgeseg", "--classes", "a,b"), "no_package cannot be imported"),
        (("json:loads", "--out", "a.edgeseg", "--classes", "a", "--output", "x"), "--output is for ONNX files"),
        (("json:loads", "--out", "a.edgeseg", "--checkpoint", "b"), "--checkpoint adds checkpoints of edgeseg"),
        (("net.onnx", "--out", "a.edgeseg", "--classes", "a,b"), "net.onnx: no such file"),
    ],
)  # fmt: skip
def test_mistake_is_one_line_and_leaves_nothing(checkpoint, video, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    places = {"CHECKPOINT": checkpoint, "VIDEO": video}
    text = run("export", *(places.get(argument, argument) for argument in arguments), code=2)
    assert message in text
    assert text.startswith("edgeseg: ")
    assert len(text.strip().splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before


def test_truncated_checkpoint_is_refused(checkpoint, tmp_path):
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    assert "truncated or damaged" in run("export", checkpoint, "--out", tmp_path / "a.edgeseg", code=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("CHECKPOINT", "--configuration", "a"), "--configuration is for bundles"),
        (("CHECKPOINT", "--radius", "-1"), "--radius must be different numbers"),
        (("CHECKPOINT", "--max-offset", "40"), "no frame has labels 22 frames later"),
        (("gone.edgeseg",), "no bundle at gone.edgeseg"),
        (("BUNDLE", "--size", "48x64"), "--size is for checkpoints"),
        (("BUNDLE", "--configuration", "a"), "has no configuration 'a'"),
    ],
)
def test_mistake_of_eval_is_one_line(checkpoint, video, tmp_path, arguments, message):
    if "BUNDLE" in arguments:
        run("export", checkpoint, "--out", tmp_path / "a.edgeseg", "--data", video, "--max-offset", 0)
    places = {"CHECKPOINT": checkpoint, "BUNDLE": tmp_path / "a.edgeseg"}
    text = run("eval", *(places.get(argument, argument) for argument in arguments), "--data", video, code=2)
    assert message in text


def test_interrupt_leaves_nothing_and_exits_with_130(checkpoint, video, tmp_path):
    out = tmp_path / "out" / "a.edgeseg"
    out.parent.mkdir()
    command = [sys.executable, "-m", "edgeseg", "export", str(checkpoint), "--out", str(out), "--data", str(video)]
    command += ["--size", "480x640", "--rho", "0"]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    deadline = time.monotonic() + 60
    while not any(out.parent.iterdir()) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"interrupted" in stderr
    assert list(out.parent.iterdir()) == []
