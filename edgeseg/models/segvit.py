"""SegViT's decoder: attention to mask (ATM), single or in a cascade over several layers [Z 4.2.1].

The similarity S of class tokens to image tokens, averaged over heads, is the class's mask before the sigmoid. A
cascade starts at the deepest layer, as the authors' code does; each ATM's class tokens are the next one's queries and
S is summed. Names of parameters are those of the authors' `ATMHead`. No self-attention among class tokens, as the
thesis has it; the first version of their code had it, so it can be asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.errors import InputError
from edgeseg.models.vit import VitSize, for_batch, initialise_transformer, join_heads, split_heads

PRESENCES = ("binary", "classes")


@dataclass(frozen=True)
class AtmStage:
    """What one ATM of a cascade predicts."""

    masks: Tensor
    """`(B, C, m)`: S summed up to this ATM, before the sigmoid."""
    presence: Tensor
    """`(B, C, 2)`: logits of {present, absent} per class token; `(B, C, C + 1)` with presence = `classes`."""


class CrossAttention(nn.Module):
    """Class tokens `(B, C, d)` attend to image tokens `(B, m, d)`; also gives S `(B, C, m)`, the mean over heads."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, classes: Tensor, memory: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        query = split_heads(self.q(classes), self.heads)
        key, value = split_heads(self.k(memory), self.heads), split_heads(self.v(memory), self.heads)
        similarity = (query * int(query.shape[-1]) ** -0.5) @ key.transpose(-2, -1)
        seen = similarity if mask is None else similarity.masked_fill(~mask[:, None, None, :], float("-inf"))
        return self.proj(join_heads(seen.softmax(dim=-1) @ value)), similarity.mean(dim=1)


class AtmLayer(nn.Module):
    """Cross-attention and a feed-forward network on class tokens, a norm behind each."""

    def __init__(self, dim: int, heads: int, self_attention: bool) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(dim, heads, batch_first=True) if self_attention else None
        self.norm1 = nn.LayerNorm(dim) if self_attention else None
        self.multihead_attn = CrossAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, 4 * dim)
        self.linear2 = nn.Linear(4 * dim, dim)
        self.norm3 = nn.LayerNorm(dim)

    def forward(self, classes: Tensor, memory: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if self.self_attn is not None and self.norm1 is not None:
            classes = self.norm1(classes + self.self_attn(classes, classes, classes, need_weights=False)[0])
        update, similarity = self.multihead_attn(classes, memory, mask)
        classes = self.norm2(classes + update)
        update = self.linear2(F.relu(self.linear1(classes)))
        return self.norm3(classes + update), similarity


class AtmModule(nn.Module):
    """The layers of one ATM; S is the last layer's."""

    def __init__(self, dim: int, heads: int, layers: int, self_attention: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(AtmLayer(dim, heads, self_attention) for _ in range(layers))

    def forward(self, classes: Tensor, memory: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        similarity = memory
        for layer in self.layers:
            classes, similarity = layer(classes, memory, mask)
        return classes, similarity


class AtmDecoder(nn.Module):
    """`[(B, m, D)]` per layer, shallow to deep -> scores `(B, m, C)`: presence times sigmoid(S), in [0, 1].

    Args:
        stages: ATMs, one per layer read.
        presence: `binary`: each class token says whether its class is present [Z eq. 4.4], times its own mask;
            `classes`: it says which class it shows, and masks are mixed by that, as the authors' code does.
        projected: whether tokens are already as wide as class tokens, half of the encoder's, and normed.
    """

    def __init__(
        self,
        classes: int,
        size: VitSize,
        stages: int,
        *,
        layers: int = 3,
        presence: str = "binary",
        self_attention: bool = False,
        projected: bool = False,
    ) -> None:
        super().__init__()
        if presence not in PRESENCES:
            raise InputError(f"unknown presence {presence!r} | known: {', '.join(PRESENCES)}")
        self.stages, self.presence = stages, presence
        dim = size.dim // 2
        for number in range(1, stages + 1):
            self.add_module(f"input_proj_{number}", nn.Identity() if projected else nn.Linear(size.dim, dim))
            self.add_module(f"proj_norm_{number}", nn.Identity() if projected else nn.LayerNorm(dim))
            self.add_module(f"decoder_{number}", AtmModule(dim, size.heads, layers, self_attention))
        self.q = nn.Embedding(classes, dim)
        self.class_embed = nn.Linear(dim, 2 if presence == "binary" else classes + 1)
        initialise_transformer(self)

    def predictions(self, features: Sequence[Tensor], mask: Tensor | None = None) -> list[AtmStage]:
        """What each ATM predicts, in the order of the cascade: deepest layer first.

        Class tokens see no token where `mask` bool `(B, m)` is False.
        """
        tokens = for_batch(self.q.weight.unsqueeze(0), features[0])
        stages: list[AtmStage] = []
        for number, feature in enumerate(reversed(features), start=1):
            projected = self.get_submodule(f"input_proj_{number}")(feature)
            memory = self.get_submodule(f"proj_norm_{number}")(projected)
            tokens, masks = self.get_submodule(f"decoder_{number}")(tokens, memory, mask)
            if stages:
                masks = masks + stages[-1].masks
            stages.append(AtmStage(masks, self.class_embed(tokens)))
        return stages

    def scores(self, stage: AtmStage) -> Tensor:
        """Scores `(B, m, C)` of one ATM's prediction."""
        probability, masks = stage.presence.softmax(dim=-1), torch.sigmoid(stage.masks)
        if self.presence == "binary":
            return (probability[..., :1] * masks).transpose(1, 2)
        return masks.transpose(1, 2) @ probability[..., :-1]

    def forward(self, features: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        return self.scores(self.predictions(features, mask)[-1])
