"""Quantisation-aware training beside the loop: which network it may go on with, and on what the ranges are found."""

import hashlib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from edgeseg.calibration_record import Calibration
from edgeseg.errors import InputError
from edgeseg.models.cwm import reset_state
from edgeseg.training.checkpoint import CheckpointMeta
from edgeseg.training.quantisers import Quantisers, fix_batch_norms, plan_layers
from edgeseg.training.recipe import Recipe
from edgeseg.training.samples import SampleSource
from edgeseg.training.trained_int8 import TrainedInt8

_SAME = {
    "cwm": "[cwm]",
    "auxiliary": "[pausing]",
    "target_offset": "sequence.target_offset",
    "frame_stride": "sequence.frame_stride",
}
"""What of a checkpoint's metadata training must not change -> where a recipe says it."""


class QuantisationAware:
    """Makes `network` one that rounds as INT8 does, in place, before its weights are loaded.

    Raises:
        MissingPackageError: what quantises is not installed.
    """

    def __init__(self, network: nn.Module, meta: CheckpointMeta, recipe: Recipe) -> None:
        self._network, self._meta, self._recipe = network, meta, recipe
        self._layers = plan_layers(network, torch.zeros(1, 3 * meta.input_frames, *recipe.data.size_hw))
        fix_batch_norms(network)
        self._quantisers = Quantisers(network, self._layers.quantised)

    def check_start(self, theirs: CheckpointMeta, path: Path | str) -> None:
        """Raises:
        InputError: the network to be trained is not the very one of the checkpoint `path`, but one made of it.
        """
        for key, named in _SAME.items():
            mine, other = getattr(self._meta, key), getattr(theirs, key)
            if mine != other:
                raise InputError(
                    f"{path}: --qat goes on with the network that was trained, and the recipe's {named} is another | "
                    f"got {key} {mine}, expected {other} | give the recipe that it was trained by"
                )

    def calibrate(self, source: SampleSource, look: Callable[[Tensor, int], None]) -> TrainedInt8:
        """Find the ranges on the first batches, as training sees them.

        Args:
            look: passes frames, uint8 `(B, frames, 3, H, W)`, through the network in all ways in which it is trained;
                told the number of the batch too.

        Raises:
            InputError: features are not numbers.
        """
        recipe, qat = self._recipe, self._recipe.qat
        assert qat is not None
        batches, digest = -(-qat.images // recipe.optimiser.batch), hashlib.sha256()

        def run() -> None:
            for number in range(batches):
                frames = source.batch(number).frames
                digest.update(frames.numpy().tobytes())
                reset_state(self._network)
                look(frames, number)
            reset_state(self._network)

        ranges = self._quantisers.calibrate(qat.calibration, run)
        images = batches * recipe.optimiser.batch
        calibration = Calibration(
            data_set=self._meta.trained_on["dataset"],
            split=recipe.data.train_split,
            images=images,
            frames=images * source.frame_count,
            size_hw=recipe.crop_hw,
            sha256=digest.hexdigest(),
            method=qat.calibration,
            stills_moved=recipe.data.stills and source.span > 0,
        )
        library = f"nvidia-modelopt {version('nvidia-modelopt')}"
        return TrainedInt8(ranges, self._layers.left_float, calibration, library)

    def restore(self, int8: TrainedInt8) -> None:
        """Go on with ranges that `calibrate` found before.

        Raises:
            ArtifactError: they are of other layers.
        """
        self._quantisers.set_ranges(int8.ranges)
