"""SegViT-Shrunk: a plain ViT that goes on with a quarter of its tokens, and finds back to all of them [Z 4.2.2].

- Query down-sampling (QD): the layer behind `layer` has the 2x2-nearest subset of the tokens as queries and all of
  them as keys and values, so its output, and all that follows, is a quarter as long; the layer's weights stay its own.
- Query up-sampling (QU): learnt queries, one per patch, read the tokens from before QD and then those of the last
  layer, by three decoder layers each, as wide as the class tokens: the authors' token pyramid. The thesis gives QU in
  words only; this structure is the one whose cost is the table's.
- Edged query down-sampling (EQD): tokens whose patch shows an edge stay beside the subset. An MLP on the embedded
  patches tells them. While training, those above the threshold stay, a different number in every image; otherwise
  (**decided**, for engines) a fixed share of the patches, the most edge-like ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.errors import InputError
from edgeseg.models.token_reduction import LayerInput, ReductionPass, TokenLayout
from edgeseg.models.token_selection import select_highest, take
from edgeseg.models.training_outputs import TrainingOutputs
from edgeseg.models.vit import Attention, Mlp, VitSize, for_batch, initialise_transformer, table_on_grid

SHRINKS = ("qd", "qd+qu", "eqd")
"""Query down-sampling alone; with query up-sampling; the latter with edge tokens."""
EDGE_THRESHOLD = 0.7
"""Probability of an edge from which a token stays, while training [Z 4.2.2]."""
EDGE_SHARE = 0.25
"""Of all patches: how many edge tokens stay beside the 2x2 subset, otherwise."""
SHRINK_LAYER = 6
"""Behind this layer of 12 tokens become fewer [Z table 4.7]; 8 of 24."""
UP_LAYERS = 3


@dataclass(frozen=True)
class Shrinking:
    """How a network shrinks."""

    shrink: str
    """One of `SHRINKS`."""
    layer: int = SHRINK_LAYER
    """Layers before the one that down-samples; 0 is right behind the patch embedding."""
    edge_share: float = EDGE_SHARE
    """See `EDGE_SHARE`; EQD only."""

    def __post_init__(self) -> None:
        if self.shrink not in SHRINKS:
            raise InputError(f"unknown shrink {self.shrink!r} | known: {', '.join(SHRINKS)}")
        number = isinstance(self.edge_share, (int, float)) and not isinstance(self.edge_share, bool)
        if not number or not 0 < self.edge_share <= 0.75:
            raise InputError(
                f"edge_share out of range | got {self.edge_share!r}, expected more than 0 and at most 0.75, which is "
                "every patch beside the 2x2 subset"
            )

    @property
    def upsamples(self) -> bool:
        """Whether QU gives a token per patch in the end."""
        return self.shrink != "qd"


class UpsamplingLayer(nn.Module):
    """Queries `(B, m, d)` attend to each other and to memory `(B, n, d)`; then an MLP; a norm behind each."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.self_attn = Attention(dim, heads)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, 4 * dim)
        self.norm3 = nn.LayerNorm(dim)

    def forward(self, queries: Tensor, memory: Tensor, memory_mask: Tensor | None = None) -> Tensor:
        queries = self.norm1(queries + self.self_attn(queries))
        queries = self.norm2(queries + self.cross_attn(queries, memory, memory_mask))
        return self.norm3(queries + self.mlp(queries))


class QueryUpsampling(nn.Module):
    """Tokens of any number and places, `(B, n, D)` each -> one token `(B, patches, D / 2)` per place in the grid.

    Args:
        grid_hw: rows and columns of patches that the learnt queries are for; another grid gets them resized.
        memories: sequences that are read, one after the other.
    """

    def __init__(self, size: VitSize, grid_hw: tuple[int, int], memories: int = 2, layers: int = UP_LAYERS) -> None:
        super().__init__()
        self.grid_hw = grid_hw
        dim = size.dim // 2
        self.queries = nn.Parameter(torch.zeros(1, grid_hw[0] * grid_hw[1], dim))
        self.input_proj = nn.ModuleList(nn.Linear(size.dim, dim) for _ in range(memories))
        self.proj_norm = nn.ModuleList(nn.LayerNorm(dim) for _ in range(memories))
        self.stages = nn.ModuleList(
            nn.ModuleList(UpsamplingLayer(dim, size.heads) for _ in range(layers)) for _ in range(memories)
        )
        initialise_transformer(self)
        nn.init.trunc_normal_(self.queries, std=0.02)

    def forward(self, memories: Sequence[Tensor], masks: Sequence[Tensor | None], grid_hw: tuple[int, int]) -> Tensor:
        queries = for_batch(table_on_grid(self.queries, self.grid_hw, grid_hw, "bilinear", prefix=0), memories[0])
        stages = zip(self.input_proj, self.proj_norm, self.stages, memories, masks, strict=True)
        for projection, norm, layers, memory, mask in stages:
            memory = norm(projection(memory))
            for layer in layers:  # type: ignore[attr-defined]
                queries = layer(queries, memory, mask)
        return queries


