"""Pausing against a slow reference that handles tokens one by one, early exit, and the randomised training."""

import copy
import math

import pytest
import torch
from torch import Tensor

from edgeseg.errors import InputError
from edgeseg.models.pausing import Pausing, PausingPass, RandomisedPausing, auxiliary_of
from edgeseg.models.reductions import add_auxiliary_decoder, build_reduction
from edgeseg.models.registry import build_network
from edgeseg.models.token_reduction import LayerInput
from edgeseg.models.vit import VitSize
from edgeseg.models.vit_segmenter import VitSegmenter, build_segmenter, build_segvit
from edgeseg.token_plan import PUBLISHED_PLANS, TokenPlan

SMALL = VitSize(dim=24, heads=3, layers=12)
CLASSES = 5


def network(decoder: str = "linear") -> VitSegmenter:
    torch.manual_seed(0)
    made = build_segmenter(CLASSES, SMALL, decoder, (64, 80))
    add_auxiliary_decoder(made, CLASSES)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made.eval()


def paused(plain: VitSegmenter, method: str, plan: TokenPlan) -> VitSegmenter:
    changed = copy.copy(plain)
    changed.reduction = build_reduction(plain, method, plan)
    return changed


def entropy_of(logits: Tensor) -> float:
    weights = [math.exp(float(value) - float(logits.max())) for value in logits]
    return -sum(each / sum(weights) * math.log(each / sum(weights)) for each in weights if each > 0)


@torch.no_grad()
def reference(plain: VitSegmenter, image: Tensor, plan: TokenPlan, early_exit: bool) -> Tensor:
    """Logits `(tokens, C)` of one image: a dictionary of tokens by place, no top-k, no gather, no scatter."""
    encoder, auxiliary = plain.encoder, auxiliary_of(plain)
    start = torch.cat((encoder.cls_token, encoder.patch_embed(image)), 1) + encoder.pos_embed
    class_token, running = start[0, 0], {place: start[0, 1 + place] for place in range(start.shape[1] - 1)}
    stopped: dict[int, Tensor] = {}
    exited: dict[int, Tensor] = {}
    cuts = dict(plan.cuts)
    for layer, block in enumerate(encoder.blocks, start=1):
        places = sorted(running)
        out = block(LayerInput(torch.stack([class_token, *(running[place] for place in places)])[None]))[0]
        class_token, running = out[0], {place: out[1 + number] for number, place in enumerate(places)}
        if layer in cuts:
            sure = sorted(running, key=lambda place: entropy_of(auxiliary(running[place], layer)))
            for place in sure[: int(cuts[layer] * len(running))]:
                exited[place] = auxiliary(running[place], layer)
                stopped[place] = running.pop(place)
    seen = running if early_exit else {**running, **stopped}
    places = sorted(seen)
    logits = plain.decoder([encoder.norm(torch.stack([seen[place] for place in places]))[None]])[0]
    placed = {**(exited if early_exit else {}), **dict(zip(places, logits, strict=True))}
    return torch.stack([placed[place] for place in sorted(placed)])


