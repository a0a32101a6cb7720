import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from edgeseg.classes import CAMVID
from edgeseg.data.camvid import CamVid
from edgeseg.errors import ParityError
from edgeseg.export.bundle_writer import writing_bundle
from edgeseg.export.parity import ParityVideo, check_parity, parity_video
from edgeseg.export.source import SourceFacts, TorchSource
from edgeseg.export.sweep import Grid, plan_grid
from edgeseg.export.wrapper import Preprocessing
from edgeseg.models.registry import build_network


def check(source, frames_rgb, tmp_path, *, tamper=None, **grid):
    (request,) = plan_grid([source], Grid(sizes_hw=((48, 64),), labels_strides=(1,), **grid), sweep=False)
    variant = source.variant(request.knobs)
    if tamper is not None:
        tamper(variant.graphs)
    with writing_bundle(tmp_path / "a.edgeseg", source.facts.classes) as writer:
        (entry,) = writer.write_graphs([variant])
        video = ParityVideo("noise", tuple(frames_rgb))
        return check_parity(variant, source.reference(request.knobs), video, folder=writer.folder, entry=entry)


def scramble(graph: onnx.ModelProto, name: str) -> None:
    for entry in graph.graph.initializer:
        if entry.name.startswith(name):
            values = numpy_helper.to_array(entry)
            entry.CopyFrom(numpy_helper.from_array(values[..., ::-1].copy(), entry.name))
            return
    raise AssertionError(name)


def test_dense_network_agrees_over_12_frames(make_source, frames_rgb, tmp_path):
    parity = check(make_source(), frames_rgb, tmp_path)
    assert (parity.video, parity.frames) == ("noise", 12)
    assert parity.label_agreement >= 0.999
    assert parity.max_logit_error < 1e-3


@pytest.mark.parametrize("form", ["concat", "split"])
@pytest.mark.parametrize("rho", [0.0, 0.25, 1.0])
def test_masked_network_agrees_over_20_steps(make_source, frames_rgb, tmp_path, rho, form):
    parity = check(make_source(), frames_rgb[:20], tmp_path, rhos=(rho,), cwm_forms=(form,))
    assert parity.frames == 20
    assert parity.label_agreement >= 0.999


def test_first_diverging_layer_is_named_when_a_weight_is_tampered_with(make_source, frames_rgb, tmp_path):
    with pytest.raises(
        ParityError, match=r"graph step differs .* at step \d .*first diverging output: body\.3 at step 0"
    ):
        check(make_source(), frames_rgb, tmp_path, tamper=lambda graphs: scramble(graphs["step"], "body.3.weight"))


def test_role_and_step_are_named_when_a_phase_is_tampered_with(make_source, frames_rgb, tmp_path):
    with pytest.raises(ParityError, match=r"graph phase0 differs .*first diverging output: body\.0\[0:4\] at step 2"):
        check(
            make_source(),
            frames_rgb,
            tmp_path,
            rhos=(0.0,),
            tamper=lambda graphs: scramble(graphs["phase0"], "body.0.weight"),
        )


def test_share_and_bound_are_in_the_message(make_source, frames_rgb, tmp_path):
    with pytest.raises(
        ParityError, match=r"output labels agrees on \d+\.\d\d % of the pixels .* expected at least 99\.9 %"
    ):
        check(make_source(), frames_rgb, tmp_path, tamper=lambda graphs: scramble(graphs["step"], "stem.0.weight"))
    assert list(tmp_path.iterdir()) == []


def test_video_is_the_data_sets_or_the_simulators(video_data):
    own = parity_video(video_data.dataset, "val")
    assert (own.name, len(own.frames_rgb)) == ("squares/val_a", 20)
    np.testing.assert_array_equal(own.frames_rgb[3], video_data.videos[0].video.frame_rgb(3))
    assert parity_video(None, None).name.startswith("street/")


@pytest.mark.parametrize("name", ["swiftnet_r18", "swiftnet_r18_x"])
def test_masked_swiftnet_agrees_on_real_video(camvid_root, tmp_path, name):
    torch.manual_seed(0)
    network = build_network(name, len(CAMVID), width=0.125)
    facts = SourceFacts(name, name, CAMVID, input_frames=network.input_frames, logits_stride=4)
    source = TorchSource(facts, network, Preprocessing((0.4, 0.4, 0.4), (0.25, 0.25, 0.25)))
    video = parity_video(CamVid(camvid_root), "val")
    parity = check(source, video.frames_rgb, tmp_path, rhos=(0.25,))
    assert parity.frames == 20
    assert parity.label_agreement >= 0.999
