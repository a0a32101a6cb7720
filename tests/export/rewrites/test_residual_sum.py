"""Sums of several convolutions and a residual become a chain with one convolution in each sum."""

from onnx import helper

from edgeseg.export.rewrites.residual_sum import chain_residual_sums

C0 = helper.make_node("Conv", ["x", "w0"], ["c0"])
C1 = helper.make_node("Conv", ["x", "w1"], ["c1"])
INNER = helper.make_node("Add", ["c0", "c1"], ["s"])
OUTER = helper.make_node("Add", ["s", "r"], ["y"])


def edges(nodes: list) -> list[tuple[str, ...]]:
    return [(node.op_type, *node.input, *node.output) for node in nodes]


def test_sum_of_two_convolutions_is_chained_when_a_residual_is_added() -> None:
    chained = chain_residual_sums([C0, C1, INNER, OUTER], set())
    assert edges(chained)[2:] == [("Add", "c0", "r", "y.sum0"), ("Add", "c1", "y.sum0", "y")]


def test_sum_is_left_alone_when_it_is_kept() -> None:
    nodes = [C0, C1, INNER, OUTER]
    assert chain_residual_sums(nodes, {"s"}) == nodes


def test_sum_is_left_alone_when_it_is_read_twice() -> None:
    nodes = [C0, C1, INNER, OUTER, helper.make_node("Relu", ["s"], ["z"])]
    assert chain_residual_sums(nodes, set()) == nodes


def test_plain_residual_is_left_alone() -> None:
    nodes = [C0, helper.make_node("Add", ["c0", "r"], ["y"])]
    assert chain_residual_sums(nodes, set()) == nodes
