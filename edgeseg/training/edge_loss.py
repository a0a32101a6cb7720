"""The loss of the edge head of EQD [Z 4.2.2]: cross entropy of each patch's {no edge, edge} against the labels.

The source writes it with the thresholded probability, which has no gradient; decided here: the probability itself. A
pixel is on an edge when its right or lower neighbour has another label, or it is that neighbour; pairs with an ignored
pixel are none. Patches without any counted pixel do not count.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def edge_loss(edges: Tensor, labels: Tensor, *, ignore_value: int) -> Tensor:
    """Mean over the counted patches of logits `(B, 2, rows, columns)` against labels int64 `(B, H, W)`."""
    grid_hw = (int(edges.shape[2]), int(edges.shape[3]))
    has_edge, counted = patch_edges(labels, grid_hw, ignore_value=ignore_value)
    each = F.cross_entropy(edges.float(), has_edge.long(), reduction="none")
    return (each * counted).sum() / counted.sum().clamp(min=1)


def patch_edges(labels: Tensor, grid_hw: tuple[int, int], *, ignore_value: int) -> tuple[Tensor, Tensor]:
    """Of each patch, whether an edge pixel lies in it and whether any pixel counts: bool `(B, rows, columns)` each."""
    counted = labels != ignore_value
    edge = torch.zeros_like(counted)
    for axis in (1, 2):
        length = labels.shape[axis] - 1
        differs = labels.narrow(axis, 0, length) != labels.narrow(axis, 1, length)
        differs &= counted.narrow(axis, 0, length) & counted.narrow(axis, 1, length)
        edge.narrow(axis, 0, length).logical_or_(differs)
        edge.narrow(axis, 1, length).logical_or_(differs)
    return F.adaptive_max_pool2d(edge.float(), grid_hw) > 0, F.adaptive_max_pool2d(counted.float(), grid_hw) > 0
