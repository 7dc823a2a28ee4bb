import numpy as np
import pytest

from finetune.evaluation.metrics import TargetDepth
from finetune.evaluation.protocol_settings import PROTOCOLS
from finetune.evaluation.protocols import Protocol
from finetune.recipe.cross_checks import PROTOCOL_OF_HEAD
from finetune.recipe.schema import EvaluationOptions

PLAIN = Protocol(min_depth_m=0.1, max_depth_m=10.0)
ALIGNED = Protocol(name="plain+align=scale_shift_inverse", min_depth_m=0.1, max_depth_m=10.0, kind="relative")
EVERYWHERE = np.ones((1, 3), bool)


def test_range_decides_which_pixels_count() -> None:
    target_m = np.array([[0.05, 0.1, 5.0, 10.0, 10.5]], dtype=np.float32)
    # 0.1 in float32 is a little above 0.1, so the bound itself counts.
    assert PLAIN.usable(target_m, np.ones((1, 5), bool)).tolist() == [[False, True, True, True, False]]
    assert not PLAIN.usable(target_m, np.zeros((1, 5), bool)).any()


@pytest.mark.parametrize("name", PROTOCOLS)
def test_whether_depth_at_the_very_ends_of_the_range_counts(name: str) -> None:
    settings = PROTOCOLS[name]
    least_m, most_m = settings.min_depth_m or 0.25, settings.max_depth_m or 20.0
    # Compared in float32, as the published code does: a stored 0.001 m is 0.001 m, though a little more in float64.
    ends = np.array([least_m, most_m], np.float32)
    within, beyond = (np.nextafter(ends, np.array(to, np.float32)) for to in ([1, 1], [0, 99]))
    size = (480, 640) if settings.crop == "nyu_eigen" else (352, 1216)
    target_m = np.ones(size, np.float32)
    target_m[200, 100:106] = [*ends, *within, *beyond]
    protocol = Protocol(name=name, min_depth_m=least_m, max_depth_m=most_m)
    found = protocol.usable(target_m, np.ones(size, bool))[200, 100:106].tolist()
    # Strict in what NYU's and KITTI's published tables do, inclusive in plain and in the reference script.
    counts = name in ("plain", "reference_script")
    assert found == [counts, counts, True, True, False, False]


def test_prediction_is_clamped_before_it_is_scored() -> None:
    target_m = np.array([[5.0, 10.0]], dtype=np.float32)
    scores = PLAIN.score(np.array([[0.0, 40.0]]), target_m, np.ones((1, 2), bool))
    assert scores["abs_rel"] == pytest.approx((4.9 / 5.0 + 0.0) / 2)
    assert np.isfinite(list(scores.values())).all()


def test_every_setting_stands_in_the_record() -> None:
    record = PLAIN.to_mapping()
    assert {"name", "crop", "clamp", "alignment", "averaging", "flip", "resolution", "min_depth_m"} <= record.keys()
    assert record["clamp"] == "prediction to [min_depth_m, max_depth_m]; after resize, mirrored average and alignment"
    reference = Protocol(name="reference_script", min_depth_m=0.1, max_depth_m=10.0).to_mapping()["clamp"]
    assert reference == "none, but prediction at least 1e-06 m; after resize, mirrored average and alignment"


def test_the_clamp_comes_after_the_alignment() -> None:
    median = Protocol(name="plain+align=median", min_depth_m=0.1, max_depth_m=10.0)
    prediction, target_m = np.array([[5.0, 10.0, 30.0]]), np.array([[2.5, 5.0, 15.0]], np.float32)
    usable = median.usable(target_m, EVERYWHERE)
    assert usable.tolist() == [[True, True, False]]
    # Medians 3.75 over 7.5; clamped first, 30 m would have become 10 m and so 5 m.
    pred_m = median.depth_m(prediction, target_m, usable)
    assert pred_m.tolist() == [[2.5, 5.0, 15.0]]
    everywhere = Protocol(name="plain+align=median", min_depth_m=0.1, max_depth_m=15.0)
    aligned_m = everywhere.depth_m(prediction, target_m, EVERYWHERE)[EVERYWHERE]
    found = everywhere.compared(aligned_m, TargetDepth(target_m[EVERYWHERE].astype(float)))
    assert found.error_m.tolist() == [0.0, 0.0, 0.0]


