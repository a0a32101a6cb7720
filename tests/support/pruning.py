"""Networks with pruning heads, and heads that say what is written down."""

import torch
from torch import Tensor

from edgeseg.models.dynamic_pruning import DynamicPruning
from edgeseg.models.pruning_heads import HeadPrediction, PruningHeads
from edgeseg.models.token_pruning import PlannedPruning
from edgeseg.models.token_reduction import TokenLayout
from edgeseg.models.vit import VitSize
from edgeseg.models.vit_segmenter import VitSegmenter, add_pruning_heads, build_segvit, build_setr

SMALL = VitSize(dim=24, heads=3, layers=4)
CLASSES = 3


def pruning_network(decoder: str, heads: str, size: VitSize = SMALL, layers: tuple[int, ...] = (2, 3)) -> VitSegmenter:
    torch.manual_seed(0)
    if decoder == "atm":
        network = build_segvit(CLASSES, size, [size.layers], "binary", (64, 64))
    else:
        network = build_setr(CLASSES, size, (64, 64))
    add_pruning_heads(network, CLASSES, heads, layers)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            # Convolutions sum over many channels; less noise keeps their logits where trained ones are.
            parameter.add_((0.05 if ".conv" in name else 0.2) * torch.randn_like(parameter))
            if "class_embed" in name:
                parameter.zero_()
    return network.eval()


class LiteralHeads(PruningHeads):
    """Says of each token what its first two numbers are: class and confidence."""

    def __init__(self) -> None:
        super().__init__(CLASSES, SMALL, "fcn", (1, 2), 4, beside_atm=False)

    def forward(self, layer: int, tokens: Tensor, mask: Tensor | None = None) -> HeadPrediction:
        classes, confidence = tokens[..., 0].long(), tokens[..., 1]
        scores = torch.nn.functional.one_hot(classes, CLASSES) * confidence.unsqueeze(-1)
        return HeadPrediction(scores, confidence, torch.logit(confidence), classes, None)


def sequence(said: list[tuple[int, float]]) -> Tensor:
    """A class token and patches; the third number of a patch is its place."""
    rows = [(0.0, 0.0, -1.0), *((float(label), sure, float(place)) for place, (label, sure) in enumerate(said))]
    return torch.tensor([rows])


def went_on(reduction: DynamicPruning | PlannedPruning, said: list[tuple[int, float]]) -> list[int]:
    """Places of the patches that go on after layer 1, in order."""
    run = reduction.begin(TokenLayout((1, len(said)), 1, 4))
    tokens = run.after_layer(1, sequence(said))
    assert run.places is not None
    assert tokens[0, 1:, 2].tolist() == run.places[0].tolist()
    return sorted(run.places[0].tolist())


#       place: 0          1          2          3          4          5          6          7
SAID = [(0, 0.99), (0, 0.97), (0, 0.96), (0, 0.60), (1, 0.98), (1, 0.50), (2, 0.95), (2, 0.94)]
