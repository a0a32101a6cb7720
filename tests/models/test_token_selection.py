"""Selecting, gathering and putting back tokens, in PyTorch and in graphs; counts beyond TensorRT's TopK."""

import io

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from edgeseg.models import token_selection
from edgeseg.models.token_selection import (
    TOPK_LIMIT,
    AuxiliaryDecoder,
    after_prefix,
    entropy,
    put,
    ranking,
    select_highest,
    take,
)

pytestmark = pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
WAYS = [(1024, 615, "highest"), (5000, 4200, "lowest"), (9000, 4400, "in bites"), (9000, 4600, "in bites")]


class Selection(nn.Module):
    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, scores: Tensor) -> Tensor:
        return select_highest(scores, self.count)


class TakeAndPut(nn.Module):
    def forward(self, tokens: Tensor, indices: Tensor) -> Tensor:
        return put(tokens, indices, 2 * take(tokens, indices))


def graph(module: nn.Module, *inputs: Tensor) -> onnx.ModelProto:
    buffer = io.BytesIO()
    names = [f"in{number}" for number in range(len(inputs))]
    torch.onnx.export(module, inputs, buffer, dynamo=False, opset_version=17, input_names=names)
    return onnx.load_from_string(buffer.getvalue())


def run(model: onnx.ModelProto, *inputs: Tensor) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {f"in{number}": each.numpy() for number, each in enumerate(inputs)})[0]


def largest_k(model: onnx.ModelProto) -> int:
    constants = {entry.name: onnx.numpy_helper.to_array(entry) for entry in model.graph.initializer}
    made = {node.output[0]: node for node in model.graph.node if node.op_type == "Constant"}
    sizes = []
    for node in model.graph.node:
        if node.op_type == "TopK":
            name = node.input[1]
            value = constants[name] if name in constants else onnx.numpy_helper.to_array(made[name].attribute[0].t)
            sizes.append(int(value.reshape(-1)[0]))
    return max(sizes)


@pytest.mark.parametrize(("tokens", "count", "way"), WAYS)
def test_graph_selects_the_same_tokens_within_the_limit_when_scores_tie(tokens: int, count: int, way: str) -> None:
    scores = (torch.rand(1, tokens, generator=torch.Generator().manual_seed(0)) * 20).round() / 20
    model = graph(Selection(count), scores)
    chosen = run(model, scores)[0]
    expected = sorted(range(tokens), key=lambda place: (-float(scores[0, place]), place))[:count]
    assert ranking(tokens, count) == way
    assert sorted(chosen.tolist()) == sorted(expected)
    assert sorted(select_highest(scores, count)[0].tolist()) == sorted(expected)
    assert largest_k(model) <= TOPK_LIMIT


def test_bites_of_any_size_select_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_selection, "TOPK_LIMIT", 3)
    scores = torch.tensor([[5.0, 1.0, 4.0, 4.0, 0.0, 9.0, 4.0, 2.0, 8.0, 3.0, 7.0, 6.0, 4.0, 1.5]])
    chosen = run(graph(Selection(7), scores), scores)[0]
    assert sorted(chosen.tolist()) == [0, 2, 3, 5, 8, 10, 11]


@pytest.mark.parametrize("batch", [1, 2])
def test_taken_rows_are_put_back_at_their_places(batch: int) -> None:
    tokens = torch.arange(batch * 5 * 2, dtype=torch.float32).reshape(batch, 5, 2)
    indices = torch.tensor([[3, 0]]).expand(batch, -1)
    expected = tokens.clone()
    expected[:, [0, 3]] *= 2
    torch.testing.assert_close(TakeAndPut()(tokens, indices), expected)
    np.testing.assert_array_equal(run(graph(TakeAndPut(), tokens, indices), tokens, indices), expected.numpy())


def test_put_leaves_its_input_as_it_is() -> None:
    tokens = torch.zeros(1, 3, 2)
    put(tokens, torch.tensor([[1]]), torch.ones(1, 1, 2))
    assert not tokens.any()


def test_prefix_goes_first_and_moves_the_patches() -> None:
    assert after_prefix(torch.tensor([[4, 0]]), 1).tolist() == [[0, 5, 1]]


def test_entropy_is_that_of_the_softmax() -> None:
    logits = torch.log(torch.tensor([[[0.5, 0.5, 1e-30], [0.25, 0.25, 0.5]]]))
    expected = [[float(np.log(2)), float(1.5 * np.log(2))]]
    torch.testing.assert_close(entropy(logits), torch.tensor(expected))


def test_auxiliary_decoder_is_shared_unless_layers_have_their_own() -> None:
    tokens = torch.randn(1, 4, 8)
    shared, own = AuxiliaryDecoder(3, 8), AuxiliaryDecoder(3, 8, layers=(6, 8))
    torch.testing.assert_close(shared(tokens, 3), shared(tokens, 5))
    assert shared.layers == ()
    assert own.layers == (6, 8)
    assert not torch.allclose(own(tokens, 6), own(tokens, 8))
