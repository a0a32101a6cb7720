"""Phase graphs against PyTorch with kept channels, step by step, on networks of several kinds."""

import io
import warnings
from collections import Counter
from functools import lru_cache

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from edgeseg.errors import InputError
from edgeseg.export.stateful import NEXT_ROLE, PhaseGraphs, build_phase_graphs

HEIGHT, WIDTH, STEPS = 16, 24, 20
Mask = tuple[tuple[int, int], tuple[int, int]]


def conv(inputs: int, outputs: int, kernel: int = 3, **options: int) -> nn.Sequential:
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False, **options)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())


class Residual(nn.Module):
    """Two residual blocks, one with a projection; the sums join masked and whole maps."""

    masked = ("first.0", "second.0", "third.0", "fourth")

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first = conv(3, 8), conv(8, 8)
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.third = conv(8, 16, stride=2)
        self.fourth, self.project = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(8, 16, 1, stride=2)
        self.head = nn.Conv2d(16, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.stem(x), 3, stride=2, padding=1)
        x = F.relu(self.second(self.first(x)) + x)
        return self.head(F.leaky_relu(self.fourth(self.third(x)) + self.project(x), 0.1))


class Pyramid(nn.Module):
    """Masked coarse map, up-sampled, plus masked lateral; a batch norm after the sum and one before a convolution."""

    masked = ("down.0", "top", "lateral", "blend")

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = conv(3, 8), conv(8, 16, stride=2)
        self.top, self.lateral = nn.Conv2d(16, 12, 1), nn.Conv2d(8, 12, 1, bias=False)
        self.norm, self.blend = nn.BatchNorm2d(12), nn.Conv2d(12, 12, 3, padding=1)
        self.last, self.head = nn.BatchNorm2d(12), nn.Conv2d(12, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.stem(x)
        coarse = F.interpolate(self.top(self.down(fine)), scale_factor=2, mode="bilinear", align_corners=False)
        x = self.blend(F.hardswish(self.norm(coarse + self.lateral(fine))))
        return self.head(self.last(torch.sigmoid(x)))


class Depthwise(nn.Module):
    """Masked point-wise convolutions with depthwise ones between them."""

    masked = ("expand.0", "project")

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.expand = conv(3, 8), conv(8, 16, 1)
        self.depthwise, self.project = conv(16, 16, groups=16), nn.Conv2d(16, 8, 1)
        self.scale, self.head = nn.Parameter(torch.rand(1, 8, 1, 1)), nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(self.project(self.depthwise(self.expand(x))) * self.scale + x)


class Unet(nn.Module):
    """Joins masked and whole maps along the channels, with a batch norm over the joined map."""

    masked = ("left.0", "deep.0", "after")

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.deep = conv(3, 8), conv(8, 8), conv(8, 16)
        self.norm, self.after, self.head = nn.BatchNorm2d(32), nn.Conv2d(32, 8, 3, padding=1), nn.Conv2d(16, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        stem = self.stem(x)
        left = self.left(stem)
        deep = F.interpolate(self.deep(F.avg_pool2d(left, 2)), scale_factor=2, mode="nearest")
        return self.head(torch.cat((self.after(F.relu(self.norm(torch.cat((left, deep, stem), 1)))), left), 1))


class Gated(nn.Module):
    """A gate of one channel, squeeze and excitation, grouped convolution, pixel shuffle: operators that need all."""

    masked = ("body.0", "squeeze", "wide")

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.gate = conv(3, 8), conv(8, 8), nn.Conv2d(8, 1, 1)
        self.squeeze, self.excite = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.wide, self.grouped, self.head = (
            nn.Conv2d(8, 16, 1),
            nn.Conv2d(16, 16, 3, padding=1, groups=4),
            nn.Conv2d(4, 5, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(self.stem(x))
        x = x * torch.sigmoid(self.gate(x))
        x = x * torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        return self.head(F.pixel_shuffle(self.grouped(self.wide(x)), 2))


NETWORKS: dict[str, type[nn.Module]] = {kind.__name__: kind for kind in (Residual, Pyramid, Depthwise, Unet, Gated)}


class Wrapper(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.network(image.permute(0, 3, 1, 2).float() / 64 - 2)
        return logits.argmax(1).to(torch.uint8), logits


@lru_cache
def network_and_graph(kind: str) -> tuple[Wrapper, onnx.ModelProto]:
    torch.manual_seed(0)
    wrapper = Wrapper(NETWORKS[kind]()).eval()
    for layer in wrapper.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for values in (layer.weight.data, layer.running_var):
                values.uniform_(0.5, 1.5)
            for values in (layer.bias.data, layer.running_mean):
                values.normal_(0, 0.2)
    buffer = io.BytesIO()
    image = torch.zeros(1, HEIGHT, WIDTH, 3, dtype=torch.uint8)
    names = {"input_names": ["image"], "output_names": ["labels", "logits"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(wrapper, (image,), buffer, dynamo=False, opset_version=17, **names)
    return wrapper, onnx.load_from_string(buffer.getvalue())


def bi_step(channels: int, rho: float) -> Mask:
    return (0, int((channels + rho * channels) // 2)), (int((channels - rho * channels) // 2), channels)


def masks_of(network: nn.Module, rho: float) -> dict[str, Mask]:
    return {name: bi_step(network.get_submodule(name).out_channels, rho) for name in network.masked}


def reference_logits(wrapper: Wrapper, masks: dict[str, Mask], frames: list[np.ndarray]) -> list[np.ndarray]:
    """Dense convolutions whose outputs are overwritten, outside of the mask, by what they were a step ago."""
    kept: dict[str, Tensor] = {}
    results, handles = [], []
    for name, mask in masks.items():

        def keep(_: nn.Module, __: object, output: Tensor, name: str = name, mask: Mask = mask) -> Tensor:
            if name in kept:
                start, stop = mask[len(results) % 2]
                output = torch.cat((kept[name][:, :start], output[:, start:stop], kept[name][:, stop:]), 1)
            kept[name] = output.clone()
            return output

        handles.append(wrapper.network.get_submodule(name).register_forward_hook(keep))
    with torch.no_grad():
        for frame in frames:
            results.append(wrapper(torch.from_numpy(frame))[1].numpy())
    for handle in handles:
        handle.remove()
    return results


def run_phases(graphs: PhaseGraphs, frames: list[np.ndarray]) -> list[dict[str, np.ndarray]]:
    sessions = {role: ort.InferenceSession(model.SerializeToString()) for role, model in graphs.models.items()}
    role, state, results = "init", {}, []
    for frame in frames:
        names = [output.name for output in sessions[role].get_outputs()]
        results.append(dict(zip(names, sessions[role].run(None, {"image": frame, **state}), strict=True)))
        links = [link for link in graphs.links if (link.source, link.target) == (role, NEXT_ROLE[role])]
        state = {link.input: results[-1][link.output] for link in links}
        role = NEXT_ROLE[role]
    return results


def video() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, (1, HEIGHT, WIDTH, 3), np.uint8) for _ in range(STEPS)]


@pytest.mark.parametrize("rho", [0, 0.25, 1])
@pytest.mark.parametrize("form", ["concat", "split"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_phase_graphs_equal_kept_channels_over_20_steps(kind: str, form: str, rho: float) -> None:
    wrapper, dense = network_and_graph(kind)
    masks = masks_of(wrapper.network, rho)
    graphs = build_phase_graphs(dense, masks, form=form)
    found, expected = run_phases(graphs, video()), reference_logits(wrapper, masks, video())
    assert graphs.masked == tuple(masks)
    for step in range(STEPS):
        np.testing.assert_allclose(found[step]["logits"], expected[step], atol=1e-4, err_msg=f"step {step}")
    labels = [np.mean(found[step]["labels"] == expected[step].argmax(1)) for step in range(STEPS)]
    assert min(labels) >= 0.999


def test_masks_change_the_result_when_rho_is_0() -> None:
    wrapper, _ = network_and_graph("Residual")
    masked, dense = (reference_logits(wrapper, masks_of(wrapper.network, rho), video()) for rho in (0, 1))
    assert np.abs(masked[5] - dense[5]).max() > 0.1


@pytest.mark.parametrize("kind", ["Residual", "Pyramid", "Depthwise", "Gated"])
def test_phases_have_no_slice_when_masks_are_halves(kind: str) -> None:
    wrapper, dense = network_and_graph(kind)
    graphs = build_phase_graphs(dense, masks_of(wrapper.network, 0), form="concat")
    assert [count(graphs, phase)["Slice"] for phase in ("phase0", "phase1")] == [0, 0]


def test_phases_have_no_concat_when_split() -> None:
    wrapper, dense = network_and_graph("Residual")
    graphs = build_phase_graphs(dense, masks_of(wrapper.network, 0), form="split")
    assert count(graphs, "phase0")["Concat"] == 0


def test_state_lies_after_resize_sum_norm_and_activation_when_they_commute() -> None:
    wrapper, dense = network_and_graph("Pyramid")
    masks = masks_of(wrapper.network, 0)
    graphs = build_phase_graphs(dense, {name: masks[name] for name in ("top", "lateral")}, form="concat")
    assert [state.shape for state in graphs.states["phase0"].inputs] == [(1, 6, 16, 24)]


def test_states_hold_what_the_phase_does_not_compute() -> None:
    _, dense = network_and_graph("Depthwise")
    graphs = build_phase_graphs(dense, {"expand.0": ((0, 10), (6, 16))}, form="concat")
    assert [state.shape[1] for state in graphs.states["phase0"].inputs] == [6]
    assert [state.shape[1] for state in graphs.states["phase1"].inputs] == [6]
    assert graphs.states["init"].inputs == ()


def test_phase_weights_are_rows_of_the_dense_weights() -> None:
    wrapper, dense = network_and_graph("Residual")
    graphs = build_phase_graphs(dense, masks_of(wrapper.network, 0.25), form="concat")
    whole = weights(graphs.models["init"])
    sliced = {name: value for name, value in weights(graphs.models["phase1"]).items() if name.endswith("]")}
    assert len(sliced) >= 8
    for name, value in sliced.items():
        base, start, stop = name[:-1].replace("[", ":").rsplit(":", 2)
        assert value.tobytes() == whole[base][int(start) : int(stop)].tobytes()


def count(graphs: PhaseGraphs, role: str) -> Counter[str]:
    return Counter(node.op_type for node in graphs.models[role].graph.node)


def weights(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def one_convolution() -> onnx.ModelProto:
    """Channel 0 doubles the one byte, channel 1 triples it; and the network has a state of its own, which counts."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["x"], to=TensorProto.FLOAT),
            helper.make_node("Conv", ["x", "layer.weight"], ["logits"], name="layer"),
            helper.make_node("Identity", ["logits"], ["result"]),
            helper.make_node("Add", ["state_count_in", "one"], ["state_count_out"]),
        ],
        "one_convolution",
        [
            helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 1, 1, 1]),
            helper.make_tensor_value_info("state_count_in", TensorProto.FLOAT, [1]),
        ],
        [
            helper.make_tensor_value_info("result", TensorProto.FLOAT, [1, 2, 1, 1]),
            helper.make_tensor_value_info("state_count_out", TensorProto.FLOAT, [1]),
        ],
        [
            numpy_helper.from_array(np.array([2, 3], np.float32).reshape(2, 1, 1, 1), "layer.weight"),
            numpy_helper.from_array(np.ones(1, np.float32), "one"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_one_convolution_keeps_a_channel_each_step() -> None:
    graphs = build_phase_graphs(one_convolution(), {"layer": ((0, 1), (1, 2))}, form="concat")
    sessions = {role: ort.InferenceSession(model.SerializeToString()) for role, model in graphs.models.items()}
    state = {"state_count_in": np.zeros(1, np.float32)}
    results = []
    for role, byte in (("init", 1), ("phase1", 10), ("phase0", 20), ("phase1", 30)):
        names = [output.name for output in sessions[role].get_outputs()]
        inputs = {"image": np.full((1, 1, 1, 1), byte, np.uint8), **state}
        outputs = dict(zip(names, sessions[role].run(None, inputs), strict=True))
        state = {link.input: outputs[link.output] for link in graphs.links if link.source == role}
        results.append(outputs["result"].ravel().tolist())
    assert results == [[2, 3], [2, 30], [40, 30], [40, 90]]
    assert state["state_count_in"] == 4


def test_masked_twice_is_refused_with_the_reason_when_a_layer_is_called_twice() -> None:
    model = one_convolution()
    model.graph.node.insert(2, helper.make_node("Conv", ["x", "layer.weight"], ["again"], name="layer_1"))
    graphs = build_phase_graphs(model, {"layer": ((0, 1), (1, 2))}, form="concat")
    assert graphs.masked == ()
    assert "more than once" in dict(graphs.refused)["layer"]


def test_unknown_layer_is_refused_with_the_reason() -> None:
    graphs = build_phase_graphs(one_convolution(), {"other": ((0, 1), (1, 2))}, form="concat")
    assert graphs.refused == (("other", "the graph has no convolution of that name"),)


@pytest.mark.parametrize("mask", [((0, 1), (0, 1)), ((0, 3), (0, 2)), ((0, 0), (0, 2))])
def test_mask_is_an_error_when_it_does_not_cover_the_channels(mask: Mask) -> None:
    with pytest.raises(InputError, match="mask of convolution layer does not fit"):
        build_phase_graphs(one_convolution(), {"layer": mask}, form="concat")


def test_unknown_form_is_an_error() -> None:
    with pytest.raises(InputError, match="concat or split"):
        build_phase_graphs(one_convolution(), {}, form="sliced")  # type: ignore[arg-type]
