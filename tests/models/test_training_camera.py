"""Meters of a canonical network, by hand; what a weights file says of its cameras."""

from pathlib import Path

import pytest

from finetune.models.checkpoints.fill import whole_network
from finetune.models.checkpoints.load import read_checkpoint
from finetune.models.checkpoints.save import save_native
from finetune.models.training_camera import TrainingCamera
from finetune.utils.errors import CheckpointError
from tests.small_models import small_model

CANONICAL = TrainingCamera(mode="canonical", focal_px=200.0, seen_px=(180.0, 320.0), zoom=(1.0, 1.6), max_depth_m=10.0)


def test_a_lens_twice_as_long_is_twice_as_far() -> None:
    assert CANONICAL.meters_factor(400.0) == 2.0
    assert TrainingCamera(mode="none", focal_px=200.0, seen_px=(200.0, 200.0)).meters_factor(400.0) == 1.0


def test_far_is_more_than_a_quarter_beyond() -> None:
    # 180 / 1.25 is 144, 320 * 1.25 is 400.
    assert [CANONICAL.is_far(focal_px) for focal_px in (143.0, 144.0, 200.0, 400.0, 401.0)] == [1, 0, 0, 0, 1]
    assert CANONICAL.seen == "180 to 320 px"


def test_a_weights_file_carries_it(tmp_path: Path) -> None:
    model = small_model(10.0)
    model.camera = CANONICAL
    path = tmp_path / "model.safetensors"
    save_native(path, model, {"preprocessing": {"input_size": [56, 70]}})
    assert whole_network(read_checkpoint(str(path))).camera == CANONICAL
    # Without one, as in files of before.
    model.camera = None
    save_native(path, model, {"preprocessing": {"input_size": [56, 70]}})
    assert "camera" not in read_checkpoint(str(path)).metadata
    assert whole_network(read_checkpoint(str(path))).camera is None


@pytest.mark.parametrize(
    "change", [{"mode": "both"}, {"focal_px": 0}, {"seen_px": [3.0]}, {"seen_px": [3.0, 1.0]}, {"more": 1}]
)
def test_a_damaged_one_is_named_and_not_left_out(change: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_native(path, small_model(10.0), {"camera": CANONICAL.to_mapping() | change})
    with pytest.raises(CheckpointError, match=r"says camera .*expected mode, focal_px"):
        read_checkpoint(str(path))