def test_sky_is_never_compared() -> None:
    assert PLAIN.usable(np.array([[1.0, np.inf]], np.float32), np.ones((1, 2), bool)).tolist() == [[True, False]]


def test_plain_takes_predictions_for_meters() -> None:
    prediction = np.array([[1.0, 2.0, 3.0]])
    assert PLAIN.depth_m(prediction, np.ones((1, 3), np.float32), EVERYWHERE) is prediction


def test_scale_and_shift_in_inverse_depth_by_hand() -> None:
    target_m = np.array([[1.0, 2.0, 4.0]], np.float32)
    # Inverse 1, 0.5, 0.25 against 2, 1, 0: slope 0.75 / 2, through the means 7/12 and 1.
    pred_m = ALIGNED.depth_m(np.array([[2.0, 1.0, 0.0]]), target_m, EVERYWHERE)
    assert 1 / pred_m == pytest.approx(np.array([[23 / 24, 14 / 24, 5 / 24]]))
    scores = ALIGNED.score(pred_m, target_m, EVERYWHERE)
    assert scores["abs_rel"] == pytest.approx((1 / 23 + 1 / 7 + 1 / 5) / 3)


def test_a_relative_prediction_that_is_right_up_to_scale_and_shift_is_right() -> None:
    target_m = np.array([[1.0, 2.0, 4.0]], np.float32)
    for scale, shift in ((1.0, 0.0), (30.0, 5.0), (0.01, -2.0)):
        pred_m = ALIGNED.depth_m(scale / target_m + shift, target_m, EVERYWHERE)
        assert pred_m == pytest.approx(target_m, rel=1e-5)


def test_pixels_that_do_not_count_are_answered_and_do_not_pull() -> None:
    target_m = np.array([[1.0, 2.0, np.inf, np.nan]], np.float32)
    usable = ALIGNED.usable(target_m, np.array([[True, True, True, False]]))
    pred_m = ALIGNED.depth_m(np.array([[3.0, 2.0, 0.5, 5.0]]), target_m, usable)
    # The line through (3, 1) and (2, 0.5) is below 0 at 0.5, which is as far as there is.
    assert pred_m == pytest.approx(np.array([[1.0, 2.0, 10.0, 0.5]]))


def test_a_prediction_that_is_turned_around_is_scored_as_a_constant() -> None:
    target_m = np.array([[1.0, 2.0, 4.0]], np.float32)
    turned, constant = (ALIGNED.depth_m(prediction, target_m, EVERYWHERE) for prediction in (target_m, np.ones((1, 3))))
    assert turned == pytest.approx(constant)
    assert constant == pytest.approx(np.full((1, 3), 12 / 7))  # the mean inverse is 7/12


def test_relative_depth_gets_its_scale_and_shift_in_depth() -> None:
    protocol = Protocol(name="plain+align=scale_shift", min_depth_m=0.1, max_depth_m=10.0, kind="relative_depth")
    target_m = np.array([[1.0, 2.0, 4.0]], np.float32)
    for scale, shift in ((1.0, 0.0), (30.0, 5.0), (0.01, -2.0)):
        assert protocol.depth_m(scale * target_m + shift, target_m, EVERYWHERE) == pytest.approx(target_m, rel=1e-4)
    # Turned around it is scored as a constant, the mean.
    assert protocol.depth_m(1 / target_m, target_m, EVERYWHERE) == pytest.approx(np.full((1, 3), 7 / 3))
    assert protocol.to_mapping()["answers"] == "relative depth"


def test_the_record_says_what_is_fitted() -> None:
    assert PLAIN.to_mapping()["alignment"] == "none"
    assert "inverse depth" in ALIGNED.to_mapping()["alignment"]


def test_a_recipe_knows_the_protocols_there_are() -> None:
    for name in (*PROTOCOLS, *PROTOCOL_OF_HEAD.values()):
        assert EvaluationOptions(protocols=(name,)).protocols == (name,)
