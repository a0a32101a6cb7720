"""Ranges of activations: what the methods say of values that one can read, and which data is refused."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgeseg.errors import InputError
from edgeseg.export.activation_ranges import activation_ranges

COUNT = 20_000


def identity() -> onnx.ModelProto:
    """x -> Relu(x) = y, 20,000 numbers."""
    node = helper.make_node("Relu", ["x"], ["y"], name="relu")
    inputs, outputs = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [COUNT]) for name in ("x", "y"))
    graph = helper.make_graph([node], "identity", [inputs], [outputs])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def feed(values: np.ndarray) -> dict[str, np.ndarray]:
    return {"x": np.resize(values.astype(np.float32), COUNT)}


def normal(seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return scale * np.random.default_rng(seed).standard_normal(COUNT)


def test_max_is_the_largest_magnitude_of_all_images() -> None:
    feeds = [feed(np.array([0.0, 1, 2])), feed(np.array([0.5, -7])), feed(np.array([3.0]))]
    assert activation_ranges(identity(), ["x", "y"], feeds, "max") == {"x": 7.0, "y": 3.0}


def test_percentile_leaves_one_value_in_ten_thousand_out() -> None:
    values = np.full(COUNT, 1.0)
    values[0] = 1000
    assert activation_ranges(identity(), ["x"], [feed(values)], "percentile")["x"] == pytest.approx(1, abs=0.5)
    values[:20] = 1000
    assert activation_ranges(identity(), ["x"], [feed(values)], "percentile")["x"] == 1000


def test_entropy_clips_a_single_outlier_and_not_the_bulk() -> None:
    values = normal()
    values[0] = 40
    entropy = activation_ranges(identity(), ["x"], [feed(values)], "entropy")["x"]
    assert 2 < entropy < 10


def test_entropy_does_not_clip_what_is_evenly_spread() -> None:
    values = np.linspace(-5, 5, COUNT)
    assert activation_ranges(identity(), ["x"], [feed(values)], "entropy")["x"] > 4.9


def test_zeros_after_a_relu_do_not_decide() -> None:
    values = np.abs(normal())
    many_zeros = values.copy()
    many_zeros[: COUNT * 3 // 4] = 0
    dense = activation_ranges(identity(), ["y"], [feed(values)], "entropy")["y"]
    sparse = activation_ranges(identity(), ["y"], [feed(many_zeros)], "entropy")["y"]
    assert sparse == pytest.approx(dense, rel=0.4)


def test_attention_has_the_range_of_percentile_when_the_method_is_entropy() -> None:
    model = identity()
    model.graph.node[0].CopyFrom(helper.make_node("Softmax", ["x"], ["y"], name="softmax"))
    scores = normal(scale=3)
    attention = np.exp(scores) / np.exp(scores).sum()
    entropy, percentile = (
        activation_ranges(model, ["y"], [feed(scores)], method)["y"] for method in ("entropy", "percentile")
    )
    assert entropy == percentile
    assert entropy > 1.5 * activation_ranges(identity(), ["x"], [feed(attention)], "entropy")["x"]


@pytest.mark.parametrize("method", ["entropy", "percentile", "max"])
def test_order_of_the_images_changes_nothing(method: str) -> None:
    feeds = [feed(normal(0)), feed(np.array([0.5, 4.0])), feed(normal(1, scale=3)), feed(np.zeros(1))]
    one = activation_ranges(identity(), ["x"], feeds, method)["x"]
    other = activation_ranges(identity(), ["x"], feeds[::-1], method)["x"]
    assert one == other


@pytest.mark.parametrize("method", ["entropy", "percentile", "max"])
def test_a_tensor_of_zeros_has_range_zero(method: str) -> None:
    assert activation_ranges(identity(), ["y"], [feed(np.array([-1.0]))], method) == {"y": 0.0}


def test_unknown_methods_are_refused() -> None:
    with pytest.raises(InputError, match=r"unknown calibration method 'minmax' \| known: entropy, max, percentile"):
        activation_ranges(identity(), ["x"], [feed(normal())], "minmax")


def test_no_images_are_refused() -> None:
    with pytest.raises(InputError, match="calibration needs data"):
        activation_ranges(identity(), ["x"], [], "max")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"x": np.zeros(3, np.float32)}, r"input 0 does not fit the graph in x \| got float32 \[3\], expected float32"),
        ({"x": np.zeros(COUNT)}, r"got float64 \[20000\], expected float32 \[20000\]"),
        ({}, r"in x \| got none, expected float32"),
        ({"x": np.zeros(COUNT, np.float32), "z": np.zeros(1)}, r"in z \| got float64 \[1\], expected none"),
        ({"x": np.full(COUNT, np.nan, np.float32)}, "NaN or infinite values in x"),
    ],
)
def test_feeds_that_do_not_fit_are_refused(wrong: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(InputError, match=message):
        activation_ranges(identity(), ["x"], [wrong], "max")


def test_infinite_inner_values_are_refused_by_the_tensor_s_name() -> None:
    model = identity()
    model.graph.node[0].CopyFrom(helper.make_node("Exp", ["x"], ["y"], name="exp"))
    with pytest.raises(InputError, match="NaN or infinite values in y"):
        activation_ranges(model, ["y"], [feed(np.array([1000.0]))], "max")
