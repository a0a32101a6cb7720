"""The edge head's loss, by hand."""

import math

import pytest
import torch

from edgeseg.training.edge_loss import edge_loss, patch_edges

# Patches of 2x2: class 1 begins in the third column, everything below is ignored.
LABELS = torch.tensor([[[0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1], [255] * 6, [255] * 6]])


def test_patch_has_an_edge_when_one_of_its_pixels_has_another_neighbour() -> None:
    has_edge, counted = patch_edges(LABELS, (2, 3), ignore_value=255)
    assert has_edge.tolist() == [[[True, True, False], [False, False, False]]]
    assert counted.tolist() == [[[True, True, True], [False, False, False]]]


def test_patch_is_part_of_an_edge_from_top_to_bottom_too() -> None:
    turned, _ = patch_edges(LABELS.transpose(1, 2), (3, 2), ignore_value=255)
    assert turned[0, :, 0].tolist() == [True, True, False]


def test_loss_is_the_mean_over_counted_patches() -> None:
    edges = torch.zeros(1, 2, 2, 3)
    edges[0, 1, 0, 0] = math.log(3)
    edges[0, :, 1] = torch.tensor([[-100.0], [100.0]])
    expected = (math.log(4 / 3) + 2 * math.log(2)) / 3
    assert float(edge_loss(edges, LABELS, ignore_value=255)) == pytest.approx(expected)


def test_loss_is_zero_when_everything_is_ignored() -> None:
    edges = torch.randn(1, 2, 2, 3, requires_grad=True)
    loss = edge_loss(edges, torch.full_like(LABELS, 255), ignore_value=255)
    loss.backward()
    assert float(loss.detach()) == 0
    assert not edges.grad.any()
