from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from finetune.evaluation.alignment import InverseFit
from finetune.inference.inputs import Input
from finetune.inference.pseudo_labels.teacher import Anchored, count_label, label_anchored, label_as_predicted
from finetune.utils.errors import DataError


def test_the_largest_label_is_the_largest_number() -> None:
    values = np.array([[0.0, 1.0, 2.0, 4.0, 9.0]])
    valid = np.array([[True, True, True, True, False]])
    numbers, unit = count_label(values, valid)
    # 4 / 65535 = 6.1036e-05; 1 / unit = 16383.75, 2 / unit = 32767.5, which rounds to even; 0 is label 1.
    assert unit == 4.0 / 65535
    assert numbers.dtype == np.uint16 and numbers.tolist() == [[1, 16384, 32768, 65535, 0]]


def test_a_near_scene_keeps_its_resolution() -> None:
    values = np.linspace(0.30, 0.31, 100)[None]
    numbers, unit = count_label(values, np.ones_like(values, bool))
    assert np.abs(numbers * unit - values).max() <= 0.31 / 65535 / 2 * (1 + 1e-9)


def test_the_label_is_the_prediction_with_the_log_of_the_disagreement() -> None:
    prediction, mirrored = np.array([[1.0, 2.0]], np.float32), np.array([[1.0, 3.0]], np.float32)
    label = label_as_predicted(Path("a.png"), prediction, mirrored)
    assert label.values.tolist() == [[1.0, 2.0]] and label.valid.all()
    assert label.disagreement.tolist() == [[0.0, pytest.approx(math.log(1.5), rel=1e-6)]]


class Half:
    """Anchors to 1 / (2 x), and doubts its second pixel by 0.1 and its third by 0.5."""

    def anchor(self, given: Input, image: NDArray[np.uint8], inverse: NDArray[np.float64]) -> Anchored:
        return Anchored(
            depth_m=1 / (2 * inverse),
            valid=np.ones(inverse.shape, bool),
            doubt=np.array([[0.0, 0.1, 0.5]], np.float32),
            fit=InverseFit(scale=2.0, shift=0.0),
            inlier_share=1.0,
            residual=0.0,
        )


def test_an_anchored_label_is_as_unsure_as_the_mirror_image_or_its_anchor() -> None:
    both = np.array([[1.0, 1.0, 1.0]], np.float32), np.array([[1.0, 1.2, 1.2]], np.float32)
    given = Input(path=Path("a.png"))
    label = label_anchored(given, np.zeros((1, 3, 3), np.uint8), both, Half(), is_metric=False)
    assert label.values.tolist() == [[0.5, 0.5, 0.5]] and label.valid.all()
    # ln 1.2 = 0.182
    assert label.disagreement.tolist() == [[0.0, pytest.approx(math.log(1.2), rel=1e-6), 0.5]]


def test_an_image_in_which_the_teacher_sees_nothing_is_refused() -> None:
    nothing = np.zeros((2, 3), np.float32)
    with pytest.raises(DataError, match=r"a\.png: is infinitely far everywhere to the teacher"):
        label_as_predicted(Path("a.png"), nothing, nothing)
