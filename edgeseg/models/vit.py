"""The plain vision transformer (Dosovitskiy et al., ICLR 2021): one encoder class for all networks that use it.

Names of modules and parameters are timm's, so weights in that naming fit as they are. Decisions:

- The position table belongs to the grid of the size that the encoder was built for. Another grid gets the table
  resized in the forward pass; while a graph is traced the resized table is a constant, so no Resize is in the graph.
- Attention is `F.scaled_dot_product_attention` in PyTorch. While a graph is traced it is written out as the MatMul,
  Softmax, MatMul that engines fuse, with the scale on the queries, which are fewer numbers than the products.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.errors import InputError
from edgeseg.models.token_reduction import KeepAll, LayerInput, ReductionPass, TokenLayout, TokenReduction


@dataclass(frozen=True)
class VitSize:
    """Measures of a ViT."""

    dim: int
    """Numbers per token."""
    heads: int
    layers: int = 12
    mlp_ratio: int = 4
    patch: int = 16
    """Side of a patch in pixels."""

    def __post_init__(self) -> None:
        if min(self.dim, self.heads, self.layers, self.mlp_ratio, self.patch) < 1 or self.dim % self.heads:
            raise InputError(f"a ViT's width is a multiple of its heads, all at least 1 | got {self}")


VIT_SIZES: dict[str, VitSize] = {"ti": VitSize(192, 3), "s": VitSize(384, 6), "b": VitSize(768, 12)}
"""[C table 3.B.1] and the base size of [Z]."""


@dataclass(frozen=True)
class EncoderOutput:
    """What the decoder gets."""

    tokens: tuple[Tensor, ...]
    """Patch tokens `(B, m, D)` of each collected layer, in the order asked for."""
    reduction: ReductionPass
    """Puts predictions of those tokens into the grid, and knows which tokens went where."""

    @property
    def grid_hw(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.reduction.layout.grid_hw


class PatchEmbedding(nn.Module):
    """Images `(B, 3, H, W)` -> `(B, H / patch * W / patch, D)`, row by row."""

    def __init__(self, patch: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, stride=patch)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head attention of queries `(B, m, D)` to themselves or to a context `(B, n, D)`."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, queries: Tensor, context: Tensor | None = None, key_mask: Tensor | None = None) -> Tensor:
        if context is None:
            query, key, value = self.qkv(queries).chunk(3, dim=-1)
        else:
            dim = int(queries.shape[-1])
            query = F.linear(queries, self.qkv.weight[:dim], self.qkv.bias[:dim])
            key, value = F.linear(context, self.qkv.weight[dim:], self.qkv.bias[dim:]).chunk(2, dim=-1)
        query, key, value = (split_heads(each, self.heads) for each in (query, key, value))
        mask = None if key_mask is None else key_mask[:, None, None, :]
        return self.proj(join_heads(attend(query, key, value, mask)))


class Mlp(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(tokens)))


class Block(nn.Module):
    """One pre-norm transformer layer; the queries are updated, a context (normed alike) is only attended to."""

    def __init__(self, dim: int, heads: int, mlp_ratio: int, norm_eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, mlp_ratio * dim)

    def forward(self, layer_input: LayerInput) -> Tensor:
        queries, context = layer_input.queries, layer_input.context
        normed = None if context is None else self.norm1(context)
        tokens = queries + self.attn(self.norm1(queries), normed, layer_input.key_mask)
        return tokens + self.mlp(self.norm2(tokens))


class VisionTransformer(nn.Module):
    """Normalised images `(B, 3, H, W)` -> tokens of the layers in `collect`; H and W are multiples of the patch.

    Args:
        size_hw: height and width in pixels whose grid the position table has.
        collect: layers (from 1) whose tokens the decoder reads.
        final_norm: whether those tokens go through the last norm, as Segmenter's; SegViT's do not.
        resize_mode: `bilinear` or `bicubic`, for the position table on another grid.
    """

    def __init__(
        self,
        size: VitSize,
        size_hw: Sequence[int],
        *,
        collect: Sequence[int] | None = None,
        final_norm: bool = True,
        norm_eps: float = 1e-6,
        resize_mode: str = "bilinear",
    ) -> None:
        super().__init__()
        self.size, self.resize_mode = size, resize_mode
        self.grid_hw = patch_grid(size_hw, size.patch)
        self.collect = tuple(collect) if collect is not None else (size.layers,)
        if not self.collect or not all(1 <= layer <= size.layers for layer in self.collect):
            raise InputError(f"layer out of range | got {list(self.collect)}, expected 1 to {size.layers}")
        self.patch_embed = PatchEmbedding(size.patch, size.dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size.dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid_hw[0] * self.grid_hw[1], size.dim))
        self.blocks = nn.ModuleList(
            Block(size.dim, size.heads, size.mlp_ratio, norm_eps) for _ in range(max(self.collect))
        )
        self.norm: nn.Module = nn.LayerNorm(size.dim, eps=norm_eps) if final_norm else nn.Identity()
        initialise_transformer(self)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.cls_token, std=0.02)

    def forward(self, images: Tensor, reduction: TokenReduction | None = None) -> EncoderOutput:
        grid_hw = patch_grid([int(side) for side in images.shape[-2:]], self.size.patch)
        run = (reduction or KeepAll()).begin(TokenLayout(grid_hw, prefix=1, layers=len(self.blocks)))
        patches = self.patch_embed(images)
        tokens = torch.cat((for_batch(self.cls_token, patches), patches), dim=1)
        tokens = tokens + self.position_table(grid_hw)
        collected: dict[int, Tensor] = {}
        for layer, block in enumerate(self.blocks, start=1):
            tokens = block(run.before_layer(layer, tokens))
            if layer in self.collect:
                collected[layer] = tokens
            tokens = run.after_layer(layer, tokens)
        finished = run.finish(collected)
        return EncoderOutput(tuple(self.norm(finished[layer]) for layer in self.collect), run)

    def position_table(self, grid_hw: tuple[int, int]) -> Tensor:
        """The table `(1, 1 + rows * columns, D)` for a grid; a constant while a graph is traced."""
        return table_on_grid(self.pos_embed, self.grid_hw, grid_hw, self.resize_mode)


def table_on_grid(
    parameter: Tensor, from_hw: tuple[int, int], to_hw: tuple[int, int], mode: str, prefix: int = 1
) -> Tensor:
    """A learnt table `(1, prefix + rows * columns, D)` for another grid; a constant while a graph is traced."""
    if from_hw == to_hw:
        return parameter
    if torch.jit.is_tracing():
        # A trace follows one thread: what another one computes is a constant to it.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(resize_position_table, parameter.detach(), from_hw, to_hw, mode, prefix).result()
    return resize_position_table(parameter, from_hw, to_hw, mode, prefix)


def resize_position_table(
    table: Tensor, from_hw: tuple[int, int], to_hw: tuple[int, int], mode: str, prefix: int = 1
) -> Tensor:
    """A position table `(1, prefix + rows * columns, D)` for another grid; the prefix's entries stay as they are."""
    first, grid = table[:, :prefix], table[:, prefix:]
    grid = grid.reshape(1, *from_hw, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=to_hw, mode=mode, align_corners=False)
    return torch.cat((first, grid.flatten(2).transpose(1, 2)), dim=1)


