"""What a table means, in plain words, and what to try next.

Each verdict is a fact that the table or the course of the run shows, followed by a step that can be taken. Nothing is
said that the numbers do not decide.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from finetune.evaluation.metrics import HIGHER_IS_BETTER, is_better
from finetune.evaluation.results import OVERFIT_SHARE, Evaluated, Evaluation

# Rows that cost nothing: what a model must beat to be worth its training.
FREE_ROWS = ("constant_median", "best_constant", "base", "base_fitted_scale", "calibrated_start")
# A distance at which fewer pixels were measured decides nothing.
_MIN_OF_PIXELS = 0.02
# How much of the mean squared error in logarithms one factor must explain before it is the cause; and how far the
# factor must be from 1 to be worth a word.
_MAX_OF_ERROR, _MIN_FACTOR = 0.5, 1.03
# Fewer training frames than this are few for a network; a calibrated start makes some fifty enough.
FEW_FRAMES = 50
# Of fewer validation images the spread says too little about the mean.
_MIN_IMAGES = 5
# By which share of itself the metric must still have got better to be called falling.
_FALLING_SHARE = 0.02


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """
    Attributes:
        found: what the numbers show, without a full stop.
        try_next: what to do, likewise.
    """

    found: str
    try_next: str

    def __str__(self) -> str:
        return f"verdict: {self.found}. Next: {self.try_next}."


def verdicts(
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
        own: the row that is judged.
        metric: by which ``best/`` is chosen.
        history: evaluations in the course of the run, by step; none where nothing was trained.
        training_frames: how many frames it was trained on; None where nothing was.

    Returns:
        Whether the row beats what costs nothing first, then what explains it and what the course of the run shows.
    """
    free = [row for row in FREE_ROWS if row in evaluation.rows]
    of_course = list(_of_course(history, metric))
    found = [_against_free(evaluation, own, metric, free)] if free else []
    found += _one_factor(evaluation, own)
    found += of_course
    if training_frames is not None and training_frames < FEW_FRAMES:
        found.append(
            Verdict(
                found=f"{training_frames} training frames are few",
                try_next="record more, of other places and distances; until then hold on to what the base knows, with "
                "model.train: decoder or lora, and with augment",
            )
        )
    return found


def _against_free(evaluation: Evaluation, own: str, metric: str, free: Sequence[str]) -> Verdict:
    """Whether the row beats every free one, everywhere or at some distances only."""
    rows = evaluation.rows
    rival = free[0]
    for row in free:
        rival = row if is_better(metric, rows[row][metric], rows[rival][metric]) else rival
    value, of_rival = rows[own][metric], rows[rival][metric]
    numbers = f"{metric} {value:.4f} against {of_rival:.4f}"
    if not is_better(metric, value, of_rival):
        return Verdict(
            found=f"{own} does not beat {rival} ({numbers}), which costs nothing",
            try_next="look at the panels and at data.train, whether image and depth belong together; then train longer "
            "or at higher rates",
        )
    worse = list(_worse_distances(evaluation, own, free))
    if worse:
        return Verdict(
            found=f"{own} beats all that costs nothing ({numbers} of {rival}), but only at some distances: "
            + "; ".join(sentence for _, sentence in worse),
            try_next="train on more frames at these distances" + _weighing(evaluation, own, [p for p, _ in worse]),
        )
    chance = _within_chance(evaluation, own, rival, metric)
    if chance:
        return Verdict(
            found=f"{own} beats all that costs nothing ({numbers} of {rival}), but {chance}",
            try_next="score more images, of more places, before you trust the difference",
        )
    where = ", at every measured distance" if evaluation.bins else ""
    return Verdict(
        found=f"{own} beats all that costs nothing{where} ({numbers} of {rival})",
        try_next="look at the worst images, and score a place that nothing was chosen or trained on",
    )


def _weighing(evaluation: Evaluation, own: str, worse: Sequence[int]) -> str:
    """What else helps at the distances that ``worse`` counts: near ones and far ones ask for opposite losses."""
    bins = evaluation.bins[own]
    total = sum(one["pixels"] or 0 for one in bins)
    counted = [place for place, one in enumerate(bins) if (one["pixels"] or 0) >= _MIN_OF_PIXELS * total]
    if worse == [place for place in counted if place <= worse[-1]]:
        return (
            ", or give near depth more weight by a loss of relative error such as silog or log_l1 alone; if they are "
            "what you need, set evaluation.max_depth_m and model.max_depth_m to them"
        )
    if worse == [place for place in counted if place >= worse[0]]:
        return (
            f", or give far depth more weight by adding l1, whose error is in meters; if you need no depth beyond "
            f"{bins[worse[0]]['from_m']:g} m, set evaluation.max_depth_m and model.max_depth_m to it"
        )
    return ""


