import sys

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgeseg.bundle import Bundle
from edgeseg.errors import InputError, MissingPackageError, ParityError
from edgeseg.export import pipeline, precision_loss, quantize
from edgeseg.export.calibration_cache import CalibrationCache
from edgeseg.export.lower_precision import PrecisionOptions
from edgeseg.export.parity import ParityVideo
from edgeseg.export.pipeline import ExportOptions, export_bundle
from edgeseg.export.sweep import Grid, plan_grid
from edgeseg.runtime.session import Session

pytest.importorskip("modelopt", reason="INT8 and FP16 need the extra quant")


class Fcn(nn.Module):
    """Wide enough for INT8 between its first and last layer."""

    logits_stride = 2

    def __init__(self, input_frames: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3 * input_frames, 16, 3, 2, padding=1), nn.ReLU())
        self.body = nn.Sequential(*(layer for _ in range(3) for layer in (nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())))
        self.head = nn.Conv2d(16, 3, 1)
        with torch.no_grad():
            # No class prevails, so that labels show rounding.
            self.head.bias -= self(torch.randn(1, 3 * input_frames, 48, 64)).mean((0, 2, 3))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.stem(image)))


@pytest.fixture(autouse=True)
def _own_parity_frames(monkeypatch, frames_rgb):
    """Parity on noise where a test gives no data, without the simulator's start."""
    monkeypatch.setattr(pipeline, "parity_video", lambda dataset, split: ParityVideo("noise", tuple(frames_rgb[:12])))


@pytest.fixture
def export(make_source, squares, tmp_path):
    """`export(data=None, options=..., **grid)` of `Fcn` into a bundle, calibrated on `squares`."""

    def run(data=None, options=None, source=None, calibration=squares, out="a.edgeseg", **grid) -> Bundle:
        source = source or make_source(network=Fcn().eval())
        requests = plan_grid([source], Grid(**{"labels_strides": (1,), "sizes_hw": ((48, 64),), **grid}), sweep=True)
        options = options or ExportOptions(
            max_offset=1, threads=1, compensations=(), precision=PrecisionOptions(max_drop=1.0)
        )
        return export_bundle(requests, tmp_path / out, data=data, calibration=calibration, options=options)

    return run


def dtypes(bundle, entry, role):
    model = onnx.load(str(bundle.path(entry.graphs[role].file)))
    return {each.name: each.type.tensor_type.elem_type for each in (*model.graph.input, *model.graph.output)}


def test_precisions_of_one_network_lie_side_by_side(export, video_data):
    bundle = export(video_data, rhos=("dense", 0.0), precisions=("int8", "fp32", "fp16"))
    assert [entry.name for entry in bundle.configurations] == [
        f"tiny_48x64{form}{precision}" for form in ("", "_rho0-concat") for precision in ("", "_fp16", "_int8")
    ]
    for fp32, *lower in (bundle.configurations[:3], bundle.configurations[3:]):
        assert fp32.calibration is None
        for entry in lower:
            assert entry.parity.miou_fp32 == pytest.approx(fp32.accuracy.miou[0])
            assert entry.parity.miou_drop == pytest.approx(fp32.accuracy.miou[0] - entry.accuracy.miou[0])
            assert entry.parity.max_drop == 1.0
            assert entry.calibration.images == 8
            assert entry.calibration.also_scored
            assert entry.notes["lower_precision"]["layers"] >= 3
    assert bundle.configurations[2].notes["lower_precision"] == {
        "layers": 3,
        "of": 5,
        "kept_high": {"stem.0": "first layer", "head": "last layer"},
    }
    assert bundle.configurations[5].calibration.warm_up == 8
    assert bundle.versions["nvidia-modelopt"]


def test_quantiser_is_none_of_the_tools_when_all_is_fp32(export):
    assert "nvidia-modelopt" not in export().versions


def test_graphs_of_lower_precision_give_about_the_labels_of_fp32(export, frames_rgb):
    bundle = export(precisions=("fp32", "fp16", "int8"), rhos=(0.25,))
    labels = []
    for entry in bundle.configurations:
        with Session(bundle.root, entry, threads=1) as session:
            labels.append(np.stack([session.step(frame) for frame in frames_rgb[:5]]))
    assert (labels[1] == labels[0]).mean() > 0.99
    assert 0.9 < (labels[2] == labels[0]).mean() < 1


def test_two_frame_network_is_quantised_on_pairs(export, make_source):
    (entry,) = export(source=make_source(2, Fcn(2).eval()), precisions=("int8",)).configurations
    assert list(entry.graphs) == ["init", "step"]
    assert (entry.calibration.warm_up, entry.calibration.frames) == (1, 4 * 3)
    assert entry.parity.label_agreement > 0.9


def test_network_is_exported_once_for_all_its_precisions(export, make_source, monkeypatch):
    source = make_source(network=Fcn().eval())
    asked = []
    variant = source.variant
    monkeypatch.setattr(source, "variant", lambda knobs: asked.append(knobs) or variant(knobs))
    export(source=source, precisions=("fp16", "int8"), sizes_hw=((48, 64), (32, 48)))
    assert [(knobs.size_hw, knobs.precision) for knobs in asked] == [((48, 64), "fp32"), ((32, 48), "fp32")]


