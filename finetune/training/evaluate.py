"""Scores any model on a recipe's validation data, next to the baselines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from accelerate.state import AcceleratorState

from finetune.data.reader import Reader, list_sources, set_image_levels
from finetune.data.validation_dataset import ValidationSamples
from finetune.evaluation.baselines import predict_constant, predict_everywhere
from finetune.evaluation.evaluator import (
    PredictFunction,
    Row,
    ScaledBaseline,
    evaluate,
    predict_one,
    predict_with_network,
)
from finetune.evaluation.metrics import METRICS
from finetune.evaluation.prediction_files import Predictions
from finetune.evaluation.protocol_settings import protocol_settings
from finetune.evaluation.results import Chosen, Evaluation
from finetune.inference.frame_cameras import UNKNOWN_CAMERAS, FrameCameras
from finetune.inference.predictor import Predictor
from finetune.models.arithmetic import FULL_PRECISION, Precision, describe_difference
from finetune.models.checkpoints.fill import whole_network
from finetune.models.checkpoints.load import read_checkpoint
from finetune.models.depth_model import DepthModel
from finetune.recipe.run_dir import ENVIRONMENT_FILE, EVALUATION_FILE, RunFolder, digest
from finetune.recipe.schema import Recipe
from finetune.reporting.frames import ShownFrames
from finetune.training.data_loading import choose_loading
from finetune.training.environment import make_accelerator
from finetune.training.startup import Startup, make_model, make_protocols, prepare_startup, readers_of
from finetune.utils.errors import FinetuneError
from finetune.utils.paths import is_file, is_folder, missing, read_text


def evaluate_model(
    recipe: Recipe, predictor: Predictor, run: RunFolder | None = None, cameras: FrameCameras = UNKNOWN_CAMERAS
) -> tuple[list[Evaluation], ShownFrames]:
    """
    Args:
        recipe: ``data.val`` is scored by its protocols; ``data.train`` and ``model.checkpoint`` give the baselines.
        predictor: what is evaluated, with its own preprocessing, which the base then gets as well.
        run: the run folder that the model is ``best/`` of, whose ``last/`` gets a row too; None if there is none.
        cameras: of frames whose reader gives none.

    Returns:
        The tables that a run with this recipe ends with, if these are its weights; and the frames, for a page.

    Raises:
        FinetuneError: the model predicts inverse depth and the recipe asks for meters, or the other way round.
    """
    if predictor.kind != recipe.model.head:
        raise FinetuneError(
            f"{predictor.source} is {predictor.kind}, the recipe's model.head is {recipe.model.head} "
            f"({recipe.where('model.head')}): their numbers do not compare. Name a recipe with "
            f"model.head: {predictor.kind}."
        )
    # The levels of the model, like all of its preprocessing, not those of the recipe.
    entries = (*recipe.data.train, *recipe.data.val)
    set_image_levels([entry.source for entry in entries], predictor.preprocessing.image_levels)
    with _prepare_evaluation(recipe) as startup:
        device = startup.accelerator.device
        assume = cameras.assume_training
        predict = predict_with_network(
            predictor.network.to(device).eval(),
            assume_training_camera=assume,
            precision=predictor.precision,
            compiled=predictor.is_compiled,
        )
        of_last = predict_with_last(run.best, run.last, predict, device, assume, predictor.precision) if run else None
        startup = replace(startup, preprocessing=predictor.preprocessing)
        evaluations, frames = evaluate_predictions_of(startup, "finetuned", predict, of_last, cameras)
        chosen = _read_choice(run, recipe) if run else None
        return [replace(evaluation, chosen=chosen) for evaluation in evaluations], frames


def _read_choice(run: RunFolder, recipe: Recipe) -> Chosen | None:
    """How a run chose its weights, where it did so on frames of this recipe; None where it does not say so."""
    try:
        (first, *_) = json.loads(read_text(run.path / EVALUATION_FILE))
        frames = json.loads(read_text(run.path / ENVIRONMENT_FILE))["frames"]
        on = first["chosen"]["on"]
        of_run = {entry["sha256"] for name, entry in frames.items() if name == on or name.startswith(f"{on}.")}
        chosen = Chosen(
            evaluations=int(first["chosen"]["evaluations"]), step=int(first["chosen"]["step"]), on=str(on), shown=True
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # the run is older, or was changed by hand
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
        raise FinetuneError(f"{folder}: {missing(folder, 'folder')}. Name one with a file for each frame of data.val.")
    for name in recipe.protocols:
        if protocol_settings(name).flip:
            raise FinetuneError(f"{name} asks for mirrored images, which files cannot answer. Leave out +flip=true.")
    readers = [entry.source for entry in recipe.scored_entries.values()]
    for name, reader in zip(recipe.scored_entries, readers, strict=True):
        if reader.files(0) is None:
            raise FinetuneError(f"{name} has no file for each image. Name data that lies in files.")
    with _prepare_evaluation(recipe) as startup:
        samples = ValidationSamples(readers, startup.preprocessing)
        predict = Predictions(folder=folder, readers=readers, samples=samples, meters_per_unit=meters_per_unit)
        if "depth_is" not in recipe.data.accept:
            predict.require_direction(recipe.model.head)
        if recipe.model.head == "metric" and "unit" not in recipe.data.accept:
            predict.require_unit()
        return evaluate_predictions_of(startup, "predictions", predict)


@contextmanager
def _prepare_evaluation(recipe: Recipe) -> Iterator[Startup]:
    """The recipe's base and baselines, for an evaluation without a run."""
    try:
        accelerator, _ = make_accelerator(recipe, trains=False)
        yield prepare_startup(recipe, accelerator, trains=False)
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
        for image in evaluation.images:
            for row, scores in image.rows.items():
                found = [*(scores[metric] for metric in METRICS), *image.errors_mm[row]]
                writer.writerow([name, image.number, names[image.number], image.pixels, row, *found, *fixed])
    return text.getvalue()


