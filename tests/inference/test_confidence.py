"""The disagreement with the mirrored image, by hand and of a network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from finetune.inference.confidence import measure_disagreement, predict_disagreement
from finetune.inference.predictor import load_model
from tests.small_models import write_model


def test_by_hand() -> None:
    prediction = np.array([[2.0, 4.0], [1.0, 0.0]], np.float32)
    mirrored = np.array([[2.2, 1.0], [1.0, 4.0]], np.float32)
    # ln 1.1, ln 4, 0, and the ln of 1000: 0 counts as a thousandth of the largest.
    expected = np.array([[0.0953102, 1.3862944], [0.0, 6.9077553]])
    assert measure_disagreement(prediction, mirrored) == pytest.approx(expected, abs=1e-5)
    # It has no unit: the same for the inverse of both, and for any scale.
    assert measure_disagreement(3 * prediction[:1], 3 * mirrored[:1]) == pytest.approx(expected[:1], abs=1e-5)
    assert measure_disagreement(1 / prediction[:1], 1 / mirrored[:1]) == pytest.approx(expected[:1], abs=1e-5)
    assert not measure_disagreement(np.zeros((2, 2)), np.zeros((2, 2))).any()


@pytest.mark.parametrize("max_depth_m", [10.0, None])
def test_of_a_network(tmp_path: Path, max_depth_m: float | None) -> None:
    model = load_model(write_model(tmp_path / "m.safetensors", max_depth_m))
    image = np.random.default_rng(0).integers(0, 255, (28, 42, 3), dtype=np.uint8)
    found = predict_disagreement(model, image, None)
    plain, both = model.predict(image), model.predict(image, flip=True)
    assert found == pytest.approx(np.abs(np.log(plain) - np.log(2 * both - plain)), abs=1e-4)
    assert found.max() > 1e-4
    assert (predict_disagreement(model, image, None, plain) == found).all()
    # The mirrored image has the mirrored disagreement.
    mirrored = np.ascontiguousarray(image[:, ::-1])
    assert predict_disagreement(model, mirrored, None) == pytest.approx(found[:, ::-1], abs=1e-5)
