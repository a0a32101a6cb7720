"""mIoU of a network on the validation split, at the network's input size."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.data.video import Dataset, Video
from edgeseg.errors import InputError
from edgeseg.metrics.confusion import ConfusionMatrix, Scores
from edgeseg.models.cwm import masked_layers, reset_state
from edgeseg.training.augment import fit
from edgeseg.training.checkpoint import CheckpointMeta
from edgeseg.training.recipe import Recipe
from edgeseg.training.samples import network_inputs


@dataclass(frozen=True)
class Validation:
    """Scores of one validation, each in [0, 1]."""

    miou: float
    moving_miou: float
    """Mean over the movable classes; nan when there are none."""
    iou: dict[str, float]
    """Per class; the classes that do not occur are left out."""
    frames: int
    """Frames scored."""

    def as_dict(self) -> dict[str, object]:
        """JSON-ready form: what is not a number is None."""
        return {
            "miou": self.miou,
            "moving_miou": None if np.isnan(self.moving_miou) else self.moving_miou,
            "iou": self.iou,
            "frames": self.frames,
        }


class Validator:
    """Scores networks on the validation split of one data set.

    A dense network is scored on frames spread evenly over the split. A masked one runs through each video twice,
    from frame 0 and from frame 1, is scored after its warm-up, and the two scores are averaged (ABT [C 2.4.4]).
    """

    def __init__(self, dataset: Dataset, recipe: Recipe, meta: CheckpointMeta) -> None:
        self._videos = list(dataset.videos(recipe.data.val_split))
        self._recipe = recipe
        self._meta = meta
        self._where = f"{dataset.name}, split {recipe.data.val_split}"

    def __call__(self, network: nn.Module, device: torch.device) -> Validation:
        """Score `network`, which is left in training mode when it was in it.

        Raises:
            InputError: no frame of the split can be scored.
        """
        training = network.training
        network.eval()
        try:
            with torch.inference_mode():
                if masked_layers(network):
                    passes = [self._streamed(network, device, start) for start in (0, 1)]
                else:
                    passes = [self._spread(network, device)]
        finally:
            reset_state(network)
            network.train(training)
        return self._summary(passes)

    def _spread(self, network: nn.Module, device: torch.device) -> tuple[Scores, int]:
        targets = [
            (video, index)
            for video in self._videos
            for index in video.labelled_indices()
            if index >= self._meta.target_offset
        ]
        chosen = np.linspace(0, len(targets) - 1, min(self._recipe.run.val_frames, len(targets))).astype(int)
        matrix = ConfusionMatrix(len(self._meta.classes))
        for place in chosen:
            video, index = targets[place]
            logits = network(self._input(video, index - self._meta.target_offset, device))
            self._score(matrix, video, index, logits)
        return matrix.scores(), len(chosen)

    def _streamed(self, network: nn.Module, device: torch.device, start: int) -> tuple[Scores, int]:
        run = self._recipe.run
        stride, offset = self._meta.frame_stride, self._meta.target_offset
        matrix = ConfusionMatrix(len(self._meta.classes))
        scored = 0
        chosen = np.linspace(0, len(self._videos) - 1, min(run.val_frames, len(self._videos))).astype(int)
        for video in (self._videos[number] for number in chosen):
            reset_state(network)
            inputs = range(start, len(video) - offset, stride)
            # A video shorter than twice the warm-up still gives half of its frames.
            warm_up = min(run.warm_up_frames, len(inputs) // 2)
            labelled = [index for index in inputs[warm_up:] if video.has_labels(index + offset)]
            targets = set(labelled[: -(-run.val_frames // len(chosen))])
            for index in range(start, max(targets, default=-1) + 1, stride):
                logits = network(self._input(video, index, device))
                if index in targets:
                    self._score(matrix, video, index + offset, logits)
            scored += len(targets)
        return matrix.scores(), scored

    def _input(self, video: Video, index: int, device: torch.device) -> Tensor:
        """Normalised `(1, 3 * input_frames, H, W)`; before the first frame stands the first frame itself."""
        frames = [max(0, index - self._meta.frame_stride * back) for back in reversed(range(self._meta.input_frames))]
        resized = [fit(video.size_hw, self._recipe.data.size_hw).frame(video.frame_rgb(each)) for each in frames]
        stacked = torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).unsqueeze(0).to(device)
        meta = self._meta
        return network_inputs(stacked, meta.input_frames, meta.mean, meta.std, meta.colour_order)[0]

    def _score(self, matrix: ConfusionMatrix, video: Video, index: int, logits: Tensor) -> None:
        size_hw = self._recipe.data.size_hw
        full = F.interpolate(logits.float(), size=size_hw, mode="bilinear", align_corners=False)
        labels = fit(video.size_hw, size_hw).labels(video.labels(index), self._meta.classes.ignore_value)
        matrix.add(labels, full.argmax(1)[0].cpu().numpy())

    def _summary(self, passes: list[tuple[Scores, int]]) -> Validation:
        frames = sum(count for _, count in passes)
        if frames == 0:
            raise InputError(
                f"{self._where}: no frame can be scored | no video has labels at or after frame "
                f"{self._meta.target_offset} (sequence.target_offset)"
            )
        scores = [each for each, _ in passes]
        classes = self._meta.classes
        iou = {
            name: float(np.mean([each.iou[number] for each in scores]))
            for number, name in enumerate(classes.names)
            if not any(np.isnan(each.iou[number]) for each in scores)
        }
        moving = float(np.mean([each.miou_of(classes.movable_indices) for each in scores]))
        return Validation(float(np.mean([each.miou for each in scores])), moving, iou, frames)
