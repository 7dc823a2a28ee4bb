"""Risk-coverage curves by hand, and what they must be for the best, the worst and no uncertainty."""

from __future__ import annotations

import numpy as np
import pytest

from finetune.evaluation.risk_coverage import COVERAGES, average_curves, kept_errors


def test_by_hand() -> None:
    errors, uncertainty = np.array([0.1, 0.4, 0.2, 0.3]), np.array([1.0, 2.0, 4.0, 3.0])
    # Kept of four: all 0.25; without the third (0.1 + 0.4 + 0.3) / 3; then (0.1 + 0.4) / 2; then 0.1.
    found = kept_errors(errors, uncertainty, (1.0, 0.75, 0.5, 0.25, 0.0))
    assert found == pytest.approx([0.25, 0.8 / 3, 0.25, 0.1, 0.1])
    # The two of one uncertainty count as 0.3 each, in whichever order they are.
    tied = np.array([1.0, 2.0, 2.0, 3.0])
    for order in ([0, 1, 2, 3], [0, 2, 1, 3]):
        assert kept_errors(errors[order], tied[order], (0.5,)) == pytest.approx([0.2])


def test_the_areas_of_a_perfect_a_useless_and_a_wrong_order() -> None:
    errors = np.linspace(0.0, 1.0, 1001)
    perfect = average_curves([(errors, errors**3)])  # only the order counts
    assert perfect.ause == pytest.approx(0.0, abs=1e-12)
    # The mean of the smallest share c of 0 to 1 is c / 2. Between a coverage of 0.05 and 1 the oracle has the area
    # (1 - 0.05^2) / 4 = 0.249375, all errors have 0.95 / 2 = 0.475.
    assert perfect.ause_random == pytest.approx(0.475 - 0.249375, abs=1e-3)
    useless = average_curves([(errors, np.ones_like(errors))])
    assert useless.ause == pytest.approx(useless.ause_random)
    assert useless.risk == pytest.approx(useless.random)
    # The largest errors are kept: 1 - c / 2.
    wrong = average_curves([(errors, -errors)])
    assert wrong.ause == pytest.approx(0.95 - 2 * 0.249375, abs=1e-3)


def test_images_weigh_the_same() -> None:
    small, large = np.array([0.2, 0.6]), np.full(1000, 0.1)
    found = average_curves([(small, small), (large, large)])
    assert found.random[0] == pytest.approx((0.4 + 0.1) / 2)
    assert found.risk[0] == found.oracle[0] == pytest.approx(found.random[0])
    assert found.risk[-1] == pytest.approx((0.2 + 0.1) / 2)  # at least one pixel of each is kept
    mapping = found.to_mapping()
    assert mapping["coverages"] == list(COVERAGES) and mapping["ause"] == found.ause and mapping["images"] == 2
