import errno
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest

from edgeseg.bundle import Bundle
from edgeseg.config import Configuration
from edgeseg.errors import ArtifactError, InputError
from edgeseg.export import bundle_writer, pipeline
from edgeseg.export.bundle_writer import WeightStore
from edgeseg.export.parity import ParityVideo
from edgeseg.export.pipeline import ExportOptions, export_bundle
from edgeseg.export.sweep import Grid, plan_grid
from edgeseg.manifest import MANIFEST
from edgeseg.runtime.session import Session
from support.small_disk import small_disk


def export(source, out, data, *, options=None, **grid):
    grid = {"sizes_hw": ((48, 64),), "labels_strides": (1,), **grid}
    requests = plan_grid([source], Grid(**grid), sweep=True)
    return export_bundle(requests, out, data=data, options=options or ExportOptions(max_offset=0, threads=1))


@pytest.fixture(autouse=True)
def _few_frames(monkeypatch):
    """Parity on its own frames, where a test gives no data, without the simulator's start."""
    random = np.random.default_rng(5)
    video = ParityVideo("noise", tuple(random.integers(0, 256, (20, 48, 64, 3), dtype=np.uint8)))
    monkeypatch.setattr(pipeline, "parity_video", lambda dataset, split: video)


@pytest.mark.parametrize(("input_frames", "rho"), [(1, "dense"), (2, "dense"), (1, 0.25), (2, 0.0)])
def test_bundle_gives_the_networks_labels_when_it_is_opened_again(
    make_source, tmp_path, video_data, frames_rgb, input_frames, rho
):
    source = make_source(input_frames)
    export(source, tmp_path / "a.edgeseg", video_data, rhos=(rho,))
    bundle = Bundle.open(tmp_path / "a.edgeseg")
    bundle.verify()
    (entry,) = bundle.configurations
    assert entry.then == (("step",) if rho == "dense" else ("phase1", "phase0"))
    reference = source.reference(entry.knobs)
    with Session(bundle.root, entry, threads=1) as session:
        for frame in frames_rgb[:6]:
            assert (session.step(frame) == reference.step(frame)[0]).mean() >= 0.999


@pytest.mark.parametrize(
    ("read_as", "message"),
    [
        (
            "100 x 9",
            r"does not open again, so it was not kept . a\.edgeseg/manifest\.json: a configuration is not readable",
        ),
        ([48, 32], "has another configuration than was made, so it was not kept . got tiny_48x32, expected tiny_48x64"),
    ],
)
def test_bundle_that_would_not_be_read_as_it_was_made_is_not_published(
    make_source, tmp_path, monkeypatch, read_as, message
):
    written = Configuration.as_dict
    monkeypatch.setattr(Configuration, "as_dict", lambda knobs: {**written(knobs), "size_hw": read_as})
    with pytest.raises(ArtifactError, match=message):
        export(make_source(), tmp_path / "a.edgeseg", None)
    assert list(tmp_path.iterdir()) == []


def test_manifest_has_parity_accuracy_and_work_of_every_configuration(make_source, tmp_path, video_data):
    options = ExportOptions(max_offset=1, threads=1)
    bundle = export(make_source(), tmp_path / "a.edgeseg", video_data, rhos=("dense", 0.0), options=options)
    dense, masked = bundle.configurations
    for entry in (dense, masked):
        assert entry.parity is not None
        assert entry.parity.label_agreement >= 0.999
        assert entry.parity.max_logit_error is not None
        assert entry.accuracy is not None
        assert len(entry.accuracy.miou) == 2
    assert (dense.parity.frames, masked.parity.frames) == (12, 20)
    assert masked.graphs["phase0"].macs < dense.graphs["step"].macs


def test_weights_are_stored_once_when_sizes_and_masks_share_them(make_source, tmp_path):
    source = make_source()
    one = export(source, tmp_path / "one.edgeseg", None)
    many = export(source, tmp_path / "many.edgeseg", None, sizes_hw=((48, 64), (32, 48)), rhos=("dense", 0.0, 0.25))
    assert len(many.configurations) == 6
    assert many.files["weights.bin"].bytes == one.files["weights.bin"].bytes


