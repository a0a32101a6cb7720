"""A checkpoint as a network to export."""

from pathlib import Path

from edgeseg.errors import InputError
from edgeseg.export.source import SourceFacts, TorchSource
from edgeseg.export.wrapper import Preprocessing
from edgeseg.models.cwm import BiStep, generator_from_dict
from edgeseg.models.vit_segmenter import VitSegmenter
from edgeseg.training.checkpoint import load_checkpoint


def checkpoint_source(path: Path, *, cwm_align: int | None = None) -> TorchSource:
    """The network of a checkpoint that `edgeseg train` wrote.

    Raises:
        ArtifactError: the checkpoint is missing, damaged or foreign.
        InputError: it was trained with random masks, which no fixed graph can follow.
    """
    loaded = load_checkpoint(path, cwm=False)
    meta = loaded.meta
    generator: BiStep | None = None
    masked: tuple[str, ...] | None = None
    if meta.cwm is not None:
        trained = generator_from_dict({key: value for key, value in meta.cwm.items() if key != "masked"})
        masked = tuple(meta.cwm["masked"])
        if not isinstance(trained, BiStep):
            raise InputError(
                f"{path}: trained with random masks, a baseline that is not exported | train with bi_step masks"
            )
        generator = trained
    # Imported weights were not trained on images that we know of, but a ViT is built for a size.
    size = meta.trained_on.get("size_hw") or meta.options.get("size_hw")
    facts = SourceFacts(
        network=meta.architecture,
        origin=str(path),
        classes=meta.classes,
        width=float(meta.options.get("width", 1.0)),
        input_frames=meta.input_frames,
        target_offset=meta.target_offset,
        rho=generator.rho if generator else None,
        default_size_hw=(int(size[0]), int(size[1])) if size else None,
        logits_stride=getattr(loaded.network, "logits_stride", None),
        takes_plans=isinstance(loaded.network, VitSegmenter),
        size_multiple=loaded.network.encoder.size.patch if isinstance(loaded.network, VitSegmenter) else 4,
        trained_on=meta.trained_on,
        int8=meta.int8,
    )
    own_align = generator.align if generator else 1
    return TorchSource(
        facts,
        loaded.network,
        Preprocessing(meta.mean, meta.std, meta.colour_order),
        masked=masked,
        cwm_align=own_align if cwm_align is None else cwm_align,
    )
