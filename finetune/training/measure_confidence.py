"""How much the disagreement with the mirrored image says about the errors of a model, on a recipe's validation data."""

from __future__ import annotations

from dataclasses import replace

from finetune.data.validation_dataset import ValidationSamples
from finetune.evaluation.evaluator import PredictionRequest, predict_with_network
from finetune.evaluation.metrics import TargetDepth
from finetune.evaluation.risk_coverage import RiskCoverage, average_curves
from finetune.inference.confidence import measure_disagreement
from finetune.inference.frame_cameras import UNKNOWN_CAMERAS, FrameCameras
from finetune.inference.predictor import Predictor
from finetune.recipe.schema import Recipe
from finetune.training.startup import make_protocols, readers_of


def measure_confidence(recipe: Recipe, predictor: Predictor, cameras: FrameCameras = UNKNOWN_CAMERAS) -> RiskCoverage:
    """
    Args:
        recipe: its scored entries of ``data.val`` are compared by its first protocol. One of them has a pixel that
            counts, since the table was made before.
        predictor: the model, whose network may be on any device.
        cameras: of frames whose reader gives none.

    Returns:
        The mean over the images, for AbsRel. Every process that calls does all of the work.
    """
    scored = recipe.scored_entries
    protocol = make_protocols(recipe)[0]
    crop, corners = protocol.settings.image_crop, protocol.settings.align_corners
    samples = ValidationSamples(
        readers_of(scored.values()),
        predictor.preprocessing,
        image_crops=[crop],
        names=list(scored),
        cameras=cameras.options,
    )
    predict = predict_with_network(predictor.network.eval(), assume_training_camera=cameras.assume_training)
    images = []
    for number in range(len(samples)):
        frame = samples[number]
        image, sample = frame.views[crop]
        usable = protocol.usable(sample.depth_m, sample.valid, sample.source)
        if not usable.any():
            continue
        request = PredictionRequest(
            image=image,
            size=(sample.depth_m.shape[0], sample.depth_m.shape[1]),
            number=number,
            image_crop=crop,
            align_corners=corners,
            focal_px=frame.focals_px.get(crop),
        )
        plain, mirrored = predict([request, replace(request, image=image.flip(-1))])
        mirrored = mirrored[:, ::-1]
        prediction = (plain + mirrored) / 2 if protocol.settings.flip else plain
        pred_m = protocol.depth_m(prediction, sample.depth_m, usable)
        compared = protocol.compared(pred_m[usable], TargetDepth(sample.depth_m[usable].astype("float64")))
        images.append((compared.relative, measure_disagreement(plain, mirrored)[usable]))
    return average_curves(images)


def format_confidence(found: RiskCoverage) -> str:
    """The curves as lines for a terminal."""
    lines = [
        f"{100 * found.coverages[i]:5.0f} %  {found.risk[i]:.4f}  {found.oracle[i]:.4f}  {found.random[i]:.4f}"
        for i in range(0, len(found.coverages), 5)
    ]
    return "\n".join(
        [
            "confidence: AbsRel of what is kept if the pixels are left out where the mirrored image disagrees most",
            "  kept  AbsRel  oracle  random",
            *lines,
            f"area above the oracle (AUSE): {found.ause:.4f}; of a random order {found.ause_random:.4f}: "
            f"{describe_confidence(found)}",
        ]
    )


def describe_confidence(found: RiskCoverage) -> str:
    """What the areas mean, as a clause."""
    if found.ause >= found.ause_random:
        return "it says nothing about the errors of this model on this data; do not use it"
    share = 1 - found.ause / found.ause_random
    return f"it finds {100 * share:.0f} % of what a perfect order would"