def test_store_refers_into_a_stored_weight_when_another_is_rows_of_it():
    store = WeightStore(BytesIO())
    whole = np.arange(24, dtype=np.float32).reshape(6, 4)
    assert store.add(whole.tobytes(), 6) == 0
    assert store.add(whole[2:5].tobytes(), 3) == 2 * 16
    assert store.add(whole.tobytes(), 6) == 0
    assert store.add((whole + 100).tobytes(), 6) == 128
    assert store.add(np.concatenate([whole[5:], whole[:1]]).tobytes(), 2) == 256


def test_weights_take_half_the_bytes_when_stored_as_fp16(make_source, tmp_path):
    full = export(make_source(), tmp_path / "full.edgeseg", None)
    half = export(make_source(), tmp_path / "half.edgeseg", None, options=ExportOptions(weights="fp16"))
    assert half.files["weights.bin"].bytes < 0.7 * full.files["weights.bin"].bytes
    assert half.configurations[0].parity.label_agreement >= 0.999


def test_add_keeps_the_configurations_that_are_there(make_source, tmp_path, video_data):
    out = tmp_path / "a.edgeseg"
    first = export(make_source(), out, video_data)
    both = export(make_source(), out, None, options=ExportOptions(add=True), sizes_hw=((32, 48),))
    assert [entry.name for entry in both.configurations] == ["tiny_48x64", "tiny_32x48"]
    assert both.configurations[0].accuracy == first.configurations[0].accuracy
    both.verify()
    with pytest.raises(InputError, match="has tiny_32x48 already"):
        export(make_source(), out, None, options=ExportOptions(add=True), sizes_hw=((32, 48),))


def test_nothing_is_left_when_the_disk_is_full(make_source, tmp_path):
    root = tmp_path / "disk"
    root.mkdir()
    with small_disk(root, 8 << 10) as disk:
        with pytest.raises(InputError, match=r"cannot be written \(No space left on device\)"):
            export(make_source(), disk / "a.edgeseg", None)
        assert list(disk.iterdir()) == []


def test_nothing_is_left_when_writing_the_weights_fails(make_source, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(bundle_writer.WeightStore, "add", full)
    with pytest.raises(InputError, match="No space left on device"):
        export(make_source(), tmp_path / "a.edgeseg", None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("moment", ["check_parity", "configuration_accuracies"])
def test_old_bundle_stays_when_the_export_is_interrupted(make_source, tmp_path, video_data, monkeypatch, moment):
    out = tmp_path / "new" / "a.edgeseg"
    before = export(make_source(), out, None).digest

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, moment, interrupt)
    with pytest.raises(KeyboardInterrupt):
        export(make_source(), out, video_data, sizes_hw=((32, 48),))
    assert list(out.parent.iterdir()) == [out]
    assert Bundle.open(out).digest == before


def test_name_without_the_ending_is_refused(make_source, tmp_path):
    with pytest.raises(InputError, match=r"--out must end in \.edgeseg"):
        export(make_source(), tmp_path / "bundle", None)


def test_folder_that_is_no_bundle_is_not_replaced(make_source, tmp_path):
    (tmp_path / "a.edgeseg").mkdir()
    (tmp_path / "a.edgeseg" / "thesis.tex").touch()
    with pytest.raises(InputError, match="is not a bundle, so it is not replaced"):
        export(make_source(), tmp_path / "a.edgeseg", None)
    assert (tmp_path / "a.edgeseg" / "thesis.tex").exists()


def test_notes_keep_what_the_network_was_trained_on(make_source, tmp_path):
    trained_on = {"dataset": "squares", "splits": ["train"]}
    bundle = export(make_source(trained_on=trained_on), tmp_path / "a.edgeseg", None)
    assert bundle.configurations[0].notes["trained_on"] == trained_on


def test_bundle_is_found_incomplete_when_its_manifest_is_not_there(make_source, tmp_path, monkeypatch):
    written = []
    finish = bundle_writer.BundleWriter.finish

    def watch(self, entries):
        written.append(sorted(path.name for path in self.folder.iterdir()))
        finish(self, [replace(entry) for entry in entries])

    monkeypatch.setattr(bundle_writer.BundleWriter, "finish", watch)
    export(make_source(), tmp_path / "a.edgeseg", None)
    assert written == [["tiny_48x64.step.onnx", "weights.bin"]]
    assert (tmp_path / "a.edgeseg" / MANIFEST).is_file()
