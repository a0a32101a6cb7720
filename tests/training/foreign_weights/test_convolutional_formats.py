"""ResNet-18 of torchvision and SwiftNet of two codes: equal outputs after the import."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from edgeseg.errors import InputError
from edgeseg.training.foreign_weights.importer import import_weights, require_complete

CLOSE = {"rtol": 1e-4, "atol": 1e-4}
CHANNELS = (64, 128, 256, 512)


@pytest.fixture
def frames() -> Tensor:
    return torch.randn(1, 3, 256, 512, generator=torch.Generator().manual_seed(1))


def norm_tensors(name: str, channels: int) -> dict[str, Tensor]:
    return {
        f"{name}.weight": torch.rand(channels) + 0.5,
        f"{name}.bias": 0.1 * torch.randn(channels),
        f"{name}.running_mean": 0.1 * torch.randn(channels),
        f"{name}.running_var": torch.rand(channels) + 0.5,
    }


def convolution(outputs: int, inputs: int, side: int) -> Tensor:
    return torch.randn(outputs, inputs, side, side) * (1.0 / (inputs * side * side)) ** 0.5


def resnet18_tensors() -> dict[str, Tensor]:
    """A ResNet-18 in torchvision's naming, as old as its first files: batches are not counted."""
    tensors = {"conv1.weight": convolution(64, 3, 7), **norm_tensors("bn1", 64)}
    inputs = 64
    for stage, channels in enumerate(CHANNELS, start=1):
        for block in (0, 1):
            name = f"layer{stage}.{block}"
            tensors |= {
                f"{name}.conv1.weight": convolution(channels, inputs, 3),
                **norm_tensors(f"{name}.bn1", channels),
            }
            tensors |= {f"{name}.conv2.weight": convolution(channels, channels, 3)}
            tensors |= norm_tensors(f"{name}.bn2", channels)
            if inputs != channels:
                tensors |= {f"{name}.downsample.0.weight": convolution(channels, inputs, 1)}
                tensors |= norm_tensors(f"{name}.downsample.1", channels)
            inputs = channels
    return tensors


def normed(x: Tensor, tensors: dict[str, Tensor], name: str) -> Tensor:
    mean, variance = tensors[f"{name}.running_mean"], tensors[f"{name}.running_var"]
    return F.batch_norm(x, mean, variance, tensors[f"{name}.weight"], tensors[f"{name}.bias"])


def resnet18(x: Tensor, tensors: dict[str, Tensor]) -> list[Tensor]:
    """Feature maps after each stage, by the functional interface."""
    x = F.relu(normed(F.conv2d(x, tensors["conv1.weight"], stride=2, padding=3), tensors, "bn1"))
    x = F.max_pool2d(x, 3, stride=2, padding=1)
    features = []
    for stage in (1, 2, 3, 4):
        for block in (0, 1):
            name = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            skip = x
            if f"{name}.downsample.0.weight" in tensors:
                skip = F.conv2d(x, tensors[f"{name}.downsample.0.weight"], stride=stride)
                skip = normed(skip, tensors, f"{name}.downsample.1")
            x = F.conv2d(x, tensors[f"{name}.conv1.weight"], stride=stride, padding=1)
            x = F.conv2d(F.relu(normed(x, tensors, f"{name}.bn1")), tensors[f"{name}.conv2.weight"], padding=1)
            x = F.relu(normed(x, tensors, f"{name}.bn2") + skip)
        features.append(x)
    return features


def swiftnet_tensors(head_kernel: int, bias: bool) -> dict[str, Tensor]:
    """SwiftNet-R18 with three classes in its authors' naming."""
    tensors = {f"backbone.{name}": tensor for name, tensor in resnet18_tensors().items()}
    parts = {"backbone.spp.spp.spp_bn": (128, 512, 1), "backbone.spp.spp.spp_fuse": (128, 128 + 3 * 42, 1)}
    parts |= {f"backbone.spp.spp.spp{level}": (42, 128, 1) for level in range(3)}
    for step, lateral in enumerate((256, 128, 64)):
        parts[f"backbone.upsample.{step}.bottleneck"] = (128, lateral, 1)
        parts[f"backbone.upsample.{step}.blend_conv"] = (128, 128, 3)
    parts["logits"] = (3, 128, head_kernel)
    for name, (outputs, inputs, side) in parts.items():
        tensors |= {**norm_tensors(f"{name}.norm", inputs), f"{name}.conv.weight": convolution(outputs, inputs, side)}
    return {**tensors, "logits.conv.bias": torch.randn(3)} if bias else tensors