def evaluate_with_baselines(startup: Startup, best: Path, last: Path) -> tuple[list[Evaluation], ShownFrames]:
    """The tables at the end of a run: the baselines and the weights, in one pass over the same pixels."""
    device = startup.accelerator.device
    predict = predict_with_network(whole_network(read_checkpoint(str(best))).to(device))
    of_last = predict_with_last(best, last, predict, device)
    return evaluate_predictions_of(startup, "finetuned", predict, of_last)


def compare_precision(predictor: Predictor, frames: ShownFrames, cameras: FrameCameras) -> str | None:
    """What the precision of the predictor changes of the first frame, as a sentence; None where it changes nothing."""
    if predictor.precision == FULL_PRECISION:
        return None
    crop = frames.protocol.settings.image_crop
    frame = frames.samples[0]
    image, sample = frame.views[crop]
    size = (sample.depth_m.shape[0], sample.depth_m.shape[1])
    own, full = (
        predict_one(
            predict_with_network(
                predictor.network, assume_training_camera=cameras.assume_training, precision=precision
            ),
            image,
            size,
            frame.focals_px.get(crop),
        )
        for precision in (predictor.precision, FULL_PRECISION)
    )
    return f"{sample.source}: {describe_difference(predictor.precision, own, full, predictor.kind)}"


def predict_with_last(
    best: Path,
    last: Path,
    of_best: PredictFunction,
    device: torch.device,
    assume_training_camera: bool = False,
    precision: Precision = FULL_PRECISION,
) -> PredictFunction | None:
    """
    Args:
        best, last: weights files of one run.
        of_best: predicts with the first.
        device: to use.
        assume_training_camera, precision: as for ``predict_with_network``.

    Returns:
        Predicts with the last weights, which is ``of_best`` if both are of one step; None without last weights.

    Raises:
        CheckpointError: they are damaged.
    """
    if not is_file(last):
        return None
    checkpoint = read_checkpoint(str(last))
    if checkpoint.metadata.get("step") == read_checkpoint(str(best)).metadata.get("step"):
        return of_best
    network = whole_network(checkpoint).to(device)
    return predict_with_network(network, assume_training_camera=assume_training_camera, precision=precision)


def evaluate_predictions_of(
    startup: Startup,
    name: str,
    predict: PredictFunction,
    of_last: PredictFunction | None = None,
    cameras: FrameCameras = UNKNOWN_CAMERAS,
) -> tuple[list[Evaluation], ShownFrames]:
    """
    Score predictions next to the baselines; every process must call.

    Args:
        startup: gives the baselines, and what the network sees of an image. The ``data.val`` of its recipe is scored by
            its protocols, without the entry that only chooses.
        name: row of the table.
        predict: of this row.
        of_last: of the row ``last``; None: there is no such row.
        cameras: of frames whose reader gives none.

    Returns:
        A table for each protocol; and the frames to look at under the first.
    """
    recipe, accelerator = startup.recipe, startup.accelerator
    assume = cameras.assume_training
    rows = baseline_rows(startup, assume)
    if startup.solved:
        start = _calibrated_start(startup).to(accelerator.device)
        rows["calibrated_start"] = predict_with_network(start, assume_training_camera=assume)
    rows[name] = predict
    if of_last:
        rows["last"] = of_last
    protocols = make_protocols(recipe)
    crops = [protocol.settings.image_crop for protocol in protocols]
    scored = recipe.scored_entries
    samples = ValidationSamples(
        readers_of(scored.values()),
        startup.preprocessing,
        image_crops=crops,
        names=list(scored),
        cameras=cameras.options,
    )
    shown = {row: rows[row] for row in ("base_fitted_scale", name) if row in rows}
    evaluations = evaluate(
        accelerator,
        samples,
        rows,
        protocols,
        workers=choose_loading(recipe.data, accelerator.device).workers,
        batch_size=recipe.run.batch_size,
    )
    return evaluations, ShownFrames(samples=samples, rows=shown, protocol=protocols[0])


def baseline_rows(startup: Startup, assume_training_camera: bool = False) -> dict[str, Row]:
    """What costs nothing but a fit: constants, and the base."""
    checkpoint, baselines = startup.checkpoint, startup.baselines
    rows: dict[str, Row] = {"constant_median": predict_constant(baselines)}
    if baselines:
        rows["best_constant"] = predict_everywhere(baselines.best_m)
    if checkpoint and checkpoint.has_head:
        network = whole_network(checkpoint).to(startup.accelerator.device)
        # Where no frame has a camera, one scale is fitted to what a canonical base predicts for its own lens.
        assume = assume_training_camera or startup.camera.camera is None
        base = predict_with_network(network, assume_training_camera=assume)
        if checkpoint.kind == "metric":
            rows["base"] = base
        # In a relative run there is no fit; the protocol aligns the base.
        rows["base_fitted_scale"] = ScaledBaseline(predict=base, depth_m=baselines.base_depth_m) if baselines else base
    return rows


def _calibrated_start(startup: Startup) -> DepthModel:
    """The network as it was before step 1, made anew: the one of ``startup`` may have been trained since."""
    network, _ = make_model(startup.recipe, startup.checkpoint, startup.camera)
    assert startup.solved is not None
    network.head.last.load_state_dict(startup.solved)
    return network.eval()
