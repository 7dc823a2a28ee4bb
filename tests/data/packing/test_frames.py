"""Frames as members and back."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from finetune.data.camera import Camera
from finetune.data.packing.frames import decode_frame, encode_fault, encode_frame, encode_image, keep_file
from finetune.data.sample import DepthSample
from finetune.utils.errors import DataError, FileFault, ListError

IMAGE = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)


def sample(**changes: object) -> DepthSample:
    depth_m = np.full((20, 30), 1.25, np.float32)
    depth_m[:5] = 0.0
    parts = {"image": IMAGE, "depth_m": depth_m, "valid": depth_m > 0, "source": "a\udcff é.png", **changes}
    return DepthSample(**parts)  # type: ignore[arg-type]


def test_valid_takes_bytes_only_where_depth_does_not_tell() -> None:
    image = encode_image(IMAGE, "png", 95)
    assert sorted(encode_frame(sample(), image, [])) == ["depth.zst", "json", "png"]
    valid = sample().valid.copy()
    valid[10, 3] = False
    parts = encode_frame(sample(valid=valid), image, [])
    assert sorted(parts) == ["depth.zst", "json", "png", "valid.zst"]
    again = decode_frame(parts)
    np.testing.assert_array_equal(again.valid, valid)
    assert (again.source, again.camera) == ("a\udcff é.png", None)


def test_a_camera_keeps_every_digit() -> None:
    camera = Camera(fx_px=1 / 3, fy_px=2e-17, cx_px=1e300, cy_px=-0.1)
    parts = encode_frame(sample(camera=camera), encode_image(IMAGE, "png", 95), [])
    assert decode_frame(parts).camera == camera


def test_a_file_is_kept_if_it_is_as_good() -> None:
    jpeg, png, wide = (
        cv2.imencode(ending, pixels)[1].tobytes()
        for ending, pixels in ((".jpg", IMAGE), (".png", IMAGE[..., ::-1]), (".png", IMAGE.astype(np.uint16) * 257))
    )
    decoded = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert decoded is not None
    of_jpeg = decoded.astype(np.uint8)
    for kept in (keep_file(jpeg, of_jpeg, "jpeg"), keep_file(jpeg, of_jpeg, "png")):
        assert kept is not None and (kept.kind, kept.content) == ("jpeg", jpeg)
    assert keep_file(jpeg, IMAGE, "png") is None  # a turned one, one of other levels, a window of it
    kept = keep_file(png, IMAGE, "png")
    assert kept is not None and kept.kind == "png"
    assert keep_file(png, IMAGE, "jpeg") is None
    assert keep_file(wide, IMAGE[::-1], "png") is None
    assert keep_file(jpeg[:100], of_jpeg, "jpeg") is None
    assert keep_file(b"BM", of_jpeg, "png") is None
    assert keep_file(b"", of_jpeg, "png") is None


@pytest.mark.parametrize("fault", [DataError("a.png", "is empty", "Write it", "code"), ListError("l:3", "gone", "Go")])
def test_a_frame_that_could_not_be_read_raises_the_same_error(fault: FileFault) -> None:
    with pytest.raises(type(fault)) as again:
        decode_frame(encode_fault(fault))
    assert str(again.value) == str(fault)
    assert vars(again.value) == vars(fault)


@pytest.mark.parametrize("missing", ["json", "depth.zst", "png"])
def test_a_member_that_is_missing_or_damaged_is_an_error_of_the_bytes(missing: str) -> None:
    parts = encode_frame(sample(), encode_image(IMAGE, "png", 95), [])
    for broken in (None, b"", b"garbage"):
        changed = {name: content for name, content in parts.items() if name != missing}
        with pytest.raises(ValueError):
            decode_frame(changed if broken is None else {**changed, missing: broken})


def test_weights_come_back_and_take_no_bytes_where_there_are_none() -> None:
    weighted = sample(weight=np.linspace(0, 1, sample().valid.size, dtype=np.float32).reshape(sample().valid.shape))
    image = encode_image(weighted.image, "png", 90)
    again = decode_frame(encode_frame(weighted, image, [None]))
    assert again.weight is not None and again.weight.dtype == np.float32
    np.testing.assert_array_equal(again.weight, weighted.weight)
    parts = encode_frame(sample(), image, [None])
    assert "weight.zst" not in parts
    assert decode_frame(parts).weight is None
