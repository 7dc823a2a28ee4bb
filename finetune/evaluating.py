"""Any model on a recipe's validation data, beside what costs nothing."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.state import AcceleratorState

from finetune.assembly import Start, evaluate_answer, last_answer, start
from finetune.environment import make_accelerator, sources
from finetune.errors import FinetuneError
from finetune.evaluation import Chosen, Evaluation, ValidationSamples, network_answer
from finetune.metrics import METRICS
from finetune.paths import is_folder
from finetune.predictions import Predictions
from finetune.predictor import Predictor
from finetune.protocol_settings import protocol_settings
from finetune.readers.image_levels import give_levels
from finetune.recipe import Recipe
from finetune.run_folder import ENVIRONMENT_FILE, EVALUATION_FILE, RunFolder, digest
from finetune.shown_frames import ShownFrames


def evaluate_model(
    recipe: Recipe, predictor: Predictor, run: RunFolder | None = None
) -> tuple[list[Evaluation], ShownFrames]:
    """
    Args:
        recipe: ``data.val`` is scored by its protocols; ``data.train`` and ``model.checkpoint`` give the baselines.
        predictor: what is evaluated, with its own preprocessing, which the base then gets as well.
        run: whose ``best/`` it is, so that its ``last/`` stands beside it; None where it is of no run folder.

    Returns:
        The tables that a run with this recipe ends with, if these are its weights; and the frames, for a page.

    Raises:
        FinetuneError: the model answers in inverse depth and the recipe asks for meters, or the other way round.
    """
    if predictor.kind != recipe.model.head:
        raise FinetuneError(
            f"{predictor.source} is {predictor.kind}, the recipe's model.head is {recipe.model.head} "
            f"({recipe.where('model.head')}): their numbers do not compare. Name a recipe with "
            f"model.head: {predictor.kind}."
        )
    # Its own, as all of its preprocessing; the recipe may be of another.
    entries = (*recipe.data.train, *recipe.data.val)
    give_levels([entry.source for entry in entries], predictor.preprocessing.image_levels)
    with _begun(recipe) as (accelerator, begin):
        network = predictor.network.to(accelerator.device).eval()
        began = replace(begin, preprocessing=predictor.preprocessing)
        answer = network_answer(network)
        of_last = last_answer(run.best, run.last, answer, accelerator.device) if run else None
        evaluations, frames = evaluate_answer(recipe, accelerator, began, "finetuned", answer, of_last)
        chosen = _chosen(run, recipe) if run else None
        return [replace(one, chosen=chosen) for one in evaluations], frames


def _chosen(run: RunFolder, recipe: Recipe) -> Chosen | None:
    """How a run chose its weights, where it did so on frames of this recipe; None where it does not say so."""
    try:
        (first, *_) = json.loads((run.path / EVALUATION_FILE).read_text(encoding="utf-8"))
        frames = json.loads((run.path / ENVIRONMENT_FILE).read_text(encoding="utf-8"))["frames"]
        on = first["chosen"]["on"]
        of_run = {one["sha256"] for name, one in frames.items() if name == on or name.startswith(f"{on}.")}
        chosen = Chosen(
            evaluations=int(first["chosen"]["evaluations"]), step=int(first["chosen"]["step"]), on=str(on), shown=True
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # of an older run, or of one that was changed by hand
    if of_run != {digest(sources(entry.source)) for entry in recipe.choosing_entries.values()}:
        return None
    return replace(chosen, shown=recipe.evaluation.choose_on is None)


def evaluate_predictions(
    recipe: Recipe, folder: Path, meters_per_unit: float | None
) -> tuple[list[Evaluation], ShownFrames]:
    """
    Args:
        recipe: as of ``evaluate_model``.
        folder: a file for each frame of ``data.val``, as ``Predictions`` finds them.
        meters_per_unit: what a stored 1 is; None: ``.npy`` alone is read, in meters.

    Returns:
        The tables of the recipe's protocols, with these files as the row ``predictions``; and the frames, for a page.

    Raises:
        FinetuneError: the folder is missing, a protocol asks for mirrored images, or an entry has no files.
    """
    if not is_folder(folder):
        raise FinetuneError(f"{folder}: no such folder. Name one with a file for each frame of data.val.")
    for name in recipe.protocols:
        if protocol_settings(name).flip:
            raise FinetuneError(f"{name} asks for mirrored images, which files cannot answer. Leave out +flip=true.")
    readers = [entry.source for entry in recipe.scored_entries.values()]
    for name, reader in zip(recipe.scored_entries, readers, strict=True):
        if not hasattr(reader, "files") or getattr(reader, "labeled", None):
            raise FinetuneError(f"{name} has no file for each image. Name data that lies in files.")
    with _begun(recipe) as (accelerator, begin):
        samples = ValidationSamples(readers, begin.preprocessing)
        answer = Predictions(folder=folder, readers=readers, samples=samples, meters_per_unit=meters_per_unit)
        if recipe.model.head == "metric":
            answer.require_unit()
        return evaluate_answer(recipe, accelerator, begin, "predictions", answer)


@contextmanager
def _begun(recipe: Recipe) -> Iterator[tuple[Accelerator, Start]]:
    """The recipe's base and baselines, in a process of its own."""
    try:
        accelerator, _ = make_accelerator(recipe, trains=False)
        yield accelerator, start(recipe, accelerator)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


def image_rows(evaluations: Sequence[Evaluation], readers: Sequence[Any]) -> str:
    """
    Args:
        evaluations: with their images.
        readers: of the entries of ``data.val`` that were scored, in order.

    Returns:
        CSV: a line for each protocol, image and row of the table, with its source, its pixels that count, every metric,
        the absolute error in millimeters, and all settings of the protocol.
    """
    names = [name for reader in readers for name in sources(reader)]
    _, *settings = (f"protocol_{key}" for key in evaluations[0].protocol.to_mapping())
    text = io.StringIO()
    writer = csv.writer(text)
    errors = ["mean_mm", "median_mm", "p90_mm"]
    writer.writerow(["protocol", "image", "source", "pixels", "row", *METRICS, *errors, *settings])
    for evaluation in evaluations:
        name, *fixed = evaluation.protocol.to_mapping().values()
        for one in evaluation.images:
            for row, scores in one.rows.items():
                found = [*(scores[metric] for metric in METRICS), *one.errors_mm[row]]
                writer.writerow([name, one.number, names[one.number], one.pixels, row, *found, *fixed])
    return text.getvalue()
