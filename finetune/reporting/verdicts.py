"""What a table means, in plain words, and what to try next.

Each verdict is a fact that the table or the course of the run shows, followed by a step that the user can take. Nothing
is said that the numbers do not decide.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from finetune.evaluation.metrics import HIGHER_IS_BETTER, TITLES, is_better
from finetune.evaluation.results import OVERFIT_SHARE, Evaluated, Evaluation

# Rows that need no training: a model must beat them to be worth its training.
BASELINE_ROWS = ("constant_median", "best_constant", "base", "base_fitted_scale", "calibrated_start")
# A distance with a smaller share of the measured pixels decides nothing.
_MIN_PIXEL_SHARE = 0.02
# One factor is the cause of the error when it explains this share of the mean squared logarithmic error, and worth a
# sentence when it is this far from 1.
_MIN_EXPLAINED_SHARE, _MIN_FACTOR = 0.5, 1.03
# Fewer training frames are few for a network; with a calibrated start about fifty are enough.
FEW_FRAMES = 50
# With fewer validation images the spread says too little about the mean.
_MIN_IMAGES = 5
# The metric must have improved by this share of itself to count as still improving.
_IMPROVING_SHARE = 0.02


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """
    Attributes:
        found: what the numbers show, without a full stop.
        try_next: what to do, also without a full stop.
    """

    found: str
    try_next: str

    def __str__(self) -> str:
        return f"verdict: {self.found}. Next: {self.try_next}."


def find_verdicts(
    evaluation: Evaluation,
    own: str,
    metric: str,
    *,
    history: Sequence[Evaluated] = (),
    training_frames: int | None = None,
) -> list[Verdict]:
    """
    Args:
        evaluation: the table, with its images.
        own: the row to judge.
        metric: by which ``best/`` is chosen.
        history: evaluations during the run, by step; empty where nothing was trained.
        training_frames: how many frames it was trained on; None where nothing was trained.

    Returns:
        First whether the row beats the baselines, then what explains the error and what the course of the run shows.
    """
    baselines = [row for row in BASELINE_ROWS if row in evaluation.rows]
    found = [_judge_against_baselines(evaluation, own, metric, baselines)] if baselines else []
    found += _judge_scale(evaluation, own)
    found += _judge_course(history, metric)
    if training_frames is not None and training_frames < FEW_FRAMES:
        found.append(
            Verdict(
                found=f"{training_frames} training frames are few",
                try_next="record more, at other places and distances; until then train fewer weights, by model.train: "
                "decoder or lora, and use augment",
            )
        )
    return found


def _judge_against_baselines(evaluation: Evaluation, own: str, metric: str, baselines: Sequence[str]) -> Verdict:
    """Whether the row beats every baseline, and whether it does so at every distance."""
    rows = evaluation.rows
    rival = baselines[0]
    for row in baselines:
        rival = row if is_better(metric, rows[row][metric], rows[rival][metric]) else rival
    value, rival_value = rows[own][metric], rows[rival][metric]
    numbers = f"{TITLES[metric]} {value:.4f} against {rival_value:.4f}"
    if not is_better(metric, value, rival_value):
        return Verdict(
            found=f"{own} does not beat {rival} ({numbers}), a baseline that needs no training",
            try_next="check that image and depth of data.train belong together; then train longer or with higher "
            "learning rates",
        )
    worse = list(_find_worse_distances(evaluation, own, baselines))
    if worse:
        return Verdict(
            found=f"{own} beats every baseline overall ({numbers} of {rival}), but not at every distance: "
            + "; ".join(sentence for _, sentence in worse),
            try_next="train on more frames at these distances"
            + _suggest_weights(evaluation, own, [number for number, _ in worse]),
        )
    doubt = _describe_doubt(evaluation, own, rival, metric)
    if doubt:
        return Verdict(
            found=f"{own} beats every baseline ({numbers} of {rival}), but {doubt}",
            try_next="evaluate on more images, from more places, before you trust the difference",
        )
    where = " at every measured distance" if evaluation.bins else ""
    return Verdict(
        found=f"{own} beats every baseline{where} ({numbers} of {rival})",
        try_next="look at the worst images, and evaluate on a place that was used neither to train nor to choose "
        "weights",
    )


def _suggest_weights(evaluation: Evaluation, own: str, worse: Sequence[int]) -> str:
    """What else helps at the bins ``worse``: near and far distances need opposite losses."""
    bins = evaluation.bins[own]
    total = sum(found["pixels"] or 0 for found in bins)
    counted = [i for i, found in enumerate(bins) if (found["pixels"] or 0) >= _MIN_PIXEL_SHARE * total]
    if worse == [i for i in counted if i <= worse[-1]]:
        return (
            ", or give near depth more weight: use losses of relative error alone, such as silog or log_l1; if you "
            "need no other distances, set evaluation.max_depth_m and model.max_depth_m to "
            f"{bins[worse[-1]]['to_m']:g}"
        )
    if worse == [i for i in counted if i >= worse[0]]:
        near_m = f"{bins[worse[0]]['from_m']:g}"
        return (
            ", or give far depth more weight: add l1, whose error is in meters; if you need no depth beyond "
            f"{near_m} m, set evaluation.max_depth_m and model.max_depth_m to {near_m}"
        )
    return ""


def _find_worse_distances(evaluation: Evaluation, own: str, baselines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Bins where a baseline has the smaller AbsRel: their numbers, and a sentence with their share of the pixels."""
    bins = evaluation.bins
    total = sum(found["pixels"] or 0 for found in bins.get(own, ()))
    for i, found in enumerate(bins.get(own, ())):
        share = (found["pixels"] or 0) / max(1, total)
        if share < _MIN_PIXEL_SHARE:
            continue
        errors = {row: bins[row][i]["abs_rel"] for row in baselines if row in bins}
        known = {row: error for row, error in errors.items() if error is not None}
        value = found["abs_rel"]
        if value is None or not known:
            continue
        rival = min(known, key=lambda row: known[row])
        if value >= known[rival]:
            yield (
                i,
                f"from {found['from_m']:g} to {found['to_m']:g} m, where {share:.0%} of the pixels are, its AbsRel is "
                f"{value:.4f} against {known[rival]:.4f} of {rival}",
            )


