"""Any model on a recipe's validation data, beside what costs nothing."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from accelerate.state import AcceleratorState

from finetune.assembly import evaluate_answer, start
from finetune.environment import make_accelerator, sources
from finetune.errors import FinetuneError
from finetune.evaluation import Evaluation, network_answer
from finetune.metrics import METRICS
from finetune.predictor import Predictor
from finetune.recipe import Recipe


def evaluate_model(recipe: Recipe, predictor: Predictor) -> Evaluation:
    """
    Args:
        recipe: ``data.val`` is scored by its protocol; ``data.train`` and ``model.checkpoint`` give the baselines.
        predictor: what is evaluated, with its own preprocessing, which the base then gets as well.

    Returns:
        The table that a run with this recipe ends with, if these are its weights.

    Raises:
        FinetuneError: the model answers in inverse depth and the recipe asks for meters, or the other way round.
    """
    if predictor.kind != recipe.model.head:
        raise FinetuneError(
            f"{predictor.source} is {predictor.kind}, the recipe's model.head is {recipe.model.head} "
            f"({recipe.where('model.head')}): their numbers do not compare. Name a recipe with "
            f"model.head: {predictor.kind}."
        )
    try:
        accelerator, _ = make_accelerator(recipe)
        begin = start(recipe, accelerator)
        network = predictor.network.to(accelerator.device).eval()
        began = replace(begin, preprocessing=predictor.preprocessing)
        return evaluate_answer(recipe, accelerator, began, network_answer(network))
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


def image_rows(evaluation: Evaluation, readers: Sequence[Any]) -> str:
    """
    Args:
        evaluation: with its images.
        readers: of ``data.val``, in order.

    Returns:
        CSV: a line for each image and row of the table, with its source, its pixels that count and every metric.
    """
    names = [name for reader in readers for name in sources(reader)]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["protocol", "image", "source", "pixels", "row", *METRICS])
    for number, pixels, rows in evaluation.images:
        for row, scores in rows.items():
            found = [scores[name] for name in METRICS]
            writer.writerow([evaluation.protocol.name, number, names[number], pixels, row, *found])
    return text.getvalue()