def test_states_are_stored_as_fp16_where_there_are_any(export):
    bundle = export(rhos=("dense", 0.25), state_dtypes=("fp32", "fp16"), precisions=("fp32", "int8"))
    assert [entry.name.removeprefix("tiny_48x64") for entry in bundle.configurations] == [
        "", "_int8", "_rho0.25-concat", "_rho0.25-concat_st16", "_rho0.25-concat_int8", "_rho0.25-concat_int8_st16",
    ]  # fmt: skip
    for entry in bundle.configurations[2:]:
        states = {kind for name, kind in dtypes(bundle, entry, "phase0").items() if name.startswith("state_")}
        half = entry.knobs.state_dtype == "fp16"
        assert states == {onnx.TensorProto.FLOAT16 if half else onnx.TensorProto.FLOAT}


def test_fp16_states_without_states_are_refused(export):
    with pytest.raises(
        InputError, match=r"--state-dtype fp16 is for the states of masked networks, and none of tiny_48x64"
    ):
        export(state_dtypes=("fp16",))


def test_loss_beyond_the_allowed_one_is_refused_and_nothing_written(export, video_data, monkeypatch, tmp_path):
    scores = {"fp32": 0.75, "int8": 0.7}
    monkeypatch.setattr(precision_loss.DropMeter, "miou", lambda self, variant: scores[variant.knobs.precision])
    options = ExportOptions(threads=1, precision=PrecisionOptions(max_drop=0.04))
    with pytest.raises(
        ParityError, match=r"_int8 loses too much .*0\.0500 below the 0\.7500 of FP32.*--max-drop is 0\.04"
    ):
        export(video_data, options, precisions=("fp32", "int8"))
    assert not (tmp_path / "a.edgeseg").exists()
    options = ExportOptions(threads=1, max_offset=0, compensations=(), precision=PrecisionOptions(max_drop=0.06))
    assert export(video_data, options, precisions=("int8",)).configurations[0].parity.miou_drop == pytest.approx(0.05)


def test_loss_is_left_open_when_there_is_nothing_to_score_on(export):
    (entry,) = export(precisions=("int8",)).configurations
    assert entry.parity.miou_drop is None
    assert 0.9 < entry.parity.label_agreement < 1


def test_fp16_overflow_is_refused_by_the_parity_check(export, make_source):
    network = Fcn().eval()
    with torch.no_grad():
        network.stem[0].weight.mul_(1e5)
        network.head.weight.div_(1e5)
    with pytest.raises(ParityError, match=r"graph phase1 gives NaN or infinite logits at step 1 .*--state-dtype fp16"):
        export(source=make_source(network=network), calibration=None, rhos=(0.25,), state_dtypes=("fp16",))


def test_ranges_are_used_again_when_nothing_changed(export, tmp_path, monkeypatch):
    options = ExportOptions(threads=1, precision=PrecisionOptions(cache=CalibrationCache(tmp_path / "cache")))
    first = export(None, options, rhos=(0.25,), precisions=("int8",))
    files = {file: file.read_bytes() for file in (tmp_path / "cache").iterdir()}
    assert len(files) == 3
    measured = []
    monkeypatch.setattr(quantize, "activation_ranges", lambda *_: measured.append(1))
    again = export(None, options, out="b.edgeseg", rhos=(0.25,), precisions=("int8",))
    assert measured == []
    assert again.digest == first.digest
    assert {file: file.read_bytes() for file in (tmp_path / "cache").iterdir()} == files


def test_damaged_range_is_measured_again(export, tmp_path):
    options = ExportOptions(threads=1, precision=PrecisionOptions(cache=CalibrationCache(tmp_path / "cache")))
    first = export(None, options, precisions=("int8",))
    (file,) = (tmp_path / "cache").iterdir()
    intact = file.read_bytes()
    file.write_bytes(intact.replace(b"1", b"2"))
    again = export(None, options, out="b.edgeseg", precisions=("int8",))
    assert again.digest == first.digest
    assert file.read_bytes() == intact


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_lower_precision_without_calibration_asks_for_it(export, precision):
    with pytest.raises(InputError, match=rf"--precision {precision} needs video to calibrate on .*--calib"):
        export(calibration=None, precisions=(precision,))


def test_missing_library_is_told_before_anything_is_exported(export, make_source, monkeypatch):
    source = make_source(network=Fcn().eval())
    monkeypatch.setattr(source, "variant", lambda knobs: pytest.fail(f"{knobs.name} was exported"))
    monkeypatch.setitem(sys.modules, "lief", None)
    with pytest.raises(MissingPackageError, match=r"lief cannot be imported .*edgeseg\[quant\]"):
        export(source=source, precisions=("fp32", "int8"))


def test_fp16_storage_and_int8_exclude_each_other(export):
    with pytest.raises(InputError, match=r"--weights fp16 is for .*--precision int8 stores its own"):
        export(options=ExportOptions(weights="fp16"), precisions=("fp32", "int8"))


@pytest.mark.parametrize(
    ("values", "message"),
    [({"method": "mean"}, "unknown --calib-method 'mean'"), ({"max_drop": -0.1}, "--max-drop is an mIoU from 0 to 1")],
)
def test_options_out_of_range_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        PrecisionOptions(**values)
