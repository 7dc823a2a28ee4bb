"""Each verdict comes from a table made for it, and is missing where the table lacks just its cause."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pytest

from finetune.evaluation.metrics import METRICS
from finetune.evaluation.protocols import Protocol
from finetune.evaluation.results import Evaluated, Evaluation, ScoredImage
from finetune.reporting.verdicts import find_verdicts

PLAIN = Protocol(name="plain", min_depth_m=0.001, max_depth_m=10.0)
FREE = {"constant_median": 0.5, "best_constant": 0.41, "base_fitted_scale": 0.38, "calibrated_start": 0.36}
# Pixels and AbsRel at three distances.
DISTANCES = {
    "constant_median": (0.8, 0.2, 0.4),
    "best_constant": (0.056, 0.3, 0.5),
    "base_fitted_scale": (0.4, 0.2, 0.4),
    "calibrated_start": (0.5, 0.25, 0.35),
}


def made(
    own: float,
    *,
    distances: Sequence[float] = (0.05, 0.1, 0.1),
    pixels: Sequence[int] = (390, 300, 310),
    of_images: Sequence[float] | None = None,
    mean_log: float = 0.0,
    rmse_log: float = 0.2,
    free: Mapping[str, float] = FREE,
    protocol: Protocol = PLAIN,
) -> Evaluation:
    """A table whose row ``finetuned`` has ``own`` in every metric, over ten images unless said otherwise."""
    rows = {**free, "finetuned": own}
    ends = (0.0, 1.0, 2.0, 10.0)
    bins = {
        row: [
            {"from_m": ends[place], "to_m": ends[place + 1], "pixels": pixels[place], "abs_rel": error}
            for place, error in enumerate(distances if row == "finetuned" else DISTANCES[row])
        ]
        for row in rows
    }
    images = [
        ScoredImage(
            number,
            1000,
            {row: {**dict.fromkeys(METRICS, value), "rmse_log": rmse_log} for row, value in of_image.items()},
            dict.fromkeys(rows, mean_log),
            {},
            {},
        )
        for number, value in enumerate(of_images or [own] * 10)
        for of_image in [{**free, "finetuned": value}]
    ]
    return Evaluation(
        protocol=protocol,
        rows={row: dict.fromkeys(METRICS, value) for row, value in rows.items()},
        images_used=len(images),
        images_skipped=0,
        pixels_used=1000 * len(images),
        bins=bins,
        images=images,
    )


def said(evaluation: Evaluation, **more: object) -> str:
    return "\n".join(map(str, find_verdicts(evaluation, "finetuned", "abs_rel", **more)))  # type: ignore[arg-type]


def course(*scores: float, losses: Sequence[float] = ()) -> list[Evaluated]:
    losses = losses or [1.0] * len(scores)
    pairs = zip(scores, losses, strict=True)
    return [Evaluated(step=100 * place, value=value, loss=loss) for place, (value, loss) in enumerate(pairs)]


def test_better_everywhere() -> None:
    (verdict,) = find_verdicts(made(0.1), "finetuned", "abs_rel")
    assert verdict.found == (
        "finetuned beats every baseline at every measured distance (AbsRel 0.1000 against 0.3600 of calibrated_start)"
    )
    assert verdict.try_next


def test_not_better_than_the_best_baseline() -> None:
    # It beats three of four rows, and the fourth it only equals.
    assert "finetuned does not beat calibrated_start (AbsRel 0.3600 against 0.3600)" in said(made(0.36))
    # Without that row it does.
    free = {row: value for row, value in FREE.items() if row != "calibrated_start"}
    assert "finetuned beats every baseline" in said(made(0.36, free=free))


def test_where_more_is_better_the_best_has_the_most() -> None:
    found = find_verdicts(made(0.45), "finetuned", "delta1")
    assert "does not beat constant_median (delta1 0.4500 against 0.5000)" in found[0].found
    assert "beats every baseline" in find_verdicts(made(0.55), "finetuned", "delta1")[0].found


def test_worse_at_the_distance_where_the_pixels_are() -> None:
    text = said(made(0.266, distances=(0.154, 0.1, 0.1)))
    assert (
        "but not at every distance: from 0 to 1 m, where 39% of the pixels are, its AbsRel is 0.1540 against 0.0560 of "
        "best_constant" in text
    )
    assert "from 1 to 2 m" not in text and "at every measured distance" not in text
    assert (
        "Next: train on more frames at these distances, or give near depth more weight: use losses of relative error "
        "alone, such as silog or log_l1; if you need no other distances, set evaluation.max_depth_m and "
        "model.max_depth_m to 1." in text
    )


def test_far_depth_is_not_mended_by_weighing_near_depth() -> None:
    text = said(made(0.266, distances=(0.05, 0.1, 0.6)))
    assert "from 2 to 10 m, where 31% of the pixels are, its AbsRel is 0.6000 against 0.3500" in text
    assert "near depth" not in text and "give far depth more weight: add l1" in text
    assert "if you need no depth beyond 2 m, set evaluation.max_depth_m and model.max_depth_m to 2" in text


def test_a_distance_of_few_pixels_does_not_hide_that_it_is_the_far_end() -> None:
    found = made(0.266, distances=(0.05, 0.5, 0.5), pixels=(690, 300, 10))
    assert "give far depth more weight: add l1" in said(found)


def test_depth_between_is_mended_by_neither_end() -> None:
    text = said(made(0.266, distances=(0.05, 0.5, 0.1)))
    assert "from 1 to 2 m" in text and text.endswith("Next: train on more frames at these distances.")


def test_a_distance_of_hardly_any_pixels_decides_nothing() -> None:
    assert "at every measured distance" in said(made(0.266, distances=(0.154, 0.1, 0.1), pixels=(5, 500, 495)))


def test_a_difference_that_chance_could_make() -> None:
    # Mean gain 0.01; the gains are 0.31 and -0.29: deviation 0.3162, standard error 0.1.
    scattered = made(0.35, of_images=[0.05, 0.65] * 5)
    assert "over 10 images the difference, 0.0100, is less than twice its standard error, 0.1000" in said(scattered)
    assert "standard error" not in said(made(0.35, of_images=[0.349, 0.351] * 5))
    assert "only over 3 images, too few to rule out chance" in said(made(0.1, of_images=[0.1] * 3))


def test_one_factor_that_explains_most_of_the_error() -> None:
    # ln 1.6 = 0.47; squared 0.2209, of a mean square of 0.5^2 = 0.25 that is 88 %.
    text = said(made(0.3, mean_log=math.log(1.6), rmse_log=0.5))
    assert (
        "one factor explains 88% of the squared logarithmic error: predictions are 1.6 times the measured depth" in text
    )
    assert "finetune calibrate" in text
    assert "one factor" not in said(made(0.3, mean_log=math.log(1.6), rmse_log=0.8))
    assert "one factor" not in said(made(0.01, mean_log=0.01, rmse_log=0.0101))  # 1 % is too little to mention
    thousand = said(made(0.999, mean_log=math.log(0.001), rmse_log=6.92))
    assert "0.001 times" in thousand and "off by a factor of 1,000: millimeters and meters are mixed up" in thousand


def test_after_an_alignment_no_factor_is_left_to_name() -> None:
    aligned = Protocol(name="plain+align=median", min_depth_m=0.001, max_depth_m=10.0)
    assert "one factor" not in said(made(0.3, mean_log=math.log(1.6), rmse_log=0.5, protocol=aligned))


def test_few_frames() -> None:
    assert "33 training frames are few" in said(made(0.1), training_frames=33)
    assert "frames are few" not in said(made(0.1), training_frames=50)


def test_overfit() -> None:
    text = said(made(0.1), history=course(0.4, 0.1, 0.12, 0.13, losses=(2.0, 1.0, 0.7, 0.5)))
    assert "validation AbsRel was 0.1000 at step 100 and ended at 0.1300, while the training loss kept fall" in text
    assert "run.steps of about 100" in text
    text = said(made(0.1), history=course(0.4, 0.1, 0.13, losses=(2.0, 1.0, 1.5)))
    assert "ended at 0.1300. Next" in text and "lower learning rates" in text
    assert "ended at" not in said(made(0.1), history=course(0.4, 0.1, 0.104))


@pytest.mark.parametrize(("metric", "scores"), [("abs_rel", (0.4, 0.2, 0.18)), ("delta1", (0.6, 0.8, 0.82))])
def test_still_getting_better_at_the_end(metric: str, scores: Sequence[float]) -> None:
    found = find_verdicts(made(0.1), "finetuned", metric, history=course(*scores))
    (still,) = [str(verdict) for verdict in found if "still" in verdict.found]
    assert f"from {scores[1]:.4f} at step 100 to {scores[2]:.4f} at step 200" in still
    assert "run.steps of 400 or more" in still


def test_a_run_that_has_settled_is_neither() -> None:
    text = said(made(0.1), history=course(0.4, 0.2, 0.199))
    assert "still" not in text and "ended at" not in text
    assert "still" not in said(made(0.1), history=course(0.4, 0.2))  # one step of it shows no course