@pytest.mark.parametrize("plan", PUBLISHED_PLANS, ids=str)
@pytest.mark.parametrize("method", ["pause", "early-exit"])
def test_logits_equal_a_token_by_token_reference(plan: TokenPlan, method: str) -> None:
    plain, image = network(), torch.randn(1, 3, 64, 80)
    expected = reference(plain, image, plan, method == "early-exit")
    with torch.no_grad():
        got = paused(plain, method, plan)(image)
    torch.testing.assert_close(got[0].flatten(1).T, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("method", ["pause", "early-exit"])
def test_mask_decoder_sees_what_the_reference_says(method: str) -> None:
    plain, image, plan = network("mask"), torch.randn(1, 3, 64, 80), TokenPlan.parse("3:0.4,5:0.4")
    expected = reference(plain, image, plan, method == "early-exit")
    with torch.no_grad():
        got = paused(plain, method, plan)(image)
    torch.testing.assert_close(got[0].flatten(1).T, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("method", ["pause", "pause-random", "early-exit"])
def test_images_of_a_batch_do_not_depend_on_each_other(method: str) -> None:
    changed, images = paused(network(), method, TokenPlan.parse("3:0.4,5:0.4")), torch.randn(3, 3, 64, 80)
    with torch.no_grad():
        together = changed(images)
        torch.testing.assert_close(together[1:2], changed(images[1:2]), atol=1e-5, rtol=1e-4)


def test_paused_tokens_are_decoded_as_they_stopped_and_pauses_are_told() -> None:
    plain, image = network(), torch.randn(1, 3, 64, 80)
    with torch.no_grad():
        encoded = plain.encoder(image, Pausing(TokenPlan.parse("2:0.5"), auxiliary_of(plain)))
    (pause,) = encoded.reduction.pauses
    assert (pause.layer, pause.tokens.shape, pause.kept.shape) == (2, (1, 21, 24), (1, 10))
    stopped = next(place for place in range(20) if place not in pause.kept[0].tolist())
    torch.testing.assert_close(encoded.tokens[0][0, stopped], plain.encoder.norm(pause.tokens[0, 1 + stopped]))


@pytest.mark.parametrize(("plan", "same"), [("2:0.5", 1), ("3:0.5", 2)])
def test_cascade_reads_every_layer_at_its_places_when_tokens_paused_before(plan: str, same: int) -> None:
    torch.manual_seed(0)
    cascade = build_segvit(CLASSES, VitSize(dim=24, heads=3, layers=4), (1, 3, 4), "binary", (64, 64)).eval()
    add_auxiliary_decoder(cascade, CLASSES)
    image = torch.randn(1, 3, 64, 64)
    whole = cascade.encoder(image)
    for early_exit, count in ((False, 16), (True, 8)):
        reduced = cascade.encoder(image, Pausing(TokenPlan.parse(plan), auxiliary_of(cascade), early_exit=early_exit))
        assert [tokens.shape[1] for tokens in reduced.tokens] == [count] * 3
        places = reduced.reduction.pauses[0].kept[0] if early_exit else torch.arange(16)
        # Up to the pause nothing differs, so these layers show whether the places are right.
        for got, expected in list(zip(reduced.tokens, whole.tokens, strict=True))[:same]:
            torch.testing.assert_close(got[0], expected[0, places])


def test_early_exit_beside_an_atm_is_refused_and_pausing_is_not() -> None:
    beside_atm = build_segvit(CLASSES, SMALL, None, "binary", (64, 80)).eval()
    add_auxiliary_decoder(beside_atm, CLASSES)
    plan = TokenPlan.parse("3:0.4")
    with pytest.raises(InputError, match=r"early exit is for decoders that give logits.* got an ATM .* use pause"):
        build_reduction(beside_atm, "early-exit", plan)
    assert paused(beside_atm, "pause", plan)(torch.randn(1, 3, 64, 80)).shape == (1, CLASSES, 4, 5)


def test_random_places_are_the_same_for_every_image_without_a_generator() -> None:
    plain = network()
    pausing = build_reduction(plain, "pause-random", TokenPlan.parse("3:0.4"))
    with torch.no_grad():
        kept = [plain.encoder(torch.randn(1, 3, 64, 80), pausing).reduction.pauses[0].kept for _ in range(2)]
    assert torch.equal(kept[0], kept[1])
    assert kept[0].shape == (1, 12)


def test_drawing_by_lot_needs_no_auxiliary_decoder() -> None:
    plan, images = TokenPlan.parse("3:0.4,5:0.4"), torch.randn(2, 3, 64, 80)
    never_trained_to_pause = build_segmenter(CLASSES, SMALL, "linear", (64, 80)).eval()
    never_trained_to_pause.load_state_dict(network().state_dict(), strict=False)
    torch.testing.assert_close(
        paused(never_trained_to_pause, "pause-random", plan)(images),
        paused(network(), "pause-random", plan)(images),
        rtol=0,
        atol=0,
    )


def test_drawing_by_lot_goes_by_any_layer_where_the_auxiliary_decoders_are_after_some() -> None:
    plain = build_segmenter(CLASSES, SMALL, "linear", (64, 80)).eval()
    add_auxiliary_decoder(plain, CLASSES, (6, 8))
    logits = paused(plain, "pause-random", TokenPlan.parse("3:0.4"))(torch.randn(1, 3, 64, 80))
    assert logits.shape == (1, CLASSES, 4, 5)


def test_training_draws_layers_and_proportions_within_their_ranges() -> None:
    seen = set()
    method = RandomisedPausing(network(), (3, 4, 5), (0.2, 0.8), "entropy")
    begin = Pausing.begin

    def watched(self: Pausing, layout: object) -> PausingPass:
        seen.add(self.plan.cuts[0])
        return begin(self, layout)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pausing, "begin", watched)
        for seed in range(30):
            method.training_outputs(torch.randn(1, 3, 64, 80), torch.Generator().manual_seed(seed))
    assert {layer for layer, _ in seen} == {3, 4, 5}
    shares = [share for _, share in seen]
    assert 0.2 <= min(shares) < 0.3
    assert 0.7 < max(shares) <= 0.8
    assert len({share for _, share in seen}) == 30


@pytest.mark.parametrize("criterion", ["entropy", "random"])
def test_training_reaches_every_weight_and_repeats_itself(criterion: str) -> None:
    plain, images = network().train(), torch.randn(2, 3, 64, 80)
    method = RandomisedPausing(plain, (3,), (0.5, 0.5), criterion)
    outputs = method.training_outputs(images, torch.Generator().manual_seed(1))
    again = method.training_outputs(images, torch.Generator().manual_seed(1))
    torch.testing.assert_close(outputs.logits, again.logits, rtol=0, atol=0)
    assert outputs.logits.shape == outputs.auxiliary[0].shape == (2, CLASSES, 4, 5)
    (outputs.logits.square().sum() + outputs.auxiliary[0].square().sum()).backward()
    assert [name for name, each in plain.named_parameters() if each.grad is None] == []


def test_what_cannot_pause_is_refused() -> None:
    plan = TokenPlan.parse("3:0.4")
    without = build_segmenter(CLASSES, SMALL, "linear", (64, 80))
    with pytest.raises(InputError, match=r"no auxiliary decoder.* \[pausing\]"):
        build_reduction(without, "pause", plan)
    with pytest.raises(InputError, match=r"for networks on a plain ViT \| got SwiftNet"):
        build_reduction(build_network("swiftnet_r18", 3, width=0.125), "pause", plan)
    with pytest.raises(InputError, match="got 12, expected 1 to 11"):
        build_reduction(network(), "pause", TokenPlan.parse("12:0.4"))
    with pytest.raises(InputError, match=r"pausing layer out of range \| got 12"):
        RandomisedPausing(network(), (3, 12), (0.2, 0.8), "entropy")
    own = build_segmenter(CLASSES, SMALL, "linear", (64, 80))
    add_auxiliary_decoder(own, CLASSES, (6, 8))
    with pytest.raises(InputError, match=r"no auxiliary decoder after layer 3 .* after 6, 8"):
        build_reduction(own, "pause", plan)
