"""The segmentation networks on a plain ViT: one module, built with the decoder that the name says."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from edgeseg.errors import InputError
from edgeseg.models.pruning_heads import PRUNE_LAYERS, PruningHeads
from edgeseg.models.segmenter import LinearDecoder, MaskTransformer
from edgeseg.models.segvit import AtmDecoder
from edgeseg.models.setr import NaiveDecoder
from edgeseg.models.shrunk import EDGE_SHARE, SHRINK_LAYER, Shrinking, Shrunk
from edgeseg.models.token_reduction import KeepAll, TokenReduction
from edgeseg.models.training_outputs import TrainingOutputs
from edgeseg.models.vit import VIT_SIZES, EncoderOutput, VisionTransformer, VitSize

SIZE_HW = (512, 512)
"""Of the position table, when a builder is told nothing else [Z table 4.1]."""
CASCADES = ((12,), (6, 12), (6, 8, 12), (3, 6, 9, 12))
"""Layers read by SegViT's decoders [Z table 4.5]."""
DECODERS = ("linear", "mask")


class VitSegmenter(nn.Module):
    """Normalised images `(B, 3, H, W)` -> logits `(B, classes, H / patch, W / patch)`.

    `reduction` says which tokens the encoder computes; it can be exchanged at any time, as weights do not depend on
    it, except in a network built to shrink.
    """

    input_frames = 1
    undecayed = frozenset({"encoder.pos_embed", "encoder.cls_token", "decoder.cls_emb"})
    """Parameters without weight decay, as in the sources' code."""

    def __init__(self, encoder: VisionTransformer, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.reduction: TokenReduction = KeepAll()
        self.pruning_heads: PruningHeads | None = None

    @property
    def logits_stride(self) -> int:
        """The patch."""
        return self.encoder.size.patch

    def forward(self, images: Tensor) -> Tensor:
        encoded = self.encoder(images, self.reduction)
        return to_map(encoded.reduction.place(self._decode(encoded)), encoded.grid_hw)

    def _decode(self, encoded: EncoderOutput) -> Tensor:
        if isinstance(self.decoder, AtmDecoder):
            return self.decoder(encoded.tokens, encoded.reduction.memory_mask)
        # The others that tokens leave early for look at each token alone: fillings of a batch do no harm.
        return self.decoder(encoded.tokens)

    def training_outputs(
        self, images: Tensor, random: torch.Generator | None = None, reduction: TokenReduction | None = None
    ) -> TrainingOutputs:
        """Logits and, of a cascade, what each ATM predicts; nothing is drawn from `random`.

        Args:
            reduction: in the place of the network's own.
        """
        encoded = self.encoder(images, reduction or self.reduction)
        if not isinstance(self.decoder, AtmDecoder):
            logits = encoded.reduction.place(self._decode(encoded))
            return encoded.reduction.add_outputs(TrainingOutputs(to_map(logits, encoded.grid_hw)))
        stages = self.decoder.predictions(encoded.tokens, encoded.reduction.memory_mask)
        masks = (encoded.reduction.place_masks(stage.masks.transpose(1, 2)) for stage in stages)
        outputs = TrainingOutputs(
            to_map(encoded.reduction.place(self.decoder.scores(stages[-1])), encoded.grid_hw),
            masks=tuple(to_map(each, encoded.grid_hw) for each in masks),
            presence=tuple(stage.presence for stage in stages),
        )
        return encoded.reduction.add_outputs(outputs)


def to_map(tokens: Tensor, grid_hw: tuple[int, int]) -> Tensor:
    """`(B, rows * columns, C)` -> `(B, C, rows, columns)`."""
    batch, _, channels = (int(side) for side in tokens.shape)
    return tokens.transpose(1, 2).reshape(batch, channels, *grid_hw)


def segmenter(size: str, classes: int, decoder: str = "mask", size_hw: Sequence[int] = SIZE_HW) -> VitSegmenter:
    """Segmenter on the ViT of `size`; 129.6 GMACs at 512x512 for B with the mask decoder and 150 classes [Z table 4.1].

    Args:
        size: one of `VIT_SIZES`.
        decoder: `linear` or `mask`.
        size_hw: the size that the position table is for.
    """
    return build_segmenter(classes, VIT_SIZES[size], decoder, size_hw)


def setr_naive_b(
    classes: int,
    size_hw: Sequence[int] = SIZE_HW,
    prune_heads: str | None = None,
    prune_layers: Sequence[int] = PRUNE_LAYERS,
) -> VitSegmenter:
    """SETR-naive on ViT-B; `prune_heads` as of `segvit`."""
    return add_pruning_heads(build_setr(classes, VIT_SIZES["b"], size_hw), classes, prune_heads, prune_layers)


def segvit(
    size: str,
    classes: int,
    cascade: Sequence[int] | None = None,
    presence: str = "binary",
    size_hw: Sequence[int] = SIZE_HW,
    shrink: str | None = None,
    shrink_layer: int = SHRINK_LAYER,
    edge_share: float = EDGE_SHARE,
    prune_heads: str | None = None,
    prune_layers: Sequence[int] = PRUNE_LAYERS,
) -> VitSegmenter:
    """SegViT on the ViT of `size`; 115.0 GMACs at 512x512 for B, 150 classes and a cascade of three [Z table 4.1].

    Args:
        size: one of `VIT_SIZES`.
        cascade: layers that ATMs read; [6, 8, 12], or the last one only with up-sampling or pruning heads.
        presence: see `AtmDecoder`.
        size_hw: the size that the position table is for.
        shrink: `qd`, `qd+qu` or `eqd`, behind layer `shrink_layer`; see `shrunk`.
        prune_heads: `atm` or `fcn`, after each of `prune_layers`; see `token_pruning`.
    """
    shrinking = None if shrink is None else Shrinking(shrink, shrink_layer, edge_share)
    network = build_segvit(classes, VIT_SIZES[size], cascade, presence, size_hw, shrinking, exits=prune_heads)
    return add_pruning_heads(network, classes, prune_heads, prune_layers)


# The builders that the registry names: one a size, with the options of the function behind them.
segmenter_ti, segmenter_s, segmenter_b = (partial(segmenter, size) for size in ("ti", "s", "b"))
segvit_ti, segvit_s, segvit_b = (partial(segvit, size) for size in ("ti", "s", "b"))


def build_segmenter(classes: int, size: VitSize, decoder: str, size_hw: Sequence[int]) -> VitSegmenter:
    """Segmenter of any size; its norms have the epsilon of the authors' code.

    Raises:
        InputError: the decoder is unknown, or `size_hw` is no multiple of the patch.
    """
    if decoder not in DECODERS:
        raise InputError(f"unknown decoder {decoder!r} | known: {', '.join(DECODERS)}")
    encoder = VisionTransformer(size, size_hw, norm_eps=1e-5)
    head = LinearDecoder(classes, size.dim) if decoder == "linear" else MaskTransformer(classes, size)
    return VitSegmenter(encoder, head)


def build_setr(classes: int, size: VitSize, size_hw: Sequence[int]) -> VitSegmenter:
    """SETR-naive of any size."""
    return VitSegmenter(VisionTransformer(size, size_hw, resize_mode="bicubic"), NaiveDecoder(classes, size.dim))


def add_pruning_heads(network: VitSegmenter, classes: int, kind: str | None, layers: Sequence[int]) -> VitSegmenter:
    """The network itself, with heads after `layers` where there is a kind.

    Raises:
        InputError: the kind is unknown, or a layer is out of range.
    """
    if kind is not None:
        blocks = len(network.encoder.blocks)
        beside_atm = isinstance(network.decoder, AtmDecoder)
        network.pruning_heads = PruningHeads(classes, network.encoder.size, kind, layers, blocks, beside_atm=beside_atm)
    return network


def build_segvit(
    classes: int,
    size: VitSize,
    cascade: Sequence[int] | None,
    presence: str,
    size_hw: Sequence[int],
    shrinking: Shrinking | None = None,
    exits: str | None = None,
) -> VitSegmenter:
    """SegViT of any size; `exits` is the kind of pruning heads that it will get.

    Raises:
        InputError: the cascade is not one of increasing layers up to the last, or another value is out of range.
    """
    if shrinking is not None and exits is not None:
        raise InputError(f"shrink = {shrinking.shrink!r} contradicts prune_heads = {exits!r} | leave one of them out")
    upsampled = shrinking is not None and shrinking.upsamples
    one_layer = upsampled or exits is not None
    if cascade is None:
        cascade = (size.layers,) if one_layer else CASCADES[2]
    if isinstance(cascade, str) or not all(type(layer) is int for layer in cascade):
        raise InputError(f"a cascade is a list of layers, such as [6, 8, 12] | got {cascade!r}")
    if list(cascade) != sorted(set(cascade)) or not cascade or not 1 <= cascade[0] <= cascade[-1] <= size.layers:
        known = ", ".join(str(list(each)) for each in CASCADES)
        raise InputError(
            f"a cascade rises from layer to layer, within 1 to {size.layers} | got {list(cascade)} | such as {known}"
        )
    if one_layer and len(cascade) > 1:
        raise InputError(
            f"cascade {list(cascade)} contradicts {'shrink' if upsampled else 'prune_heads'}, behind which the decoder "
            f"reads one layer | use cascade [{cascade[-1]}]"
        )
    encoder = VisionTransformer(size, size_hw, collect=cascade, final_norm=False, resize_mode="bicubic")
    decoder = AtmDecoder(classes, size, len(cascade), presence=presence, projected=upsampled)
    network = VitSegmenter(encoder, decoder)
    if shrinking is not None:
        network.reduction = Shrunk(size, encoder.grid_hw, shrinking, layers=cascade[-1])
    return network
