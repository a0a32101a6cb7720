"""SegViT's decoder against the thesis's formulas, and the cascade."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.errors import InputError
from edgeseg.models.registry import build_network
from edgeseg.models.segvit import AtmDecoder
from edgeseg.models.vit import VitSize
from edgeseg.models.vit_segmenter import build_segvit

SIZE = VitSize(dim=24, heads=3, layers=4)


def randomised(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return module.eval()


def atm(classes: Tensor, memory: Tensor, layer: nn.Module) -> tuple[Tensor, Tensor]:
    """One ATM layer [Z eq. 4.1-4.3] on one image; also S `(C, m)`, averaged over heads."""
    cross = layer.multihead_attn
    query, key, value = cross.q(classes), cross.k(memory), cross.v(memory)
    width = query.shape[1] // cross.heads
    mixed, similarities = [], []
    for head in range(cross.heads):
        part = slice(head * width, (head + 1) * width)
        similarity = query[:, part] @ key[:, part].T / width**0.5
        similarities.append(similarity)
        mixed.append(torch.softmax(similarity, dim=1) @ value[:, part])
    classes = layer.norm2(classes + cross.proj(torch.cat(mixed, dim=1)))
    classes = layer.norm3(classes + layer.linear2(F.relu(layer.linear1(classes))))
    return classes, sum(similarities) / cross.heads


def cascade(decoder: AtmDecoder, features: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Masks before the sigmoid `(C, m)` and class tokens `(C, d)` after all ATMs, deepest layer first."""
    classes, masks = decoder.q.weight, torch.zeros(())
    for number, feature in enumerate(reversed(features), start=1):
        memory = getattr(decoder, f"proj_norm_{number}")(getattr(decoder, f"input_proj_{number}")(feature))
        for layer in getattr(decoder, f"decoder_{number}").layers:
            classes, similarity = atm(classes, memory, layer)
        masks = masks + similarity
    return masks, classes


@pytest.mark.parametrize("stages", [1, 3])
def test_score_is_presence_times_sigmoid_of_the_summed_similarities(stages: int) -> None:
    decoder = randomised(AtmDecoder(5, SIZE, stages))
    features = [torch.randn(2, 12, 24) for _ in range(stages)]
    with torch.no_grad():
        for image in range(2):
            masks, classes = cascade(decoder, [each[image] for each in features])
            present = decoder.class_embed(classes).softmax(dim=1)[:, 0]
            expected = (present[:, None] * masks.sigmoid()).T
            torch.testing.assert_close(decoder(features)[image], expected, atol=1e-4, rtol=0)


def test_presence_by_classes_mixes_the_masks_as_the_authors_code_does() -> None:
    decoder = randomised(AtmDecoder(5, SIZE, 2, presence="classes"))
    features = [torch.randn(1, 12, 24) for _ in range(2)]
    with torch.no_grad():
        masks, classes = cascade(decoder, [each[0] for each in features])
        shows = decoder.class_embed(classes).softmax(dim=1)[:, :5]
        expected = torch.einsum("qc,qm->mc", shows, masks.sigmoid())
        torch.testing.assert_close(decoder(features)[0], expected, atol=1e-4, rtol=0)


def test_self_attention_is_there_only_when_asked_for() -> None:
    names = AtmDecoder(5, SIZE, 1, self_attention=True).state_dict()
    assert "decoder_1.layers.0.self_attn.in_proj_weight" in names
    assert not any("self_attn" in name for name in AtmDecoder(5, SIZE, 1).state_dict())


def test_every_atm_of_a_cascade_can_be_trained() -> None:
    network = build_segvit(5, SIZE, [1, 3, 4], "binary", (32, 48))
    images = torch.randn(2, 3, 32, 48)
    outputs = network.training_outputs(images, torch.Generator())
    assert [tuple(each.shape) for each in outputs.masks] == [(2, 5, 2, 3)] * 3
    assert [tuple(each.shape) for each in outputs.presence] == [(2, 5, 2)] * 3
    torch.testing.assert_close(outputs.logits, network(images))


@pytest.mark.parametrize("cascade", [[8, 6], [6, 6], [], [0, 12], [6, 13]])
def test_cascade_that_does_not_rise_within_the_layers_is_refused(cascade: list[int]) -> None:
    with pytest.raises(InputError, match=r"a cascade rises .* such as \[12\], \[6, 12\]"):
        build_network("segvit_ti", 5, cascade=cascade)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cascade": "6,8,12"}, r"a list of layers, such as \[6, 8, 12\]"),
        ({"cascade": [6.0, 12.0]}, "a list of layers"),
        ({"presence": "maybe"}, r"unknown presence 'maybe' \| known: binary, classes"),
        ({"width": 0.5}, r"network segvit_ti has no option width \| known: cascade, presence, size_hw"),
    ],
)
def test_wrong_option_is_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_network("segvit_ti", 5, **options)