def _worse_distances(evaluation: Evaluation, own: str, free: Sequence[str]) -> Iterator[tuple[int, str]]:
    """At which distances some free row has the smaller AbsRel, by place, and in words with the share of the pixels."""
    bins = evaluation.bins
    total = sum(one["pixels"] or 0 for one in bins.get(own, ()))
    for place, one in enumerate(bins.get(own, ())):
        share = (one["pixels"] or 0) / max(1, total)
        if share < _MIN_OF_PIXELS:
            continue
        errors = {row: bins[row][place]["abs_rel"] for row in free if row in bins}
        known = {row: error for row, error in errors.items() if error is not None}
        value = one["abs_rel"]
        if value is None or not known:
            continue
        rival = min(known, key=lambda row: known[row])
        if value >= known[rival]:
            yield (
                place,
                f"from {one['from_m']:g} to {one['to_m']:g} m, where {share:.0%} of the pixels are, AbsRel is "
                f"{value:.4f} against {known[rival]:.4f} of {rival}",
            )


def _within_chance(evaluation: Evaluation, own: str, rival: str, metric: str) -> str | None:
    """That so few images could show the difference by chance; None where they hardly could, or it cannot be told."""
    gains = [one.rows[rival][metric] - one.rows[own][metric] for one in evaluation.images]
    if not gains:
        return None
    if len(gains) < _MIN_IMAGES:
        return f"over {len(gains)} image(s) only, too few to tell it from chance"
    mean = math.fsum(gains) / len(gains)
    error = math.sqrt(math.fsum((one - mean) ** 2 for one in gains) / (len(gains) - 1) / len(gains))
    # Twice the standard error of the mean of pairs: about one in twenty by chance.
    if abs(mean) > 2 * error:
        return None
    return (
        f"over {len(gains)} images the difference, {abs(mean):.4f}, is less than twice its standard error, {error:.4f}"
    )


def _one_factor(evaluation: Evaluation, own: str) -> list[Verdict]:
    """That answers are wrong by one factor above all, where they are."""
    logs = [one.mean_logs[own] for one in evaluation.images if own in one.mean_logs]
    squares = [one.rows[own]["rmse_log"] ** 2 for one in evaluation.images if own in one.mean_logs]
    if not logs or evaluation.protocol.aligns:
        return []
    mean = math.fsum(logs) / len(logs)
    share = mean**2 / max(math.fsum(squares) / len(squares), 1e-300)
    factor = math.exp(mean)
    if share < _MAX_OF_ERROR or max(factor, 1 / factor) < _MIN_FACTOR:
        return []
    unit = 900 < factor < 1100 or 900 < 1 / factor < 1100
    return [
        Verdict(
            found=f"one factor explains {share:.0%} of the squared error in logarithms: answers are {factor:.4g} times "
            "what was measured",
            try_next="mend the unit, which is 1,000 times off: millimeters stand for meters"
            if unit
            else "compare meters_per_unit of data.train and data.val; if both are right, this camera differs from "
            "those trained on: finetune calibrate fits the one factor",
        )
    ]


def _of_course(history: Sequence[Evaluated], metric: str) -> Iterator[Verdict]:
    """Whether the run got worse again, or was still getting better when it ended."""
    trained = [one for one in history if one.step > 0]
    if len(trained) < 2:
        return
    best = trained[0]
    for one in trained:
        best = one if is_better(metric, one.value, best.value) else best
    last, before = trained[-1], trained[-2]
    change = abs(last.value - best.value) / max(abs(best.value), 1e-12)
    if best is not last and change >= OVERFIT_SHARE:
        fell = best.loss is not None and last.loss is not None and last.loss < best.loss
        while_loss = ", while the training loss went on falling: it learns its frames by heart" if fell else ""
        yield Verdict(
            found=f"validation {metric} was {best.value:.4f} at step {best.step} and ended at {last.value:.4f}"
            f"{while_loss}",
            try_next="more frames or more augment"
            + ("" if fell else ", lower rates")
            + f", or run.steps of about {best.step}",
        )
    gained = abs(before.value - last.value) / max(abs(before.value), 1e-12)
    if best is last and gained >= _FALLING_SHARE:
        moved = "rose" if metric in HIGHER_IS_BETTER else "fell"
        yield Verdict(
            found=f"validation {metric} still {moved} at the end, from {before.value:.4f} at step {before.step} to "
            f"{last.value:.4f} at step {last.step}",
            try_next=f"train longer: run.steps of {2 * last.step} or more",
        )