class EdgeHead(nn.Module):
    """Embedded patches `(B, n, D)` -> logits `(B, n, 2)` of {no edge, edge}: three linear layers, D, D / 2, 2."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, dim)
        self.fc2 = nn.Linear(dim, dim // 2)
        self.fc3 = nn.Linear(dim // 2, 2)
        initialise_transformer(self)

    def forward(self, patches: Tensor) -> Tensor:
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(patches)))))


class Shrunk(nn.Module):
    """Down-samples the queries behind a layer; a `TokenReduction` with weights of its own.

    Args:
        grid_hw: rows and columns of patches that the network is built for.
        layers: of the encoder.

    Raises:
        InputError: there is no layer behind the one after which the network shrinks.
    """

    def __init__(self, size: VitSize, grid_hw: tuple[int, int], shrinking: Shrinking, layers: int) -> None:
        super().__init__()
        if type(shrinking.layer) is not int or not 0 <= shrinking.layer < layers:
            raise InputError(f"shrink_layer out of range | got {shrinking.layer!r}, expected 0 to {layers - 1}")
        self.layer, self.edge_share = shrinking.layer, shrinking.edge_share
        self.upsampling = QueryUpsampling(size, grid_hw) if shrinking.upsamples else None
        self.edge_head = EdgeHead(size.dim) if shrinking.shrink == "eqd" else None

    def begin(self, layout: TokenLayout) -> "ShrunkPass":
        """A fresh pass over tokens of `layout`."""
        return ShrunkPass(self, layout)


class ShrunkPass(ReductionPass):
    """One forward pass of a network that shrinks."""

    def __init__(self, shrunk: Shrunk, layout: TokenLayout) -> None:
        super().__init__(layout)
        self._shrunk = shrunk
        self.edges: Tensor | None = None
        """`(B, patches, 2)`: logits of {no edge, edge}; EQD only."""
        self._fine: Tensor | None = None
        self._key_mask: Tensor | None = None

    def before_layer(self, layer: int, tokens: Tensor) -> LayerInput:
        """The subset as queries and all tokens as context, in the layer that down-samples."""
        patches = tokens[:, self.layout.prefix :]
        if layer == 1 and self._shrunk.edge_head is not None:
            self.edges = self._shrunk.edge_head(patches)
        if layer != self._shrunk.layer + 1:
            return LayerInput(tokens, key_mask=self._key_mask)
        self._fine = patches
        kept = [tokens[:, : self.layout.prefix], self._subset(patches)]
        if self.edges is not None:
            kept.append(self._edge_tokens(patches, self.edges))
        return LayerInput(torch.cat(kept, dim=1), context=tokens)

    def finish(self, collected: dict[int, Tensor]) -> dict[int, Tensor]:
        """With QU one sequence over the grid, for the deepest layer; else the subset of every layer."""
        patches = super().finish(collected)
        if self._shrunk.upsampling is None:
            return {
                layer: self._subset(tokens) if layer <= self._shrunk.layer else tokens
                for layer, tokens in patches.items()
            }
        assert self._fine is not None
        last = max(patches)
        mask = None if self._key_mask is None else self._key_mask[:, self.layout.prefix :]
        return {last: self._shrunk.upsampling((self._fine, patches[last]), (None, mask), self.layout.grid_hw)}

    def place(self, logits: Tensor) -> Tensor:
        """Without QU: bilinear from the coarse grid, as if it were a smaller image, to the fine one."""
        if self._shrunk.upsampling is not None:
            return logits
        coarse_hw = tuple(-(-side // 2) for side in self.layout.grid_hw)
        coarse = logits.transpose(1, 2).reshape(int(logits.shape[0]), int(logits.shape[2]), *coarse_hw)
        fine = F.interpolate(coarse, size=self.layout.grid_hw, mode="bilinear", align_corners=False)
        return fine.flatten(2).transpose(1, 2)

    def place_masks(self, masks: Tensor) -> Tensor:
        """As `place`."""
        return self.place(masks)

    def add_outputs(self, outputs: TrainingOutputs) -> TrainingOutputs:
        """With the edges that the head sees."""
        if self.edges is None:
            return outputs
        return replace(outputs, edges=self.edges.transpose(1, 2).unflatten(2, self.layout.grid_hw))

    def _subset(self, patches: Tensor) -> Tensor:
        """Of `(B, patches, D)`, the upper left one of every 2x2, row by row."""
        batch, _, dim = (int(side) for side in patches.shape)
        return patches.reshape(batch, *self.layout.grid_hw, dim)[:, ::2, ::2].reshape(batch, -1, dim)

    def _edge_tokens(self, patches: Tensor, edges: Tensor) -> Tensor:
        """Tokens on edges `(B, E, D)` beside the subset; fills the key mask where images have different numbers."""
        edge = edges.softmax(dim=-1)[..., 1]
        beside = self._beside_subset(edge)
        if not self._shrunk.training:
            wanted = int(self._shrunk.edge_share * self.layout.patches)
            count = min(wanted, self.layout.patches - self._subset_size)
            return take(patches, select_highest(edge * beside - (1 - beside), count))
        shown = (edge > EDGE_THRESHOLD) & (beside > 0)
        count = int(shown.sum(1).max())
        order = torch.where(shown, edge, -1.0).topk(count, dim=1).indices
        always = shown.new_ones(len(shown), self.layout.prefix + self._subset_size)
        self._key_mask = torch.cat((always, shown.gather(1, order)), dim=1)
        return take(patches, order)

    @property
    def _subset_size(self) -> int:
        rows, columns = self.layout.grid_hw
        return -(-rows // 2) * -(-columns // 2)

    def _beside_subset(self, like: Tensor) -> Tensor:
        """`(1, patches)` of 1 for patches outside the 2x2 subset, else 0."""
        # Made by numpy, so that it is a constant of a graph.
        beside = np.ones(self.layout.grid_hw, np.float32)
        beside[::2, ::2] = 0
        return torch.from_numpy(beside.reshape(1, -1)).to(like)
