import math

import numpy as np
import pytest

from finetune.evaluation.metrics import METRICS, Compared, TargetDepth, is_better, reference_silog

PRED_M, TARGET_M = np.array([2.0, 3.0]), np.array([1.0, 4.0])


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        ("abs_rel", 0.625),  # (1/1 + 1/4) / 2
        ("sq_rel", 0.625),  # (1/1 + 1/4) / 2
        ("rmse", 1.0),
        ("rmse_log", 0.5306666),  # sqrt((0.4804530 + 0.0827610) / 2), squares of ln 2 and ln 0.75
        ("log10", 0.2129844),  # (0.3010300 + 0.1249387) / 2
        ("silog", 49.0414627),  # half of ln 2 - ln 0.75 = 0.980829, times 100
        ("delta1", 0.0),
        ("delta2", 0.5),  # 4/3 < 1.5625 < 2
        ("delta3", 0.5),  # 1.953 < 2
    ],
)
def test_by_hand(name: str, by_hand: float) -> None:
    assert METRICS[name](PRED_M, TARGET_M) == pytest.approx(by_hand, rel=1e-6)


def test_delta_is_strict_at_its_bound() -> None:
    assert METRICS["delta1"](np.array([1.25]), np.array([1.0])) == 0.0
    assert METRICS["delta1"](np.array([math.nextafter(1.25, 0)]), np.array([1.0])) == 1.0


def test_perfect_predictions() -> None:
    for name, metric in METRICS.items():
        assert metric(TARGET_M, TARGET_M) == (1.0 if name.startswith("delta") else 0.0)


def test_twice_the_depth_and_twice_the_prediction() -> None:
    for name, power in (("abs_rel", 0), ("sq_rel", 1), ("rmse", 1), ("rmse_log", 0), ("silog", 0), ("delta2", 0)):
        once, twice = METRICS[name](PRED_M, TARGET_M), METRICS[name](2 * PRED_M, 2 * TARGET_M)
        assert twice == pytest.approx(once * 2**power)


def test_which_direction_is_better() -> None:
    assert is_better("abs_rel", 0.1, 0.2)
    assert not is_better("abs_rel", 0.2, 0.2)
    assert is_better("delta1", 0.9, 0.8)
    assert is_better("rmse", 5.0, None)
    # Documented with each metric, so that nobody has to look here.
    for name, metric in METRICS.items():
        assert f"{'higher' if is_better(name, 1.0, 0.0) else 'lower'} is better" in str(metric.__doc__)


@pytest.mark.parametrize("count", [1, 7, 10_000])
def test_all_at_once_they_are_the_same_bits(count: int) -> None:
    generator = np.random.default_rng(count)
    target_m = generator.uniform(0.3, 9, count)
    for spread in (0.0, 0.2, 2.0):
        pred_m = target_m * generator.lognormal(0.1, spread, count)
        found = Compared(pred_m, TargetDepth(target_m))
        assert found.scores == {name: metric(pred_m, target_m) for name, metric in METRICS.items()}
        assert found.reference_silog == reference_silog(pred_m, target_m)
        assert found.mean_log == float(np.mean(np.log(pred_m) - np.log(target_m)))
