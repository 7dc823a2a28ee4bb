import numpy as np
import pytest

from finetune.protocols import Protocol

PLAIN = Protocol(min_depth_m=0.1, max_depth_m=10.0)


def test_range_decides_which_pixels_count() -> None:
    target_m = np.array([[0.05, 0.1, 5.0, 10.0, 10.5]], dtype=np.float32)
    # 0.1 in float32 is a little above 0.1, so the bound itself counts.
    assert PLAIN.usable(target_m, np.ones((1, 5), bool)).tolist() == [[False, True, True, True, False]]
    assert not PLAIN.usable(target_m, np.zeros((1, 5), bool)).any()


def test_prediction_is_clamped_before_it_is_scored() -> None:
    target_m = np.array([[5.0, 10.0]], dtype=np.float32)
    scores = PLAIN.score(np.array([[0.0, 40.0]]), target_m, np.ones((1, 2), bool))
    assert scores["abs_rel"] == pytest.approx((4.9 / 5.0 + 0.0) / 2)
    assert np.isfinite(list(scores.values())).all()


def test_every_setting_stands_in_the_record() -> None:
    record = PLAIN.to_mapping()
    assert {"name", "crop", "clamp", "alignment", "averaging", "flip", "resolution", "min_depth_m"} <= record.keys()
