"""`edgeseg export --precision` from the outside, and what becomes of its bundle: info, profile, pick."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from edgeseg.bundle import Bundle
from edgeseg.cli import main
from edgeseg.cli.export_precision import precision_remarks
from edgeseg.export.calibration import SteadyState
from edgeseg.manifest import save_manifest
from edgeseg.runtime.pick import ALIKE

EIGHT = ("--calib", "VIDEO", "--calib-images", "8")
pytest.importorskip("modelopt", reason="INT8 and FP16 need the extra quant")
torch.set_num_threads(1)


def run(*arguments: object, code: int = 0) -> str:
    """stdout of `edgeseg ARGUMENTS`, or stderr when it is to fail."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.stderr


@pytest.fixture(scope="module")
def made(make, tmp_path_factory):
    """Folder with `video`, a checkpoint `net.safetensors`, a bundle `a.edgeseg` of it in FP32 and INT8, dense and
    masked, what the export printed in `a.txt`, and the calibration in `cache`."""
    root = tmp_path_factory.mktemp("precision")
    make.noise(root / "video", {"train": 26, "val": 14})
    make.checkpoint(root / "net.safetensors")
    options = ("--size", "48x64", "--labels-stride", 4, "--rho", "dense", "--rho", 0.25, "--sweep", "--threads", 1)
    data = ("--data", root / "video", "--max-offset", 1, "--compensation", "none", "--calib-cache", root / "cache")
    lower = ("--precision", "fp32,int8", "--calib-images", 8, "--max-drop", 1)
    text = run("export", root / "net.safetensors", "--out", root / "a.edgeseg", *options, *data, *lower)
    (root / "a.txt").write_text(text)
    return root


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_table_has_drop_and_layers_of_lower_precisions(made):
    lines = (made / "a.txt").read_text().splitlines()
    heading = next(line for line in lines if "configuration" in line)
    assert heading.split()[5:7] == ["drop", "layers"]
    rows = {line.split()[0]: line.split() for line in lines if "swiftnet" in line}
    for entry in Bundle.open(made / "a.edgeseg").configurations:
        if entry.knobs.precision == "int8":
            layers = entry.notes["lower_precision"]
            cells = [f"{entry.parity.miou_drop:.4f}", f"{layers['layers']}/{layers['of']}", "int8"]
            assert rows[entry.name][6:9] == cells
        else:
            assert rows[entry.name][6:] == [f"{value:.3f}" for value in entry.accuracy.miou]


def test_text_says_what_was_calibrated_on(made):
    text = (made / "a.txt").read_text()
    assert "calibrated: entropy, 8 images of noise train (" in text
    assert "calibrated: entropy, 8 images of noise train after 8 steps each (" in text


def test_export_and_info_say_why_some_layers_are_not_int8(made):
    entry = next(entry for entry in Bundle.open(made / "a.edgeseg").configurations if entry.name.endswith("_int8"))
    layers = entry.notes["lower_precision"]
    start = f"{layers['layers']}/{layers['of']} int8, the others: first layer 1, "
    (line,) = [line for line in (made / "a.txt").read_text().splitlines() if line.startswith(start)]
    counts = [int(part.rsplit(" ", 1)[1]) for part in line.partition(": ")[2].split(", ")]
    assert sum(counts) == layers["of"] - layers["layers"]
    assert line in " ".join(run("info", made / "a.edgeseg").split())


def test_info_shows_the_calibration_record(made):
    text = run("info", made / "a.edgeseg")
    assert "calibrated" in text
    assert "entropy, 8 images of noise train after 8 steps each" in text
    rows = json.loads(run("info", made / "a.edgeseg", "--json"))["configurations"]
    record = rows[3]["precision"]["calibration"]
    assert record == Bundle.open(made / "a.edgeseg").configurations[3].calibration.as_dict()
    assert rows[0]["precision"]["calibration"] is None


def test_second_export_uses_the_calibration_of_the_first(made, tmp_path):
    options = ("--size", "48x64", "--labels-stride", 4, "--calib", made / "video", "--calib-images", 8, "--rho", 0.25)
    lower = ("--precision", "int8", "--calib-cache", made / "cache", "--json")
    result = CliRunner().invoke(
        main,
        [str(each) for each in ("export", made / "net.safetensors", "--out", tmp_path / "b.edgeseg", *options, *lower)],
    )
    assert result.exit_code == 0, result.output
    assert "calibration of init, phase0, phase1 is that of an earlier export" in result.stderr
    (row,) = json.loads(result.stdout)["configurations"]
    assert (row["precision"], row["miou_drop"], row["calibration"]["images"]) == ("int8", None, 8)
    assert not (tmp_path / "cache").exists()


def test_text_says_that_the_drop_was_not_measured_without_data(made, tmp_path):
    np.save(tmp_path / "frames.npy", np.random.default_rng(0).integers(0, 256, (9, 60, 80, 3), dtype=np.uint8))
    options = ("--size", "48x64", "--calib", tmp_path / "frames.npy", "--calib-images", 9, "--calib-method", "max")
    text = run("export", made / "net.safetensors", "--out", tmp_path / "b.edgeseg", *options, "--precision", "int8")
    assert "calibrated: max, 9 images of frames frames (" in text
    assert "was not measured | give labelled video with --data" in text
    assert list((tmp_path / "cache" / "edgeseg" / "calibration").glob("*.json"))


