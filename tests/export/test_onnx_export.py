import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from edgeseg.errors import InputError
from edgeseg.export.onnx_export import export_module
from edgeseg.export.wrapper import CameraToLabels, Preprocessing, logits_tensor

MEAN_STD = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class TwoConvolutions(nn.Module):
    """Padded, so that a mean folded wrongly shows at the border."""

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.levels = nn.ModuleList(
            [nn.Sequential(nn.Conv2d(in_channels, 8, 5, 2, padding=2, bias=False), nn.BatchNorm2d(8))]
        )
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.levels[0](image)))


def wrapped(colour_order: str = "RGB", labels_stride: int = 1, input_frames: int = 1) -> CameraToLabels:
    preprocessing = Preprocessing(*MEAN_STD, colour_order)
    network = TwoConvolutions(3 * input_frames).eval()
    return CameraToLabels(
        network, preprocessing, size_hw=(32, 48), labels_stride=labels_stride, input_frames=input_frames
    )


def run(model, *frames):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, dict(zip([entry.name for entry in session.get_inputs()], frames, strict=True)))


def by_hand(module, frame):
    """Labels of one frame, preprocessing written out."""
    image = frame if not module.swap_colours else frame[..., ::-1]
    mean, std = (np.float32(values)[:, None, None] for values in MEAN_STD)
    normalised = (image[0].transpose(2, 0, 1).astype(np.float32) / 255 - mean) / std
    with torch.no_grad():
        logits = module.network(torch.from_numpy(normalised)[None])
        if module.labels_stride == 1:
            logits = nn.functional.interpolate(logits, size=module.size_hw, mode="bilinear", align_corners=False)
    return logits.argmax(1).numpy()


@pytest.fixture
def frame():
    return np.random.default_rng(0).integers(0, 256, (1, 32, 48, 3), dtype=np.uint8)


@pytest.mark.parametrize("colour_order", ["RGB", "BGR"])
@pytest.mark.parametrize("labels_stride", [1, 2])
def test_graph_gives_the_labels_of_a_hand_made_preprocessing(frame, colour_order, labels_stride):
    module = wrapped(colour_order, labels_stride)
    labels = run(export_module(module), frame)[0]
    assert labels.dtype == np.uint8
    assert labels.shape == (1, 32 // labels_stride, 48 // labels_stride)
    assert (labels == by_hand(module, frame)).mean() > 0.999


def test_convolutions_are_named_by_their_module_path():
    graph = export_module(wrapped()).graph
    assert [node.name for node in graph.node if node.op_type == "Conv"] == ["levels.0.0", "head"]
    assert {"levels.0.0.weight", "head.weight"} <= {entry.name for entry in graph.initializer}


def test_scale_and_batch_norm_are_folded_into_the_first_convolution():
    kinds = [node.op_type for node in export_module(wrapped()).graph.node]
    assert "Mul" not in kinds
    assert "BatchNormalization" not in kinds


def test_graph_is_plain_onnx_with_fixed_shapes():
    model = export_module(wrapped())
    assert {node.domain for node in model.graph.node} == {""}
    assert 17 <= model.opset_import[0].version <= 20
    shapes = [[side.dim_value for side in entry.type.tensor_type.shape.dim] for entry in model.graph.value_info]
    assert all(side > 0 for shape in shapes for side in shape)
    assert "logits" in {entry.name for entry in model.graph.value_info}
    assert [entry.name for entry in model.graph.output] == ["labels"]


def test_two_frame_graph_hands_the_frame_on(frame):
    model = export_module(wrapped(input_frames=2))
    previous = frame[:, ::-1].copy()
    labels, handed_on = (
        run(model, previous, frame) if model.graph.input[0].name != "image" else run(model, frame, previous)
    )
    assert [entry.name for entry in model.graph.output] == ["labels", "state_frame_out"]
    np.testing.assert_array_equal(handed_on, frame)
    with torch.no_grad():
        expected = wrapped(input_frames=2).eval()(torch.from_numpy(frame), torch.from_numpy(previous))[0]
    assert (labels == expected.numpy()).mean() > 0.999


def test_labels_stride_is_refused_when_it_is_not_that_of_the_logits():
    with pytest.raises(InputError, match=r"--labels-stride 4 does not fit.*use 1 or 2"):
        export_module(wrapped(labels_stride=4))


def test_network_that_cannot_be_traced_is_an_input_error():
    class Fails(nn.Module):
        def forward(self, image):
            raise RuntimeError("seven channels wanted")

    module = CameraToLabels(Fails(), Preprocessing(*MEAN_STD), size_hw=(32, 32))
    with pytest.raises(InputError, match=r"cannot be exported to ONNX.*seven channels wanted"):
        export_module(module)


def test_logits_are_found_in_what_libraries_return():
    logits = torch.zeros(1, 2, 3, 4)
    Output = type("Output", (), {"logits": logits})
    assert all(logits_tensor(value) is logits for value in (logits, Output(), {"out": logits}, (logits,)))
    with pytest.raises(InputError, match=r"has no logits.*shape \(1, 2\)"):
        logits_tensor(torch.zeros(1, 2))
