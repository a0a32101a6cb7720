"""A network is never scored on frames that it was trained on: what it has seen, and who must not score it.

`trained_on` of a checkpoint or bundle names the data set and splits of its last training, and under `before` those
of the trainings that its first weights came from. Data sets are told apart by their names, so a copy in another folder
is the same data set.
"""

from collections.abc import Mapping
from typing import Any

from edgeseg.data.video import Dataset
from edgeseg.errors import InputError


def trainings(trained_on: Mapping[str, Any]) -> list[dict[str, Any]]:
    """`{"dataset": name, "splits": [...]}` of every training that went into the weights, each once, the newest first;
    empty when nothing is known of them.
    """
    found: list[dict[str, Any]] = []
    for each in (trained_on, *trained_on.get("before", ())):
        training = {"dataset": each.get("dataset"), "splits": list(each.get("splits", ()))}
        if training["dataset"] is not None and training not in found:
            found.append(training)
    return found


def refuse_trained_on(trained_on: Mapping[str, Any], dataset: Dataset, split: str, origin: str) -> None:
    """Refuse to score on `split` the network of `origin`, when frames of it went into its weights.

    Raises:
        InputError: they did; the message names the splits that are free.
    """
    seen = {name for each in trainings(trained_on) if each["dataset"] == dataset.name for name in each["splits"]}
    if split in seen:
        free = [name for name in dataset.splits if name not in seen]
        raise InputError(
            f"{origin} was trained on {dataset.name} {split}, so it is not scored there | "
            f"use --split {' or '.join(free) or 'of another data set'}"
        )