def patch_grid(size_hw: Sequence[int], patch: int) -> tuple[int, int]:
    """Rows and columns of patches of an image.

    Raises:
        InputError: a side is no multiple of the patch; the message names the nearest size that is.
    """
    if isinstance(size_hw, str) or len(size_hw) != 2 or not all(isinstance(side, int) for side in size_hw):
        raise InputError(f"a size is a height and a width in pixels | got {list(size_hw)!r}")
    height, width = size_hw
    if min(height, width) < patch or height % patch or width % patch:
        near = "x".join(str(max(patch, round(side / patch) * patch)) for side in (height, width))
        raise InputError(
            f"image size does not divide into patches | got {height}x{width}, expected multiples of {patch} | "
            f"use {near}"
        )
    return height // patch, width // patch


def for_batch(parameter: Tensor, like: Tensor) -> Tensor:
    """A parameter `(1, n, D)` once per image of `like`; itself for one image, so that a graph has no Expand."""
    batch = int(like.shape[0])
    return parameter if batch == 1 else parameter.expand(batch, -1, -1)


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """`(B, n, D)` -> `(B, heads, n, D / heads)`."""
    batch, count, dim = (int(side) for side in tokens.shape)
    return tokens.reshape(batch, count, heads, dim // heads).transpose(1, 2)


def join_heads(tokens: Tensor) -> Tensor:
    """`(B, heads, n, d)` -> `(B, n, heads * d)`."""
    batch, heads, count, dim = (int(side) for side in tokens.shape)
    return tokens.transpose(1, 2).reshape(batch, count, heads * dim)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention of `(B, heads, m, d)` to `(B, heads, n, d)`; `mask` bool, False is left out."""
    if torch.jit.is_tracing() and mask is None:
        similarity = (query * int(query.shape[-1]) ** -0.5) @ key.transpose(-2, -1)
        return similarity.softmax(dim=-1) @ value
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


@torch.no_grad()
def initialise_transformer(module: nn.Module) -> None:
    """Truncated normal weights (0.02) of every linear layer in `module`; biases 0; norms keep scale 1, shift 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