def _describe_doubt(evaluation: Evaluation, own: str, rival: str, metric: str) -> str | None:
    """Why the difference may be chance; None where chance is unlikely, or the images are not known."""
    gains = [image.rows[rival][metric] - image.rows[own][metric] for image in evaluation.images]
    if not gains:
        return None
    if len(gains) < _MIN_IMAGES:
        images = "1 image" if len(gains) == 1 else f"{len(gains)} images"
        return f"only over {images}, too few to rule out chance"
    mean = math.fsum(gains) / len(gains)
    error = math.sqrt(math.fsum((gain - mean) ** 2 for gain in gains) / (len(gains) - 1) / len(gains))
    # Chance exceeds twice the standard error of the mean about once in twenty times.
    if abs(mean) > 2 * error:
        return None
    return (
        f"over {len(gains)} images the difference, {abs(mean):.4f}, is less than twice its standard error, {error:.4f}"
    )


def _judge_scale(evaluation: Evaluation, own: str) -> list[Verdict]:
    """Whether one factor explains most of the error; an aligned protocol has no such factor left."""
    images = [image for image in evaluation.images if own in image.mean_logs]
    if not images or evaluation.protocol.aligns:
        return []
    mean = math.fsum(image.mean_logs[own] for image in images) / len(images)
    mean_square = math.fsum(image.rows[own]["rmse_log"] ** 2 for image in images) / len(images)
    share = mean**2 / max(mean_square, 1e-300)
    factor = math.exp(mean)
    if share < _MIN_EXPLAINED_SHARE or max(factor, 1 / factor) < _MIN_FACTOR:
        return []
    wrong_unit = 900 < factor < 1100 or 900 < 1 / factor < 1100
    return [
        Verdict(
            found=f"one factor explains {share:.0%} of the squared logarithmic error: predictions are {factor:.4g} "
            "times the measured depth",
            try_next="fix the unit, which is off by a factor of 1,000: millimeters and meters are mixed up"
            if wrong_unit
            else "compare meters_per_unit of data.train and data.val; if both are right, this camera differs from the "
            "training cameras: finetune calibrate fits the factor",
        )
    ]


def _judge_course(history: Sequence[Evaluated], metric: str) -> Iterator[Verdict]:
    """Whether the run got worse again, or was still improving when it ended."""
    trained = [evaluated for evaluated in history if evaluated.step > 0]
    if len(trained) < 2:
        return
    best, title = trained[0], TITLES[metric]
    for evaluated in trained:
        best = evaluated if is_better(metric, evaluated.value, best.value) else best
    last, before = trained[-1], trained[-2]
    change = abs(last.value - best.value) / max(abs(best.value), 1e-12)
    if best is not last and change >= OVERFIT_SHARE:
        overfits = best.loss is not None and last.loss is not None and last.loss < best.loss
        reason = ", while the training loss kept falling: the run overfits its training frames" if overfits else ""
        yield Verdict(
            found=f"validation {title} was {best.value:.4f} at step {best.step} and ended at {last.value:.4f}{reason}",
            try_next="use more frames or more augment"
            + ("" if overfits else ", lower learning rates")
            + f", or run.steps of about {best.step}",
        )
    gained = abs(before.value - last.value) / max(abs(before.value), 1e-12)
    if best is last and gained >= _IMPROVING_SHARE:
        moved = "rising" if metric in HIGHER_IS_BETTER else "falling"
        yield Verdict(
            found=f"validation {title} was still {moved} at the end, from {before.value:.4f} at step {before.step} to "
            f"{last.value:.4f} at step {last.step}",
            try_next=f"train longer: run.steps of {2 * last.step} or more",
        )
