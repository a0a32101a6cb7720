"""Position tables of other grids than the network's."""

from math import isqrt

import torch
from torch import Tensor

from edgeseg.errors import InputError
from edgeseg.models.vit import VisionTransformer, resize_position_table


def fit_position_table(table: Tensor, encoder: VisionTransformer) -> tuple[Tensor, str | None]:
    """`table` `(1, n, D)` for the grid of `encoder`, and what was done to it, in words; None when it fits as it is.

    The table's grid is taken for a square, or else for the encoder's. A table without an entry for the class token
    gets a zero there, which is the same thing. A table that is no table of this width is given back.

    Raises:
        InputError: it is neither.
    """
    if table.ndim != 3 or table.shape[0] != 1 or table.shape[2] != encoder.size.dim:
        return table, None
    count, rows_columns = int(table.shape[1]), encoder.grid_hw
    grid_hw = _grid(count - 1, rows_columns)
    note = ""
    if grid_hw is None:
        grid_hw = _grid(count, rows_columns)
        table = torch.cat((torch.zeros_like(table[:, :1]), table), dim=1)
        note = "zero put in for the class token"
    if grid_hw is None:
        rows, columns = rows_columns
        raise InputError(
            f"the position table's grid is not known | got {count} entries, expected a square number, or the "
            f"{rows} x {columns} of the network | build it for the size that the weights are for, "
            "--set network.size_hw=[HEIGHT,WIDTH]"
        )
    if grid_hw != rows_columns:
        table = resize_position_table(table, grid_hw, rows_columns, encoder.resize_mode)
        resized = f"resized from {grid_hw[0]} x {grid_hw[1]} to {rows_columns[0]} x {rows_columns[1]} patches"
        note = f"{note}, {resized}" if note else resized
    return table, f"position table: {note} ({encoder.resize_mode})" if note else None


def _grid(count: int, expected: tuple[int, int]) -> tuple[int, int] | None:
    side = isqrt(max(count, 0))
    if side and side * side == count:
        return side, side
    return expected if expected[0] * expected[1] == count else None
