"""What a training minimises: which outputs of the network the loss is on, and the loss that a recipe asks for."""

from torch import Tensor, nn

from edgeseg.classes import ClassSet
from edgeseg.errors import InputError
from edgeseg.models.pausing import RandomisedPausing
from edgeseg.models.training_outputs import GivesTrainingOutputs
from edgeseg.models.vit_segmenter import VitSegmenter
from edgeseg.training.losses import Loss, build_loss, needs_outputs, with_auxiliary
from edgeseg.training.pruning import PruningMethod, with_pruning_heads
from edgeseg.training.recipe import Recipe

TrainingMethod = nn.Module | RandomisedPausing | PruningMethod
"""What gives the outputs that are trained on."""


def takes_outputs(recipe: Recipe) -> bool:
    """Whether the loss is on `TrainingOutputs`; else it is on logits alone."""
    return needs_outputs(recipe.loss.name) or bool(recipe.pausing or recipe.pruning)


def training_method(recipe: Recipe, network: nn.Module) -> TrainingMethod:
    """What makes the outputs that are trained on: the network itself, or one that pauses or prunes by the recipe.

    Raises:
        InputError: the recipe pauses tokens with a loss that is not on logits.
    """
    if recipe.pruning is not None:
        return PruningMethod(network, recipe.pruning)
    pausing = recipe.pausing
    if pausing is None:
        return network
    if needs_outputs(recipe.loss.name):
        raise InputError(
            f"[pausing] goes with losses on logits | got loss.name = {recipe.loss.name!r}, expected cross_entropy"
        )
    assert isinstance(network, VitSegmenter)
    return RandomisedPausing(network, pausing.layers, pausing.proportions, pausing.criterion)


def training_loss(recipe: Recipe, method: TrainingMethod, classes: ClassSet, class_weights: Tensor | None) -> Loss:
    """The loss that `recipe` asks for.

    Args:
        method: `training_method` of the recipe.
        class_weights: float32 `(classes,)` on the device of the training; None for equal ones.

    Raises:
        InputError: the loss is on more than the logits that the network gives.
    """
    options = recipe.loss
    if takes_outputs(recipe) and not isinstance(method, GivesTrainingOutputs):
        raise InputError(
            f"loss.name = {options.name!r} needs more than the logits that {recipe.network.name} gives | "
            "use cross_entropy, or a network that gives it"
        )
    loss = build_loss(
        options.name,
        ignore_value=classes.ignore_value,
        class_weights=class_weights,
        gamma=options.gamma,
        alpha=options.alpha,
        beta=options.beta,
    )
    if recipe.pausing is not None:
        loss = with_auxiliary(loss, recipe.pausing.aux_weight)
    if recipe.pruning is not None:
        loss = with_pruning_heads(
            loss,
            recipe.pruning.aux_weight,
            ignore_value=classes.ignore_value,
            takes_outputs=needs_outputs(options.name),
        )
    return loss