def swiftnet(x: Tensor, tensors: dict[str, Tensor]) -> Tensor:
    def unit(x: Tensor, name: str) -> Tensor:
        weight = tensors[f"{name}.conv.weight"]
        x = F.relu(normed(x, tensors, f"{name}.norm"))
        return F.conv2d(x, weight, tensors.get(f"{name}.conv.bias"), padding=weight.shape[-1] // 2)

    def resized(x: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)

    backbone = {name.removeprefix("backbone."): tensor for name, tensor in tensors.items()}
    *laterals, deepest = resnet18(x, backbone)
    reduced = unit(deepest, "backbone.spp.spp.spp_bn")
    levels = [reduced]
    for level, rows in enumerate((8, 4, 2)):
        pooled = F.adaptive_avg_pool2d(reduced, (rows, 2 * rows))
        levels.append(resized(unit(pooled, f"backbone.spp.spp.spp{level}"), reduced))
    x = unit(torch.cat(levels, dim=1), "backbone.spp.spp.spp_fuse")
    for step, lateral in enumerate(reversed(laterals)):
        x = resized(x, lateral) + unit(lateral, f"backbone.upsample.{step}.bottleneck")
        x = unit(x, f"backbone.upsample.{step}.blend_conv")
    return unit(x, "logits")


@pytest.mark.parametrize("legacy", [False, True])
def test_resnet18_of_torchvision_gives_its_features(tmp_path: Path, classes, frames, legacy) -> None:
    tensors = {**resnet18_tensors(), "fc.weight": torch.randn(10, 512), "fc.bias": torch.randn(10)}
    torch.save(tensors, tmp_path / "resnet18.pth", _use_new_zipfile_serialization=not legacy)
    imported = import_weights(tmp_path / "resnet18.pth", "swiftnet_r18", classes)
    for got, expected in zip(imported.network.backbone(frames), resnet18(frames, tensors), strict=True):
        torch.testing.assert_close(got, expected, **CLOSE)
    report = imported.report
    assert (report.format, report.unused, set(report.dropped)) == ("torchvision", (), {"fc.weight", "fc.bias"})
    assert not [name for name in report.missing if name.startswith("backbone.")]
    assert report.mean == (0.485, 0.456, 0.406)


def test_deeper_resnet_is_named_when_refused(tmp_path: Path, classes) -> None:
    tensors = {f"layer{stage}.0.conv{part}.weight": torch.zeros(1) for stage in (1, 4) for part in (1, 3)}
    tensors |= {f"layer1.{block}.conv1.weight": torch.zeros(1) for block in range(3)}
    tensors |= {f"layer3.{block}.conv1.weight": torch.zeros(1) for block in range(23)}
    torch.save({"conv1.weight": torch.zeros(1), **tensors}, tmp_path / "resnet101.pth")
    with pytest.raises(InputError, match=r"resnet101\.pth: weights of ResNet-101 \| no network here has that backbone"):
        import_weights(tmp_path / "resnet101.pth", "swiftnet_r18", classes)


def test_fast_cwm_segmentation_gives_its_logits(tmp_path: Path, classes, frames) -> None:
    tensors = swiftnet_tensors(head_kernel=3, bias=False)
    torch.save({"epoch": 7, "state_dict": tensors, "best_pred": 0.7}, tmp_path / "model_best.pth")
    imported = import_weights(tmp_path / "model_best.pth", "swiftnet_r18", classes)
    require_complete(imported.report)
    assert imported.report.told_by_file == {"spp_levels": 3, "head_kernel": 3}
    assert imported.report.mean == (0.2869, 0.3252, 0.2839)
    torch.testing.assert_close(imported.network(frames), swiftnet(frames, tensors), **CLOSE)


def test_swiftnet_of_its_authors_gives_its_logits_for_its_own_normalisation(tmp_path: Path, classes, frames) -> None:
    tensors = swiftnet_tensors(head_kernel=1, bias=True)
    mean, std = torch.tensor([73.15, 82.9, 72.3]).view(1, 3, 1, 1), torch.tensor([47.67, 48.49, 47.73]).view(1, 3, 1, 1)
    torch.save({**tensors, "backbone.img_mean": mean, "backbone.img_std": std}, tmp_path / "rn18.pt")
    imported = import_weights(tmp_path / "rn18.pt", "swiftnet_r18", classes)
    require_complete(imported.report)
    camera = torch.randint(0, 256, (1, 3, 256, 512)).float()
    report = imported.report
    ours = (camera / 255 - torch.tensor(report.mean).view(1, 3, 1, 1)) / torch.tensor(report.std).view(1, 3, 1, 1)
    torch.testing.assert_close(imported.network(ours), swiftnet((camera - mean) / std, tensors), **CLOSE)
