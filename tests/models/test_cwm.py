"""Channel-wise masked convolutions against the definitions, on numbers one can read."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.errors import InputError
from edgeseg.models.cwm import (
    BiStep,
    CwmConv2d,
    RandomGenerator,
    apply_cwm,
    cwm_phases,
    generator_from_dict,
    masked_layers,
    reset_state,
    set_step,
    swap_convolutions,
)
from edgeseg.models.registry import build_network


def frames(count: int, *shape: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(*shape, generator=generator) for _ in range(count)]


@pytest.mark.parametrize(
    ("rho", "channels", "start", "stop"),
    [
        (0, 8, 4, 4),
        (0.25, 64, 24, 40),
        (0.25, 8, 3, 5),
        (0, 7, 3, 3),
        (0.5, 10, 2, 7),
        (0.56, 50, 11, 39),
        (1, 8, 0, 8),
    ],
)
def test_bi_step_masks_are_the_definitions(rho: float, channels: int, start: int, stop: int) -> None:
    generator = BiStep(rho)
    assert generator.mask(0, channels) == (0, stop)
    assert generator.mask(1, channels) == (start, channels)


@pytest.mark.parametrize(
    ("rho", "channels", "start", "stop"),
    [(0.25, 64, 16, 32), (0.25, 128, 48, 80), (0, 40, 16, 16), (0.25, 16, 6, 10), (0.25, 32, 0, 16), (1, 40, 0, 40)],
)
def test_aligned_masks_begin_and_end_at_blocks(rho: float, channels: int, start: int, stop: int) -> None:
    assert BiStep(rho, align=16).shared(channels) == (start, stop)


@pytest.mark.parametrize("align", [1, 8, 16])
@pytest.mark.parametrize("rho", [0, 0.1, 0.25, 0.4, 0.5, 1])
def test_bi_step_masks_cover_every_channel_and_are_never_empty(rho: float, align: int) -> None:
    for channels in range(2, 200):
        (low, stop), (start, high) = (BiStep(rho, align).mask(phase, channels) for phase in (0, 1))
        assert low == 0 < stop <= channels == high
        assert start <= stop
        assert start < channels


def test_random_masks_are_contiguous_of_one_size_and_repeatable() -> None:
    masks = [RandomGenerator(0.25, masks=8, seed=3).mask(phase, 64) for phase in range(8)]
    assert {stop - start for start, stop in masks} == {40}
    assert len(set(masks)) > 1
    assert masks == [RandomGenerator(0.25, masks=8, seed=3).mask(phase, 64) for phase in range(8)]


@pytest.mark.parametrize("generator", [BiStep(0.25, align=16), RandomGenerator(0.5, masks=4, seed=7)])
def test_generator_survives_its_dictionary(generator: BiStep | RandomGenerator) -> None:
    assert generator_from_dict(generator.as_dict()) == generator


def test_unknown_generator_is_refused() -> None:
    with pytest.raises(InputError, match="unknown mask generator 'tri_step'"):
        generator_from_dict({"generator": "tri_step"})


def test_rho_out_of_range_is_refused() -> None:
    with pytest.raises(InputError, match=r"cwm rho is a proportion \| got 1.5"):
        BiStep(1.5)


def reference_steps(conv: nn.Conv2d, inputs: list[Tensor], start: int, stop: int) -> list[Tensor]:
    """The definition, written the long way: full convolutions, channels copied one by one."""
    outputs: list[Tensor] = []
    for step, x in enumerate(inputs):
        full = F.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding)
        if step == 0:
            outputs.append(full)
            continue
        active = range(start, conv.out_channels) if step % 2 == 1 else range(stop)
        output = outputs[-1].clone()
        for channel in active:
            output[:, channel] = full[:, channel]
        outputs.append(output)
    return outputs


@pytest.mark.parametrize(("rho", "start", "stop"), [(0, 4, 4), (0.25, 3, 5), (1, 0, 8)])
@torch.no_grad()
def test_masked_convolution_follows_the_definition_step_by_step(rho: float, start: int, stop: int) -> None:
    conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
    masked = CwmConv2d.from_conv(conv, BiStep(rho))
    inputs = frames(7, 2, 3, 9, 11)
    for step, expected in enumerate(reference_steps(conv, inputs, start, stop)):
        torch.testing.assert_close(masked(inputs[step]), expected, msg=f"step {step}")


@torch.no_grad()
def test_first_masked_step_uses_mask_one() -> None:
    masked = CwmConv2d.from_conv(nn.Conv2d(1, 4, 1), BiStep(0))
    first, second = frames(2, 1, 1, 2, 2)
    before = masked(first)
    changed = (masked(second) != before).flatten(2).any(2)[0]
    assert changed.tolist() == [False, False, True, True]


@torch.no_grad()
def test_set_step_chooses_the_mask_and_keeps_the_state() -> None:
    masked = CwmConv2d.from_conv(nn.Conv2d(1, 4, 1), BiStep(0))
    first, second = frames(2, 1, 1, 2, 2)
    before = masked(first)
    set_step(masked, 2)
    changed = (masked(second) != before).flatten(2).any(2)[0]
    assert changed.tolist() == [True, True, False, False]


@torch.no_grad()
def test_reset_makes_the_next_step_a_full_one() -> None:
    conv = nn.Conv2d(1, 4, 1)
    masked = CwmConv2d.from_conv(conv, BiStep(0))
    first, second = frames(2, 1, 1, 2, 2)
    masked(first)
    reset_state(masked)
    torch.testing.assert_close(masked(second), conv(second))


def test_gradient_reaches_the_step_that_computed_a_kept_channel() -> None:
    masked = CwmConv2d.from_conv(nn.Conv2d(1, 4, 1), BiStep(0))
    first, second = (frame.requires_grad_() for frame in frames(2, 1, 1, 2, 2))
    masked(first)
    masked(second)[:, 0].sum().backward()
    assert first.grad is not None
    assert first.grad.abs().sum() > 0
    assert second.grad is None or second.grad.abs().sum() == 0


@torch.no_grad()
def test_kept_channels_are_untouched_when_the_network_changes_its_output_in_place() -> None:
    masked = CwmConv2d.from_conv(nn.Conv2d(1, 4, 1), BiStep(0))
    first, second = frames(2, 1, 1, 2, 2)
    output = masked(first)
    expected = output[:, :2].clone()
    output.add_(100)
    torch.testing.assert_close(masked(second)[:, :2], expected)


def test_another_frame_size_without_reset_is_refused() -> None:
    masked = CwmConv2d.from_conv(nn.Conv2d(1, 4, 1), BiStep(0))
    masked(torch.zeros(1, 1, 4, 4))
    with pytest.raises(InputError, match="call reset_state"):
        masked(torch.zeros(1, 1, 4, 6))


@torch.no_grad()
def test_network_at_rho_one_equals_the_dense_one() -> None:
    network = build_network("swiftnet_r18", 5, width=0.125).eval()
    inputs = frames(3, 1, 3, 32, 64)
    dense = [network(x) for x in inputs]
    apply_cwm(network, BiStep(1), example=torch.zeros(1, 3, 32, 64))
    for x, expected in zip(inputs, dense, strict=True):
        torch.testing.assert_close(network(x), expected)


@torch.no_grad()
def test_network_in_steady_state_on_a_still_equals_the_dense_one() -> None:
    network = build_network("swiftnet_r18", 5, width=0.125).eval()
    apply_cwm(network, BiStep(0), example=torch.zeros(1, 3, 32, 64))
    x = frames(1, 1, 3, 32, 64)[0]
    first = network(x)
    for _ in range(3):
        torch.testing.assert_close(network(x), first)


def test_masked_network_keeps_its_parameter_names_and_loads_dense_weights() -> None:
    network = build_network("swiftnet_r18", 5, width=0.125)
    dense = {name: value.clone() for name, value in network.state_dict().items()}
    apply_cwm(network, BiStep(0.25), example=torch.zeros(1, 3, 32, 64))
    assert list(network.state_dict()) == list(dense)
    network.load_state_dict(dense)


def test_phases_are_given_by_module_path() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 8, 1), nn.Conv2d(8, 2, 1))
    assert apply_cwm(network, BiStep(0.25), example=torch.zeros(1, 3, 4, 4)) == ["1"]
    assert cwm_phases(network) == {"1": ((0, 5), (3, 8))}
    assert list(masked_layers(network)) == ["1"]


def test_swapping_an_unknown_layer_is_refused() -> None:
    with pytest.raises(InputError, match="no layer 7 to mask"):
        swap_convolutions(nn.Sequential(nn.Conv2d(3, 4, 1)), ["7"], BiStep(0))


def test_network_with_nothing_to_mask_is_refused_with_the_reasons() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1))
    with pytest.raises(InputError, match=r"no convolution can be masked \| 0: first convolution"):
        apply_cwm(network, BiStep(0), example=torch.zeros(1, 3, 4, 4))
