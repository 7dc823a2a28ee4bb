from __future__ import annotations

import numpy as np
import pytest

from finetune.data.crops import crop_for_protocol, crop_kb, kb_corner
from finetune.data.sample import DepthSample
from finetune.utils.errors import DataError


def frame(height: int, width: int) -> DepthSample:
    depth_m = np.arange(1, height * width + 1, dtype=np.float32).reshape(height, width)
    image = np.zeros((height, width, 3), np.uint8)
    return DepthSample(image=image, depth_m=depth_m, valid=depth_m > 0, source="frame")


def test_the_kb_crop_is_the_bottom_rows_and_the_columns_in_the_middle() -> None:
    # 375 - 352 = 23 rows above it; of 1242 - 1216 = 26 columns, half on each side.
    assert kb_corner(375, 1242) == (23, 13)
    assert kb_corner(352, 1216) == (0, 0)
    assert kb_corner(351, 1216) is None
    assert kb_corner(352, 1215) is None
    whole = frame(375, 1242)
    np.testing.assert_array_equal(crop_kb(whole, fix="").depth_m, whole.depth_m[23:, 13:1229])
    np.testing.assert_array_equal(crop_for_protocol("kb", whole).depth_m, whole.depth_m[23:, 13:1229])
    assert crop_for_protocol("none", whole) is whole


def test_a_frame_smaller_than_the_crop_is_refused_with_the_way_on() -> None:
    with pytest.raises(DataError, match=r"frame: is 351x1242; the KB crop .* 352x1216 .*\. Set crop: none\."):
        crop_kb(frame(351, 1242), fix="Set crop: none")
