"""Which tokens go on: fixed-count selection by a score, gathering, putting back, and the auxiliary decoder.

In PyTorch and in graphs the same tokens are chosen: the `count` highest scores, the earlier token of two equal ones.
Counts follow from the plan alone, so every shape in a graph is fixed; there is no NonZero and no loop.

TensorRT's TopK takes K up to 3840. How a graph ranks more tokens is decided by `ranking`: it ranks those that stop
when they are fewer, and takes either side in several bites when both are too many. The choice is exact either way.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgeseg.models.vit import initialise_transformer
from edgeseg.token_plan import TOPK_LIMIT


class AuxiliaryDecoder(nn.Module):
    """Logits of tokens after any layer: a 1x1 convolution, one for all layers [C 3.2.2] or one per layer [Z 5].

    Args:
        layers: those with a decoder of their own; none for one that all share.
    """

    def __init__(self, classes: int, dim: int, layers: Sequence[int] = ()) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({str(layer) if layer else "all": nn.Linear(dim, classes) for layer in layers or [0]})
        initialise_transformer(self)

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers that have a decoder; none when all share one."""
        return () if "all" in self.heads else tuple(int(layer) for layer in self.heads)

    def forward(self, tokens: Tensor, layer: int) -> Tensor:
        """Tokens `(B, n, D)` after `layer` -> logits `(B, n, C)`.

        Raises:
            KeyError: each layer has a decoder of its own, and this one has none.
        """
        return self.heads["all" if "all" in self.heads else str(layer)](tokens)


def entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of the softmax of `(B, n, C)` -> `(B, n)`."""
    log_probability = logits.log_softmax(dim=-1)
    return -(log_probability.exp() * log_probability).sum(dim=-1)


def select_highest(scores: Tensor, count: int) -> Tensor:
    """Indices int64 `(B, count)` of the `count` highest of `(B, n)` scores, in no particular order."""
    if not torch.jit.is_tracing():
        return scores.sort(dim=1, descending=True, stable=True).indices[:, :count]
    tokens = int(scores.shape[1])
    way = ranking(tokens, count)
    if way == "highest":
        return scores.topk(count, dim=1, sorted=False).indices
    if way == "lowest":
        return _others(tokens, _lowest(scores, tokens - count))
    return _in_bites(scores, count)


def ranking(tokens: int, count: int) -> str:
    """How a graph chooses `count` of `tokens`: by one TopK of the `highest`, of the `lowest` (the others go on), or,
    where both are too many for TensorRT, of the smaller side `in bites`."""
    if count <= TOPK_LIMIT:
        return "highest"
    return "lowest" if tokens - count <= TOPK_LIMIT else "in bites"


def take(tokens: Tensor, indices: Tensor) -> Tensor:
    """Rows `indices` `(B, k)` of `(B, n, D)` -> `(B, k, D)`."""
    if torch.jit.is_tracing() and int(tokens.shape[0]) == 1:
        # One Gather of whole rows.
        return tokens.index_select(1, indices[0])
    return tokens.gather(1, indices.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def put(tokens: Tensor, indices: Tensor, rows: Tensor) -> Tensor:
    """`(B, n, D)` with `rows` `(B, k, D)` at `indices` `(B, k)`; `tokens` stays as it is."""
    if torch.jit.is_tracing() and int(tokens.shape[0]) == 1:
        # One Gather of whole rows out of both: where row i of the result lies is worked out on n numbers.
        count, total = int(indices.shape[1]), int(tokens.shape[1])
        sources = (torch.arange(total) + count).scatter(0, indices[0], torch.arange(count))
        return torch.cat((rows, tokens), dim=1).index_select(1, sources)
    return tokens.scatter(1, indices.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]), rows.to(tokens.dtype))


def after_prefix(indices: Tensor, prefix: int) -> Tensor:
    """Indices of patches as indices of a sequence that starts with `prefix` tokens, which come first in the result."""
    if prefix == 0:
        return indices
    first = torch.arange(prefix, device=indices.device).expand(int(indices.shape[0]), -1)
    return torch.cat((first, indices + prefix), dim=1)


def _lowest(scores: Tensor, count: int) -> Tensor:
    # Of equal scores the later one counts as lower, so that the earlier goes on: TopK prefers the earlier.
    last = int(scores.shape[1]) - 1
    return last - scores.flip(1).topk(count, dim=1, largest=False, sorted=False).indices


def _others(tokens: int, taken: Tensor) -> Tensor:
    """The indices below `tokens` that are not in `taken` `(B, k)`, rising: `(B, tokens - k)`."""
    batch, count = (int(side) for side in taken.shape)
    rest = tokens - count
    everything = torch.arange(tokens, device=taken.device).expand(batch, -1)
    others = torch.ones_like(everything).scatter(1, taken, torch.zeros_like(taken))
    place = others * (others.cumsum(1) - 1) + (1 - others) * (rest + (1 - others).cumsum(1) - 1)
    return torch.zeros_like(everything).scatter(1, place, everything)[:, :rest]


def _in_bites(scores: Tensor, count: int) -> Tensor:
    """As `select_highest`, by several TopK of at most `TOPK_LIMIT` over what the ones before left."""
    tokens = int(scores.shape[1])
    left = torch.arange(tokens, device=scores.device).expand(int(scores.shape[0]), -1)
    highest = count <= tokens - count
    target, bites, done = (count if highest else tokens - count), [], 0
    while done < target:
        bite = min(TOPK_LIMIT, target - done)
        taken = scores.topk(bite, dim=1, sorted=False).indices if highest else _lowest(scores, bite)
        others = _others(tokens - done, taken)
        bites.append(left.gather(1, taken))
        left, scores, done = left.gather(1, others), scores.gather(1, others), done + bite
    return torch.cat(bites, dim=1) if highest else left
