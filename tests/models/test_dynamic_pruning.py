"""Token pruning as its source has it: who leaves, on literal confidences; batches, and what training reads."""

import pytest
import torch

from edgeseg.errors import InputError
from edgeseg.models.dynamic_pruning import CONTEXTS, DynamicPruning, DynamicPruningPass, PruningRule
from edgeseg.models.token_pruning import heads_of
from edgeseg.models.token_reduction import TokenLayout
from support.pruning import CLASSES, SAID, LiteralHeads, pruning_network, sequence, went_on


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (PruningRule(0.95, "remove"), [3, 5, 7]),
        (PruningRule(0.95, "average"), [3, 5, 7]),
        (PruningRule(0.95, "top-k", k=1), [0, 3, 4, 5, 6, 7]),
        (PruningRule(0.95, "top-k", k=2), [0, 1, 3, 4, 5, 6, 7]),
        (PruningRule(0.95, "top-k", k=5), [0, 1, 2, 3, 4, 5, 6, 7]),
        (PruningRule(0.5, "remove", share=0.5), [3, 5, 6, 7]),
        (PruningRule(0.5, "remove", share=0.35), [1, 2, 3, 5, 6, 7]),
        (PruningRule(0.1, "remove"), [5]),
    ],
)
def test_dynamic_form_lets_the_easy_ones_leave(rule: PruningRule, expected: list[int]) -> None:
    reduction = DynamicPruning(LiteralHeads(), rule)
    if rule.context == "average":
        run = reduction.begin(TokenLayout((1, 8), 1, 4))
        run.after_layer(1, sequence(SAID))
        assert run.places[0].tolist() == expected
    else:
        assert went_on(reduction, SAID) == expected


def test_averages_of_the_leaving_tokens_go_on_beside_the_others() -> None:
    run = DynamicPruning(LiteralHeads(), PruningRule(0.95, "average")).begin(TokenLayout((1, 8), 1, 4))
    tokens = run.after_layer(1, sequence(SAID))
    # Places 0, 1 and 2 leave as class 0, 4 as class 1, 6 as class 2.
    torch.testing.assert_close(tokens[0, 4:, 2], torch.tensor([1.0, 4.0, 6.0]))
    assert run.finish({4: tokens})[4][0, :, 2].tolist() == [3, 5, 7]


def test_those_who_left_keep_the_prediction_of_the_head_after_which_they_left() -> None:
    run = DynamicPruning(LiteralHeads(), PruningRule(0.95, "remove")).begin(TokenLayout((1, 4), 1, 4))
    tokens = run.after_layer(1, sequence([(0, 0.99), (1, 0.5), (2, 0.9), (1, 0.6)]))
    tokens[0, 2, 1] = 0.97
    run.after_layer(2, tokens)
    placed = run.place(torch.full((1, 2, CLASSES), 7.0))
    expected = [[0.99, 0, 0], [7, 7, 7], [0, 0, 0.97], [7, 7, 7]]
    torch.testing.assert_close(placed[0], torch.tensor(expected))


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize(("decoder", "heads"), [("atm", "atm"), ("fcn", "fcn"), ("fcn", "atm"), ("atm", "fcn")])
def test_filled_batch_gives_what_each_image_gives_alone(decoder: str, heads: str, context: str) -> None:
    network = pruning_network(decoder, heads)
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    images = images * torch.tensor([0.1, 1.0, 3.0]).reshape(3, 1, 1, 1)
    network.encoder.collect = (2,)
    threshold = float(heads_of(network)(2, network.encoder(images).tokens[0]).confidence.quantile(0.45))
    network.encoder.collect = (4,)
    network.reduction = DynamicPruning(heads_of(network), PruningRule(threshold, context, k=1))
    run = network.encoder(images, network.reduction).reduction
    assert isinstance(run, DynamicPruningPass)
    assert any(count.unique().numel() > 1 for count in run.counts.values())
    alone = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(network(images), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("decoder", "heads"), [("atm", "atm"), ("fcn", "fcn")])
def test_threshold_that_nobody_reaches_changes_nothing(decoder: str, heads: str) -> None:
    network = pruning_network(decoder, heads)
    images = torch.randn(1, 3, 64, 64)
    expected = network(images)
    network.reduction = DynamicPruning(heads_of(network), PruningRule(1.0))
    torch.testing.assert_close(network(images), expected)


@pytest.mark.parametrize(("decoder", "heads"), [("atm", "atm"), ("fcn", "fcn"), ("fcn", "atm"), ("atm", "fcn")])
def test_training_outputs_have_every_head_and_gradients(decoder: str, heads: str) -> None:
    network = pruning_network(decoder, heads).train()
    network.reduction = DynamicPruning(heads_of(network), PruningRule(0.4, k=1))
    outputs = network.training_outputs(torch.randn(2, 3, 64, 64))
    atms = (decoder == "atm") + 2 * (heads == "atm")
    assert (len(outputs.masks), len(outputs.presence), len(outputs.auxiliary)) == (atms, atms, 2 * (heads == "fcn"))
    maps = (outputs.logits, *outputs.masks, *outputs.auxiliary)
    assert {each.shape for each in maps} == {(2, CLASSES, 4, 4)}
    sum(each.square().sum() for each in maps).backward()
    for part in (network.encoder.patch_embed, network.decoder, *heads_of(network).heads.values()):
        assert any(each.grad is not None and each.grad.any() for each in part.parameters())


@pytest.mark.parametrize(
    "values", [{"threshold": 0}, {"threshold": 1.1}, {"context": "mean"}, {"k": 0}, {"share": 1.0}]
)
def test_rule_out_of_range_is_refused(values: dict) -> None:
    with pytest.raises(InputError):
        PruningRule(**{"threshold": 0.9, **values})
