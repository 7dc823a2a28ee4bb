"""What a sample refuses, in a sentence that names its file."""

from dataclasses import replace

import numpy as np
import pytest

from finetune.data.camera import Camera
from finetune.data.readers.files import DepthCoding
from finetune.data.sample import CodedSample, DepthSample
from finetune.utils.errors import DataError
from tests.synthetic import tilted_plane


def with_depth(value: float, *, valid: bool) -> DepthSample:
    plane = tilted_plane()
    depth_m, mask = plane.depth_m.copy(), plane.valid.copy()
    depth_m[3, 4], mask[3, 4] = value, valid
    return replace(plane, depth_m=depth_m, valid=mask)


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, -np.inf])
def test_a_valid_depth_is_positive(value: float) -> None:
    with pytest.raises(DataError, match=r"plane: a depth marked valid is not a positive number"):
        with_depth(value, valid=True)
    assert not with_depth(value, valid=False).valid[3, 4]


def test_sky_is_a_valid_depth() -> None:
    assert with_depth(np.inf, valid=True).valid[3, 4]


def test_a_changed_sample_keeps_its_other_fields_and_leaves_the_first_as_it_was() -> None:
    plane = tilted_plane()
    changed = plane.changed(valid=~plane.valid)
    assert np.array_equal(changed.valid, ~plane.valid) and plane.valid.all()
    assert (changed.image is plane.image) and (changed.source, changed.camera) == (plane.source, plane.camera)


def stored_sample() -> CodedSample:
    coded = DepthCoding(meters_per_unit=0.001).coded(np.arange(12, dtype=np.uint16).reshape(3, 4) * 100)
    image = np.zeros((3, 4, 3), np.uint8)
    camera = Camera(fx_px=5.0, fy_px=5.0, cx_px=2.0, cy_px=1.0)
    return CodedSample.of_valid(image=image, coded=coded, source="stored", camera=camera)


def test_stored_depth_becomes_meters_when_it_is_asked_for() -> None:
    sample = stored_sample()
    assert not {"depth_m", "valid"} & vars(sample).keys()
    assert sample.valid.tolist()[0] == [False, True, True, True]
    assert sample.depth_m[2, 3] == np.float32(1.1)


def test_a_window_of_stored_depth_is_stored_and_its_camera_moves() -> None:
    window = stored_sample().window(1, 2, 2, 2)
    assert window.coded is not None and window.image.shape == (2, 2, 3)
    assert np.array_equal(window.depth_m, np.array([[0.6, 0.7], [1.0, 1.1]], np.float32))
    assert window.camera == Camera(fx_px=5.0, fy_px=5.0, cx_px=0.0, cy_px=0.0)


def test_a_stored_sample_with_another_depth_is_one_in_meters() -> None:
    sample = stored_sample()
    nearer = sample.changed(depth_m=sample.depth_m / 2)
    assert nearer.coded is None and nearer.depth_m[2, 3] == np.float32(1.1) / 2
    assert np.array_equal(nearer.valid, sample.valid)
    other = replace(sample, valid=~sample.valid & (sample.depth_m > 0))
    assert other.coded is None and not other.valid.any()
    assert sample.changed(source="renamed").coded is sample.coded
    # A window of what was changed is one of the change, and not of what the file stores.
    assert other.window(0, 0, 2, 2).depth_m[1, 1] == np.float32(0.5)
