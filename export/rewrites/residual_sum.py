"""Add(Add(Conv, Conv'), r) -> Add(Conv', Add(Conv, r))

A chain of sums of which each has one convolution, so that a runtime can compute every sum inside its convolution (ONNX
Runtime's convolution with a Sum input), and the activation after the last one too.
"""

from collections import Counter

import onnx
from onnx import helper


def chain_residual_sums(nodes: list[onnx.NodeProto], keep: set[str]) -> list[onnx.NodeProto]:
    """`nodes` (in execution order) with sums of convolutions re-associated; tensors in `keep` stay as they are."""
    uses = Counter(name for node in nodes for name in node.input)
    producer = {name: node for node in nodes for name in node.output}
    replaced: dict[int, list[onnx.NodeProto]] = {}
    for node in nodes:
        if node.op_type != "Add":
            continue
        for first, second in (tuple(node.input), tuple(reversed(node.input))):
            convolutions = _sum_of_convolutions(first, producer, uses, keep)
            if len(convolutions) > 1:
                replaced.update({id(producer[name]): [] for name in _inner_sums(first, producer)})
                replaced[id(node)] = _chain(convolutions, second, node.output[0])
                break
    return [new for node in nodes for new in replaced.get(id(node), [node])]


def _sum_of_convolutions(
    name: str, producer: dict[str, onnx.NodeProto], uses: Counter[str], keep: set[str]
) -> list[str]:
    """Names of the convolutions' outputs that `name` is the sum of; empty when it is anything else."""
    node = producer.get(name)
    if node is None or uses[name] != 1 or name in keep:
        return []
    if node.op_type == "Conv":
        return [name]
    if node.op_type != "Add":
        return []
    parts = [_sum_of_convolutions(part, producer, uses, keep) for part in node.input]
    return [*parts[0], *parts[1]] if all(parts) else []


def _inner_sums(name: str, producer: dict[str, onnx.NodeProto]) -> list[str]:
    """Names of the sums of which `name`, itself one of them, is made."""
    if producer[name].op_type != "Add":
        return []
    return [name, *(inner for part in producer[name].input for inner in _inner_sums(part, producer))]


def _chain(convolutions: list[str], rest: str, output: str) -> list[onnx.NodeProto]:
    nodes = []
    for number, name in enumerate(convolutions):
        target = output if number == len(convolutions) - 1 else f"{output}.sum{number}"
        nodes.append(helper.make_node("Add", [name, rest], [target], name=f"Add_{target}"))
        rest = target
    return nodes
