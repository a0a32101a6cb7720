"""References that the imported networks are held against: a ViT made of PyTorch's own transformer layers."""

from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="weights need torch")
from torch import Tensor, nn  # noqa: E402 (after the check)

from edgeseg.classes import ClassSet, distinct_colours  # noqa: E402
from edgeseg.models.vit import VIT_SIZES, VitSize  # noqa: E402

DIM, HEADS, LAYERS, PATCH = 16, 2, 3, 8
SIZE_HW = (32, 48)
NAMES = ("road", "car", "sky")


class ReferenceVit(nn.Module):
    """`nn.TransformerEncoderLayer` on patches; images `(B, 3, H, W)` -> patch tokens of the last layer, normed."""

    def __init__(self, eps: float, grid_hw: tuple[int, int] = (4, 6), norm: bool = True) -> None:
        super().__init__()
        self.project = nn.Conv2d(3, DIM, PATCH, stride=PATCH)
        self.class_token = nn.Parameter(torch.randn(1, 1, DIM))
        self.positions = nn.Parameter(torch.randn(1, 1 + grid_hw[0] * grid_hw[1], DIM))
        self.layers = nn.ModuleList(transformer_layer(eps) for _ in range(LAYERS))
        self.norm = nn.LayerNorm(DIM, eps=eps) if norm else nn.Identity()
        randomise(self)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.project(images).flatten(2).transpose(1, 2)
        tokens = torch.cat((self.class_token.expand(len(images), -1, -1), patches), dim=1) + self.positions
        for layer in self.layers:
            tokens = layer(tokens)
        return self.norm(tokens)[:, 1:]


class ReferenceMaskDecoder(nn.Module):
    """Segmenter's decoder of PyTorch's own layers: tokens `(B, n, D)` -> `(B, n, classes)`."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(DIM, DIM)
        self.classes = nn.Parameter(torch.randn(1, len(NAMES), DIM))
        self.layers = nn.ModuleList(transformer_layer(1e-5) for _ in range(2))
        self.norm, self.mask_norm = nn.LayerNorm(DIM), nn.LayerNorm(len(NAMES))
        self.of_patches = nn.Linear(DIM, DIM, bias=False)
        self.of_classes = nn.Linear(DIM, DIM, bias=False)
        randomise(self)

    def forward(self, tokens: Tensor) -> Tensor:
        joined = torch.cat((self.project(tokens), self.classes.expand(len(tokens), -1, -1)), dim=1)
        for layer in self.layers:
            joined = layer(joined)
        joined = self.norm(joined)
        patches, classes = self.of_patches(joined[:, : -len(NAMES)]), self.of_classes(joined[:, -len(NAMES) :])
        cosines = torch.cosine_similarity(patches[:, :, None], classes[:, None], dim=-1)
        return self.mask_norm(cosines)


def transformer_layer(eps: float) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(
        DIM, HEADS, 4 * DIM, dropout=0.0, activation="gelu", layer_norm_eps=eps, batch_first=True, norm_first=True
    )


@torch.no_grad()
def randomise(module: nn.Module) -> None:
    """Every parameter and statistic random, so that no two can be exchanged unnoticed; variances above 0."""
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + 0.5 if name.endswith("_var") else 0.3 * torch.randn_like(tensor))


@pytest.fixture(autouse=True)
def small_vits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every ViT is 3 layers of 16 numbers on patches of 8 pixels here."""
    for name in VIT_SIZES:
        monkeypatch.setitem(VIT_SIZES, name, VitSize(DIM, HEADS, LAYERS, patch=PATCH))


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with torch.no_grad():
        yield
    torch.set_num_threads(threads)


@pytest.fixture
def classes() -> ClassSet:
    return ClassSet(NAMES, distinct_colours(len(NAMES)))


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, *SIZE_HW, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def reference_vit() -> Any:
    """The class `ReferenceVit`."""
    return ReferenceVit


@pytest.fixture
def mask_decoder() -> ReferenceMaskDecoder:
    return ReferenceMaskDecoder().eval()


@pytest.fixture
def randomised() -> Any:
    """The function `randomise`."""
    return randomise


@pytest.fixture
def timm_names() -> Any:
    """A function: state dict of a `ReferenceVit` in timm's naming."""
    return _timm_names


def _timm_names(vit: ReferenceVit) -> dict[str, Tensor]:
    tensors = {
        "cls_token": vit.class_token,
        "pos_embed": vit.positions,
        "patch_embed.proj.weight": vit.project.weight,
        "patch_embed.proj.bias": vit.project.bias,
        "norm.weight": vit.norm.weight,
        "norm.bias": vit.norm.bias,
    }
    for number, layer in enumerate(vit.layers):
        tensors |= timm_layer(f"blocks.{number}", layer)
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def timm_layer(prefix: str, layer: Any) -> dict[str, Tensor]:
    """The tensors of a `nn.TransformerEncoderLayer` in timm's naming."""
    attention = layer.self_attn
    parts = {"attn.proj": attention.out_proj, "mlp.fc1": layer.linear1, "mlp.fc2": layer.linear2}
    parts |= {"norm1": layer.norm1, "norm2": layer.norm2}
    tensors = {f"{prefix}.{name}.{kind}": getattr(part, kind) for name, part in parts.items() for kind in KINDS}
    tensors |= {f"{prefix}.attn.qkv.{kind}": getattr(attention, f"in_proj_{kind}") for kind in KINDS}
    return tensors


KINDS = ("weight", "bias")


@pytest.fixture
def segmenter_names() -> Any:
    """A function: encoder and mask decoder as in the checkpoints of Segmenter's authors."""

    def names(vit: ReferenceVit, decoder: ReferenceMaskDecoder) -> dict[str, Tensor]:
        tensors = {f"encoder.{name}": tensor for name, tensor in _timm_names(vit).items()}
        tensors["encoder.head.weight"], tensors["encoder.head.bias"] = torch.randn(10, DIM), torch.randn(10)
        tensors |= {
            "decoder.cls_emb": decoder.classes,
            "decoder.proj_patch": decoder.of_patches.weight.T,
            "decoder.proj_classes": decoder.of_classes.weight.T,
        }
        parts = {"proj_dec": decoder.project, "decoder_norm": decoder.norm, "mask_norm": decoder.mask_norm}
        tensors |= {f"decoder.{name}.{kind}": getattr(part, kind) for name, part in parts.items() for kind in KINDS}
        for number, layer in enumerate(decoder.layers):
            tensors |= timm_layer(f"decoder.blocks.{number}", layer)
        return {name: tensor.detach().clone() for name, tensor in tensors.items()}

    return names


@pytest.fixture
def mmseg_layer() -> Any:
    """A function: a `nn.TransformerEncoderLayer` in MMSegmentation's naming."""

    def names(prefix: str, layer: Any) -> dict[str, Tensor]:
        parts = {"ln1": layer.norm1, "ln2": layer.norm2, "attn.attn.out_proj": layer.self_attn.out_proj}
        parts |= {"ffn.layers.0.0": layer.linear1, "ffn.layers.1": layer.linear2}
        tensors = {f"{prefix}.{name}.{kind}": getattr(part, kind) for name, part in parts.items() for kind in KINDS}
        for kind in KINDS:
            tensors[f"{prefix}.attn.attn.in_proj_{kind}"] = getattr(layer.self_attn, f"in_proj_{kind}")
        return tensors

    return names
