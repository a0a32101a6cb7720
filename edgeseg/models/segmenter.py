"""Segmenter's decoders (Strudel et al., ICCV 2021): per-token logits from the tokens of the last layer.

Names of parameters are those of the official repository's `decoder.*`. Decoders work on any subset of the tokens.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgeseg.models.token_reduction import LayerInput
from edgeseg.models.vit import Block, VitSize, for_batch, initialise_transformer


class LinearDecoder(nn.Module):
    """One linear layer per token: `[(B, m, D)]` -> logits `(B, m, C)`."""

    def __init__(self, classes: int, dim: int) -> None:
        super().__init__()
        self.head = nn.Linear(dim, classes)
        initialise_transformer(self)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        return self.head(features[-1])


class MaskTransformer(nn.Module):
    """Class embeddings run through two transformer layers beside the tokens; logits `(B, m, C)` are their products.

    Both sides are projected and scaled to length 1, and the products of a token normed over the classes.
    """

    def __init__(self, classes: int, size: VitSize, layers: int = 2, norm_eps: float = 1e-5) -> None:
        super().__init__()
        self.classes = classes
        dim = size.dim
        self.cls_emb = nn.Parameter(torch.zeros(1, classes, dim))
        self.proj_dec = nn.Linear(dim, dim)
        self.blocks = nn.ModuleList(Block(dim, size.heads, size.mlp_ratio, norm_eps) for _ in range(layers))
        self.decoder_norm = nn.LayerNorm(dim, eps=norm_eps)
        self.proj_patch = nn.Parameter(dim**-0.5 * torch.randn(dim, dim))
        self.proj_classes = nn.Parameter(dim**-0.5 * torch.randn(dim, dim))
        self.mask_norm = nn.LayerNorm(classes, eps=norm_eps)
        initialise_transformer(self)
        nn.init.trunc_normal_(self.cls_emb, std=0.02)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        patches = self.proj_dec(features[-1])
        tokens = torch.cat((patches, for_batch(self.cls_emb, patches)), dim=1)
        for block in self.blocks:
            tokens = block(LayerInput(tokens))
        tokens = self.decoder_norm(tokens)
        patches, classes = tokens[:, : -self.classes], tokens[:, -self.classes :]
        patches = _unit(patches @ self.proj_patch)
        classes = _unit(classes @ self.proj_classes)
        return self.mask_norm(patches @ classes.transpose(1, 2))


def _unit(vectors: Tensor) -> Tensor:
    return vectors / vectors.norm(dim=-1, keepdim=True).clamp(min=1e-12)
