"""Any model on a recipe's validation data, beside what costs nothing."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from finetune.data.reader import Reader, list_sources, set_image_levels
from finetune.data.validation_dataset import ValidationSamples
from finetune.evaluation.baselines import predict_constant, predict_everywhere
from finetune.evaluation.evaluator import PredictFunction, Row, ScaledBaseline, evaluate, predict_with_network
from finetune.evaluation.metrics import METRICS
from finetune.evaluation.prediction_files import Predictions
from finetune.evaluation.protocol_settings import protocol_settings
from finetune.evaluation.results import Chosen, Evaluation
from finetune.inference.predictor import Predictor
from finetune.models.checkpoints.fill import whole_network
from finetune.models.checkpoints.load import read_checkpoint
from finetune.models.depth_model import DepthModel
from finetune.recipe.run_dir import ENVIRONMENT_FILE, EVALUATION_FILE, RunFolder, digest
from finetune.recipe.schema import Recipe
from finetune.reporting.frames import ShownFrames
from finetune.training.environment import make_accelerator
from finetune.training.startup import Startup, make_model, make_protocols, prepare_startup, readers_of
from finetune.utils.errors import FinetuneError
from finetune.utils.paths import is_file, is_folder


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
    set_image_levels([entry.source for entry in entries], predictor.preprocessing.image_levels)
    with _begun(recipe) as (accelerator, begin):
        network = predictor.network.to(accelerator.device).eval()
        began = replace(begin, preprocessing=predictor.preprocessing)
        predict = predict_with_network(network)
        of_last = predict_with_last(run.best, run.last, predict, accelerator.device) if run else None
        evaluations, frames = evaluate_predictions_of(recipe, accelerator, began, "finetuned", predict, of_last)
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
    if of_run != {digest(list_sources(entry.source)) for entry in recipe.choosing_entries.values()}:
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
        if reader.files(0) is None:
            raise FinetuneError(f"{name} has no file for each image. Name data that lies in files.")
    with _begun(recipe) as (accelerator, begin):
        samples = ValidationSamples(readers, begin.preprocessing)
        predict = Predictions(folder=folder, readers=readers, samples=samples, meters_per_unit=meters_per_unit)
        if recipe.model.head == "metric":
            predict.require_unit()
        return evaluate_predictions_of(recipe, accelerator, begin, "predictions", predict)


@contextmanager
def _begun(recipe: Recipe) -> Iterator[tuple[Accelerator, Startup]]:
    """The recipe's base and baselines, in a process of its own."""
    try:
        accelerator, _ = make_accelerator(recipe, trains=False)
        yield accelerator, prepare_startup(recipe, accelerator)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


def image_rows(evaluations: Sequence[Evaluation], readers: Sequence[Reader]) -> str:
    """
    Args:
        evaluations: with their images.
        readers: of the entries of ``data.val`` that were scored, in order.

    Returns:
        CSV: a line for each protocol, image and row of the table, with its source, its pixels that count, every metric,
        the absolute error in millimeters, and all settings of the protocol.
    """
    names = [name for reader in readers for name in list_sources(reader)]
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


def evaluate_with_baselines(
    recipe: Recipe, accelerator: Accelerator, begin: Startup, weights: Path, last: Path
) -> tuple[list[Evaluation], ShownFrames]:
    """The tables at the end of a run: the baselines and the weights, in one pass over the same pixels."""
    network = whole_network(read_checkpoint(str(weights))).to(accelerator.device)
    predict = predict_with_network(network)
    of_last = predict_with_last(weights, last, predict, accelerator.device)
    return evaluate_predictions_of(recipe, accelerator, begin, "finetuned", predict, of_last)


def predict_with_last(best: Path, last: Path, of_best: PredictFunction, device: torch.device) -> PredictFunction | None:
    """
    Args:
        best, last: weights files of one run.
        of_best: the answer of the first.
        device: to use.

    Returns:
        The answer of the last weights, which is ``of_best`` where both are of one step; None where there are none.

    Raises:
        CheckpointError: they are damaged.
    """
    if not is_file(last):
        return None
    checkpoint = read_checkpoint(str(last))
    if checkpoint.metadata.get("step") == read_checkpoint(str(best)).metadata.get("step"):
        return of_best
    return predict_with_network(whole_network(checkpoint).to(device))


def evaluate_predictions_of(
    recipe: Recipe,
    accelerator: Accelerator,
    begin: Startup,
    name: str,
    predict: PredictFunction,
    of_last: PredictFunction | None = None,
) -> tuple[list[Evaluation], ShownFrames]:
    """
    Args:
        recipe: its ``data.val``, but for the entry that only chooses, is scored by its protocols.
        accelerator: all its processes must call.
        begin: gives the baselines, and what the network sees of an image.
        name: row of the table.
        predict: of this row.
        of_last: of the row ``last``; None: there is no such row.

    Returns:
        The answers beside the baselines, a table for each protocol; and the frames to look at under the first.
    """
    rows = baseline_rows(recipe, accelerator, begin)
    if begin.solved:
        rows["calibrated_start"] = predict_with_network(_calibrated_start(recipe, begin).to(accelerator.device))
    rows[name] = predict
    if of_last:
        rows["last"] = of_last
    protocols = make_protocols(recipe)
    crops = [protocol.settings.image_crop for protocol in protocols]
    scored = recipe.scored_entries
    samples = ValidationSamples(readers_of(scored.values()), begin.preprocessing, image_crops=crops, names=list(scored))
    shown = {row: rows[row] for row in ("base_fitted_scale", name) if row in rows}
    evaluations = evaluate(
        accelerator, samples, rows, protocols, workers=recipe.data.workers, batch_size=recipe.run.batch_size
    )
    return evaluations, ShownFrames(samples=samples, rows=shown, protocol=protocols[0])


def baseline_rows(recipe: Recipe, accelerator: Accelerator, begin: Startup) -> dict[str, Row]:
    """What costs nothing but a fit: constants, and the base."""
    rows: dict[str, Row] = {"constant_median": predict_constant(begin.baselines)}
    if begin.baselines:
        rows["best_constant"] = predict_everywhere(begin.baselines.best_m)
    if begin.checkpoint and begin.checkpoint.has_head:
        base = predict_with_network(whole_network(begin.checkpoint).to(accelerator.device))
        if begin.checkpoint.kind == "metric":
            rows["base"] = base
        # In a relative run it is left to the protocol to align it.
        fitted = begin.baselines and ScaledBaseline(predict=base, depth_m=begin.baselines.base_depth_m)
        rows["base_fitted_scale"] = fitted or base
    return rows


def _calibrated_start(recipe: Recipe, begin: Startup) -> DepthModel:
    """The network as it was before step 1, made anew: the one of ``begin`` may have been trained since."""
    network, _ = make_model(recipe, begin.checkpoint)
    assert begin.solved is not None
    network.head.last.load_state_dict(begin.solved)
    return network.eval()
