"""Resize(x, sizes=Concat(Slice(Shape(x)), constant)) -> Resize(x, sizes=constant)

and whatever else can be computed at export; functions of the model are inlined. onnxscript's optimizer does the work;
it is run only on graphs that need it, as it costs seconds on large ones.
"""

import onnx

STATIC = frozenset(("Shape", "Size", "ConstantOfShape", "Range", "Gather", "Unsqueeze", "Squeeze", "Constant"))


def fold_constants(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model`, or a copy of it with constants folded; names of inputs, outputs and weights stay."""
    if not model.functions and not any(node.op_type in STATIC for node in model.graph.node):
        return model
    from onnxscript import optimizer

    copy = onnx.ModelProto.FromString(model.SerializeToString())
    return optimizer.optimize(copy)
