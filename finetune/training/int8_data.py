"""What an INT8 export takes from a recipe: training images, validation frames, and how AbsRel is computed on them."""

from __future__ import annotations

from finetune.data.reader import set_image_levels
from finetune.data.validation_dataset import ValidationSamples
from finetune.export.int8 import Int8Data
from finetune.inference.predictor import Predictor
from finetune.recipe.schema import Recipe
from finetune.training.startup import make_protocols, readers_of
from finetune.utils.errors import FinetuneError


def read_int8_data(
    recipe: Recipe, name: str, predictor: Predictor, tolerance: float, float_layers: tuple[str, ...]
) -> Int8Data:
    """
    Args:
        recipe: its first protocol computes AbsRel.
        name: of the recipe, for sentences.
        predictor: the model that is exported.
        tolerance, float_layers: as ``Int8Data`` has them.

    Raises:
        FinetuneError: the recipe is for models of the other kind, or one of its lists names no frames.
    """
    train = readers_of(recipe.data.train)
    for reader in train:
        len(reader)  # reads the list, which takes no time; a graph that is written in vain takes some
    if predictor.kind != recipe.model.head:
        raise FinetuneError(
            f"{predictor.source} is {predictor.kind}, the recipe's model.head is {recipe.model.head} "
            f"({recipe.where('model.head')}): AbsRel would not say what int8 costs. Name a recipe with "
            f"model.head: {predictor.kind}."
        )
    set_image_levels(
        [entry.source for entry in (*recipe.data.train, *recipe.data.val)], predictor.preprocessing.image_levels
    )
    protocol, *_ = make_protocols(recipe)
    scored = recipe.scored_entries
    val = ValidationSamples(
        readers_of(scored.values()),
        predictor.preprocessing,
        image_crops=[protocol.settings.image_crop],
        names=list(scored),
    )
    return Int8Data(
        name=name,
        train=train,
        val=val,
        protocol=protocol,
        tolerance=tolerance,
        float_layers=float_layers,
    )