def test_profile_lists_both_precisions_and_picks_by_what_they_score(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ("--fps", 15, "--samples", 5, "--threads", 1, "--exhaustive", "--out", "p.json", "--json")
    values = json.loads(run("profile", made / "a.edgeseg", *options))
    rows = {row["configuration"]: row for row in values["rows"]}
    assert set(rows) == {entry.name for entry in Bundle.open(made / "a.edgeseg").configurations}
    assert all(row["p50_ms"] > 0 for row in rows.values())
    picked = json.loads(run("pick", made / "a.edgeseg", "--profile", "p.json", "--fps", 15, "--json"))
    best = max(row["streaming_lamiou"] for row in rows.values())
    alike = [row for row in rows.values() if row["streaming_lamiou"] > best - ALIKE]
    assert picked["configuration"] == min(alike, key=lambda row: row["p50_ms"])["configuration"]


def test_factory_and_onnx_file_are_quantised_too(made, tmp_path, monkeypatch):
    (tmp_path / "wide_fcn.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def build():\n    torch.manual_seed(0)\n"
        "    body = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU())\n"
        "    return nn.Sequential(body, nn.Conv2d(16, 3, 1)).eval()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    from wide_fcn import build

    torch.onnx.export(build(), (torch.zeros(1, 3, 48, 64),), "net.onnx", dynamo=False)
    options = ("--size", "48x64", "--calib", made / "video", "--calib-images", 8, "--precision", "int8", "--json")
    for network in ("wide_fcn:build", "net.onnx"):
        text = run("export", network, "--classes", "road,car,sky", "--out", "own.edgeseg", *options)
        (row,) = json.loads(text)["configurations"]
        assert (row["layers"]["layers"], row["layers"]["of"]) == (1, 3)
        assert row["parity"]["label_agreement"] > 0.8


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_nothing_is_left_when_calibration_is_broken_off(made, tmp_path, monkeypatch, error):
    def broken(*_):
        raise error

    monkeypatch.setattr(SteadyState, "of_stretch", broken)
    options = ("--size", "48x64", "--calib", made / "video", "--calib-images", 8, "--precision", "int8")
    code = 130 if error is KeyboardInterrupt else 2
    run("export", made / "net.safetensors", "--out", tmp_path / "b.edgeseg", *options, code=code)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--precision", "int4"), "unknown --precision 'int4' | known: fp32, fp16, int8"),
        (("--precision", "int8,int8"), "--precision names a value twice"),
        (("--precision", "int8"), "nothing to calibrate on | give video with --calib"),
        (("--calib", "VIDEO"), "--calib is for lower precisions | add --precision int8"),
        (("--calib-method", "max", "--precision", "fp32"), "--calib-method is for lower precisions"),
        (("--max-drop", "0.1"), "--max-drop is for lower precisions"),
        (("--max-drop", "0.1", "--precision", "int8", "--calib", "VIDEO"), "--max-drop is measured on labelled video"),
        (("--precision", "int8", "--calib", "VIDEO", "--calib-method", "mean"), "unknown --calib-method 'mean'"),
        (("--precision", "int8", "--calib", "VIDEO", "--calib-images", "27"), "too few images to calibrate on"),
        (("--precision", "int8", "--calib", "VIDEO", "--calib-images", "7"), "--calib-images is at least 8"),
        (("--precision", "int8", "--calib", "VIDEO", "--calib-split", "test"), "has no split 'test'"),
        (("--precision", "int8", "--calib", "VIDEO", "--calib-images", "26", "--rho", "0"), "too little video"),
        (("--precision", "int8", *EIGHT, "--weights", "fp16"), "--weights fp16 is for configurations"),
        (("--state-dtype", "fp16"), "--state-dtype fp16 is for the states of masked"),
        (("--state-dtype", "int8", "--rho", "0"), "unknown --state-dtype 'int8'"),
        (("--precision", "int8", "--calib", "VIDEO", "--calib-cache", "CKPT/x"), "CKPT is no folder"),
    ],
)  # fmt: skip
def test_mistake_is_one_line_and_leaves_nothing(made, tmp_path, arguments, message):
    places = {"VIDEO": made / "video", "CKPT/x": made / "net.safetensors" / "x"}
    arguments = [places.get(argument, argument) for argument in arguments]
    text = run(
        "export", made / "net.safetensors", "--size", "48x64", "--out", tmp_path / "b.edgeseg", *arguments, code=2
    )
    assert message.replace("CKPT", str(made / "net.safetensors")) in text.replace("\n", " ")
    assert list(tmp_path.iterdir()) == []


def test_layers_kept_and_tokens_that_stop_elsewhere_are_told(made, tmp_path):
    bundle = Bundle.open(shutil.copytree(made / "a.edgeseg", tmp_path / "b.edgeseg"))
    notes = {"sensitivity": {"kept": ["a.conv", "b.conv"], "drop_before": 0.0312}, "changed_stops": {"share": 0.0123}}
    told = {
        name: replace(entry, notes={**entry.notes, **notes}) if name.endswith("_int8") else entry
        for name, entry in ((entry.name, entry) for entry in bundle.configurations)
    }
    save_manifest(replace(bundle, configurations=tuple(told.values())))
    kept = "kept in FP32: a.conv, b.conv; without that the drop is 0.0312"
    name, *_ = (name for name in told if name.endswith("_int8"))
    assert precision_remarks(tuple(told.values()))[2:4] == [
        f"{name}: {kept}",
        f"{name}: 1.23 % of the tokens stop elsewhere than in FP32",
    ]
    assert kept in " ".join(run("info", bundle.root).split())
    rows = json.loads(run("info", bundle.root, "--json"))["configurations"]
    assert [row["precision"]["sensitivity"] for row in rows[:2]] == [None, notes["sensitivity"]]
