"""What a sample refuses, in a sentence that names its file."""

from dataclasses import replace

import numpy as np
import pytest

from finetune.data.sample import DepthSample
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
