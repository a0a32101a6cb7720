"""INT8's rounding inside a network: what is rounded and to what, how ranges are found, which layers are left alone."""

import sys

import pytest
import torch
from torch import Tensor, nn

from edgeseg.errors import ArtifactError, InputError, MissingPackageError
from edgeseg.models.cwm import BiStep, apply_cwm, masked_layers, reset_state
from edgeseg.models.registry import build_network
from edgeseg.training.quantisers import FixedBatchNorm2d, Quantisers, fix_batch_norms, plan_layers, quantised_network

pytest.importorskip("modelopt", reason="needs the extra quant")


class TwoChannels(nn.Module):
    """One 1x1 convolution of one channel to two."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1, bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([1.27, 127.0]).reshape(2, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def row(*values: float) -> Tensor:
    return torch.tensor(values).reshape(1, 1, 1, -1)


def swiftnet() -> nn.Module:
    torch.manual_seed(0)
    return build_network("swiftnet_r18", 3, width=0.25).eval()


def test_inputs_are_rounded_to_steps_of_their_range_and_clipped_there() -> None:
    network = quantised_network(TwoChannels(), {"conv": 12.7})
    # Steps of 0.1; the most negative step is one further out than the most positive one.
    expected = row(0.0, 0.1, -0.3, 12.7, -12.8)
    torch.testing.assert_close(network(row(0.04, 0.06, -0.32, 20.0, -20.0))[:, 1:] / 127, expected)


def test_weights_have_a_scale_per_output_channel_that_follows_them() -> None:
    network = quantised_network(TwoChannels(), {"conv": 127.0})
    with torch.no_grad():
        network.conv.weight[0] = 2.54
    torch.testing.assert_close(network(row(1.0)), torch.tensor([2.54, 127.0]).reshape(1, 2, 1, 1))


def test_gradients_pass_the_rounding_within_the_range_alone() -> None:
    network = quantised_network(TwoChannels(), {"conv": 1.0})
    x = row(0.4, 5.0).requires_grad_()
    network(x).sum().backward()
    torch.testing.assert_close(x.grad, row(128.27, 0.0), atol=0.01, rtol=0)


@pytest.mark.parametrize(("method", "expected"), [("max", 16.0), ("percentile", 3.9), ("entropy", 4.3)])
def test_range_holds_all_values_or_leaves_out_a_stray_one(method: str, expected: float) -> None:
    network, random = TwoChannels(), torch.Generator().manual_seed(0)
    values = torch.cat((torch.randn(20_000, generator=random), torch.tensor([16.0]))).reshape(1, 1, 1, -1)
    found = Quantisers(network, ("conv",)).calibrate(method, lambda: network(values))
    assert found["conv"] == pytest.approx(expected, abs=0.3)


def test_nothing_is_rounded_while_ranges_are_found() -> None:
    network, seen = TwoChannels(), []
    made = Quantisers(network, ("conv",))
    made.calibrate("max", lambda: seen.append(network(row(0.0123, 9.0))))
    torch.testing.assert_close(seen[0][:, 1], row(0.0123, 9.0)[:, 0] * 127)


def test_features_that_are_no_numbers_are_refused_with_the_layer() -> None:
    network = TwoChannels()
    with pytest.raises(InputError, match="no range for conv"):
        Quantisers(network, ("conv",)).calibrate("max", lambda: network(row(float("nan"))))


def test_layer_that_sees_only_zeros_gets_some_range() -> None:
    network = TwoChannels()
    assert Quantisers(network, ("conv",)).calibrate("max", lambda: network(row(0.0))) == {"conv": 1.0}


def test_ranges_of_layers_that_there_are_none_of_are_refused() -> None:
    with pytest.raises(ArtifactError, match="no convolution or linear layer head"):
        quantised_network(TwoChannels(), {"head": 1.0})
    with pytest.raises(ArtifactError, match="of other layers"):
        Quantisers(TwoChannels(), ("conv",)).set_ranges({})


def test_weights_keep_their_names_and_the_quantisers_have_none() -> None:
    network = swiftnet()
    before = list(network.state_dict())
    plan = plan_layers(network, torch.zeros(1, 3, 32, 48))
    quantised_network(network, dict.fromkeys(plan.quantised, 4.0))
    assert list(network.state_dict()) == before


def test_first_last_and_narrow_layers_stay_in_float() -> None:
    plan = plan_layers(swiftnet(), torch.zeros(1, 3, 32, 48))
    assert plan.left_float["backbone.conv1"] == "first layer"
    assert plan.left_float["head.conv"] == "last layer"
    assert {name for name, why in plan.left_float.items() if why == "fewer than 16 channels"} == {
        f"spp.levels.{level}.conv" for level in range(4)
    }
    assert plan.quantised[0] == "backbone.layer1.0.conv1"
    assert len(plan.quantised) == 27


def test_auxiliary_decoder_stays_in_float_and_the_encoder_does_not() -> None:
    from support.tiny_vit import seeded

    plan = plan_layers(seeded(3), torch.zeros(1, 3, 48, 64))
    assert plan.left_float["auxiliary.heads.all"] == "decides which tokens pause"
    assert plan.left_float["encoder.patch_embed.proj"] == "first layer"
    assert plan.left_float["decoder.head"] == "last layer"
    assert len(plan.quantised) == 6 * 4


def test_fixed_batch_norm_gives_the_same_in_training() -> None:
    network = swiftnet()
    x = torch.randn(1, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    expected, before = network(x), list(network.state_dict())
    fix_batch_norms(network)
    network.train()
    torch.testing.assert_close(network(x), expected)
    assert list(network.state_dict()) == before
    assert any(isinstance(each, FixedBatchNorm2d) for each in network.modules())


def test_masked_convolutions_keep_their_state_when_quantised() -> None:
    network = swiftnet()
    apply_cwm(network, BiStep(0.0), example=torch.zeros(1, 3, 32, 48))
    plan = plan_layers(network, torch.zeros(1, 3, 32, 48))
    quantised_network(network, dict.fromkeys(plan.quantised, 4.0))
    layer = masked_layers(network)["backbone.layer1.0.conv1"]
    with torch.no_grad():
        network(torch.zeros(1, 3, 32, 48))
        kept = layer._kept.clone()
        network(torch.ones(1, 3, 32, 48))
    # The first masked step computes the upper half.
    assert torch.equal(layer._kept[:, :8], kept[:, :8])
    assert not torch.equal(layer._kept[:, 8:], kept[:, 8:])
    reset_state(network)
    assert layer._kept is None


def test_a_tenth_of_a_range_makes_another_network() -> None:
    x = torch.randn(1, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    names = plan_layers(swiftnet(), x).quantised
    exact, wide, narrow = (
        (swiftnet() if each is None else quantised_network(swiftnet(), dict.fromkeys(names, each)))(x)
        for each in (None, 8.0, 0.8)
    )
    assert 0 < (wide - exact).abs().max() < (narrow - exact).abs().max()


def test_quantising_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    quantised_network(TwoChannels(), {"conv": 1.0})
    assert capfd.readouterr().out == ""


def test_missing_library_is_told_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modelopt.torch.quantization", None)
    with pytest.raises(MissingPackageError, match=r"modelopt\.torch\.quantization .* pip install 'edgeseg\[quant\]'"):
        quantised_network(TwoChannels(), {"conv": 1.0})
