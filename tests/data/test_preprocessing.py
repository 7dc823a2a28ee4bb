import os
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from finetune.data.camera import Camera
from finetune.data.preprocessing import Preprocessing
from finetune.data.readers.kitti import Kitti
from finetune.data.sample import DepthSample, is_sparse
from tests.synthetic import lidar_scan

SIZES = [(480, 640), (375, 1242), (240, 320), (1080, 1920)]


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("size", "expected"),  # facts of the original's transform at 518, as (height, width)
    [
        ((480, 640), (518, 686)),
        ((375, 1242), (518, 1722)),
        ((370, 1224), (518, 1708)),
        ((352, 1216), (518, 1792)),
        ((1080, 1920), (518, 924)),
        ((756, 1344), (518, 924)),
        ((768, 1024), (518, 686)),
        ((240, 320), (518, 686)),
    ],
)
def test_network_sizes_are_those_of_the_original(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert Preprocessing(input_size=(518, 518)).network_size(*size) == expected


def test_lower_bound_holds_for_both_sides_of_a_wide_input() -> None:
    assert Preprocessing(input_size=(252, 336)).network_size(240, 320) == (252, 336)
    height, width = Preprocessing(input_size=(350, 1190)).network_size(375, 1242)
    assert height >= 350
    assert width >= 1190


@pytest.mark.original
@pytest.mark.parametrize("size", SIZES)
def test_float_path_equals_the_original_transform(size: tuple[int, int]) -> None:
    from depth_anything_v2.util.transform import NormalizeImage, PrepareForNet, Resize

    image = noise(*size)
    sample = {"image": image / 255.0}
    for step in (
        Resize(518, 518, False, True, 14, "lower_bound", cv2.INTER_CUBIC),
        NormalizeImage(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
        PrepareForNet(),
    ):
        sample = step(sample)
    ours = Preprocessing(input_size=(518, 518))(image)
    assert ours.shape == sample["image"].shape
    assert np.abs(ours - sample["image"]).max() <= 1e-5


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("across", "down"), [(0.0, 0.0), (0.37, 0.61), (0.999, 0.999)])
def test_training_window_equals_the_crop_of_the_float_path(size: tuple[int, int], across: float, down: float) -> None:
    preprocessing, image = Preprocessing(input_size=(252, 336)), noise(*size)
    window = preprocessing.window(*size, across, down)
    whole = preprocessing(image) * np.array(preprocessing.std).reshape(3, 1, 1)
    whole += np.array(preprocessing.mean).reshape(3, 1, 1)
    crop = whole[:, window.top : window.top + 252, window.left : window.left + 336].transpose(1, 2, 0)
    inside = (crop >= 0) & (crop <= 1)
    assert crop.shape == (252, 336, 3)
    assert np.abs(window.image(image) / 255.0 - crop)[inside].max() <= 1 / 255
    # A crop at whole pixels of the source that is then resized drifts: the same comparison must see it.
    top, left = round(window.top * window.pixels_down), round(window.left * window.pixels_across)
    bottom, right = top + round(252 * window.pixels_down), left + round(336 * window.pixels_across)
    drifting = cv2.resize(image[top:bottom, left:right], (336, 252), interpolation=cv2.INTER_CUBIC) / 255.0
    if window.top + window.left > 0 and across < 0.9:
        assert np.abs(drifting - crop)[inside].max() > 1 / 255


@pytest.mark.parametrize("zoom", [0.8, 1.0, 1.37, 5.0])
@pytest.mark.parametrize("size", [(375, 1242), (241, 319)])
def test_a_resize_that_is_cut_equals_a_warp_at_the_fractional_corner(size: tuple[int, int], zoom: float) -> None:
    preprocessing = Preprocessing(input_size=(112, 154))
    zoom = max(zoom, preprocessing.least_zoom(*size))
    window, image = preprocessing.window(*size, 0.37, 0.61, zoom), noise(*size)
    difference = np.abs(window.image(image).astype(int) - window._warp_image(image))
    assert difference.max() <= 1
    assert np.mean(difference > 0) < 0.002


@pytest.mark.parametrize("share", [0.05, 0.9])
def test_a_window_of_a_frame_of_the_networks_size_is_cut_out_of_it(share: float) -> None:
    rng = np.random.default_rng(3)
    image, valid = noise(70, 98), rng.random((70, 98)) < share
    depth_m = np.where(valid, rng.uniform(1, 9, (70, 98)), np.nan).astype(np.float32)
    window = Preprocessing(input_size=(56, 84)).whole(70, 98)
    window = replace(window, pixels_down=1.0, pixels_across=1.0, top=3, left=11, height=56, width=84)
    found_m, kept = window.depth(depth_m, valid)
    np.testing.assert_array_equal(window.image(image), image[3:59, 11:95])
    np.testing.assert_array_equal(kept, valid[3:59, 11:95])
    np.testing.assert_array_equal(found_m, np.nan_to_num(depth_m[3:59, 11:95]))
    # Where the window begins before the frame, nothing was measured.
    found_m, kept = replace(window, top=-2, left=0, height=30).depth(depth_m, valid)
    np.testing.assert_array_equal(kept, np.pad(valid[:28, :84], ((2, 0), (0, 0))))
    np.testing.assert_array_equal(found_m, np.pad(np.nan_to_num(depth_m[:28, :84]), ((2, 0), (0, 0))))


def test_enlarged_depth_is_the_nearest_pixel() -> None:
    preprocessing = Preprocessing(input_size=(28, 28))
    depth_m = np.arange(1, 197, dtype=np.float32).reshape(14, 14)
    valid = np.ones((14, 14), dtype=np.bool_)
    valid[3, 4] = False
    out_m, kept = preprocessing.window(14, 14, 0.0, 0.0).depth(depth_m, valid)
    assert np.array_equal(out_m[kept], np.repeat(np.repeat(depth_m, 2, 0), 2, 1)[kept])
    assert np.array_equal(kept, np.repeat(np.repeat(valid, 2, 0), 2, 1))


def test_shrunk_sparse_depth_is_the_smallest_valid_value_of_its_cell() -> None:
    preprocessing = Preprocessing(input_size=(14, 14))
    depth_m = np.full((28, 28), 9.0, dtype=np.float32)
    valid = np.zeros((28, 28), dtype=np.bool_)
    depth_m[0, 0], depth_m[1, 1], valid[0, 0], valid[1, 1] = 4.0, 5.0, True, True
    depth_m[26, 27], valid[26, 27], depth_m[27, 27] = 3.0, True, 1.0
    out_m, kept = preprocessing.window(28, 28, 0.0, 0.0).depth(depth_m, valid)
    assert out_m[0, 0] == 4.0
    assert out_m[13, 13] == 3.0
    assert kept.sum() == 2


def test_shrunk_dense_depth_is_the_valid_value_nearest_to_the_center_of_its_cell() -> None:
    # Cells of 3x3 pixels, with values 1 to 9 row by row, all of them nearer than the one in the middle above it.
    depth_m = np.tile(np.arange(1, 10, dtype=np.float32).reshape(3, 3), (14, 14))
    valid = np.ones_like(depth_m, dtype=np.bool_)
    valid[4, 4] = False  # the center of a cell: of its four neighbors the lowest
    valid[7, 7] = valid[7, 6] = valid[6, 7] = valid[7, 8] = valid[8, 7] = False  # a cross: of the corners the last
    valid[9:12, 9:12] = False
    valid[11, 9] = True  # one corner alone
    valid[12:15, 12:15] = False
    out_m, kept = Preprocessing(input_size=(14, 14)).whole(42, 42).depth(depth_m, valid)
    assert [out_m[place, place] for place in range(4)] == [5.0, 8.0, 9.0, 7.0]
    assert not kept[4, 4] and out_m[4, 4] == 0.0
    kept[4, 4] = True
    assert kept.all()
    assert np.count_nonzero(out_m != 5.0) == 4


@pytest.mark.parametrize("size", [(480, 640), (375, 1242), (241, 319), (1080, 1920), (200, 150)])
def test_dense_depth_of_a_tilted_plane_is_not_drawn_near(size: tuple[int, int]) -> None:
    # Depth grows by a pixel of the original each row and column, so an error in meters is one in pixels.
    depth_m = (np.arange(size[0])[:, None] + np.arange(size[1])[None] + 100.0).astype(np.float32)
    valid = np.ones(size, dtype=np.bool_)
    window = Preprocessing(input_size=(112, 140)).whole(*size)
    out_m, kept = window.depth(depth_m, valid)
    assert kept.all()
    rows = (np.arange(window.height) + 0.5) * window.pixels_down - 0.5
    columns = (np.arange(window.width) + 0.5) * window.pixels_across - 0.5
    error_px = out_m - (rows[:, None] + columns[None] + 100.0)
    # Half a pixel each way at most, however many a cell has; the smallest value would be half a cell each way before.
    assert np.abs(error_px).max() <= 1.0 + 1e-3


@pytest.mark.parametrize("across", [1.0, 2.0])
def test_a_map_is_sparse_by_its_pattern_and_not_by_its_share(across: float) -> None:
    rows, columns = np.mgrid[:240, :320]
    assert not is_sparse(columns < 40 * across)  # an eighth is measured, in one piece
    assert is_sparse(rows % 3 > 0)  # two lines of three
    assert is_sparse(np.random.default_rng(0).random((240, 320)) < 0.4 * across)
    assert not is_sparse(np.random.default_rng(0).random((240, 320)) < 0.9)
    assert not is_sparse(np.zeros((240, 320), dtype=np.bool_))


@pytest.mark.parametrize(("input_size", "filled"), [((28, 42), 0.97), ((28, 42), 0.2), ((252, 336), 0.9)])
def test_depth_of_a_window_is_that_of_each_cell_alone(input_size: tuple[int, int], filled: float) -> None:
    draw = np.random.default_rng(5)
    depth_m = draw.uniform(1, 80, (101, 147)).astype(np.float32)
    depth_m[::7] = np.inf
    valid = draw.random(depth_m.shape) < filled
    depth_m[~valid] = np.nan
    window = Preprocessing(input_size=input_size).window(101, 147, 0.3, 0.6)
    out_m, kept = window.depth(depth_m, valid)
    smallest = window.pixels_down > 1 and is_sparse(valid)
    for row, column in draw.integers(0, input_size, (200, 2)):
        middle = (
            (window.top + row + 0.5) * window.pixels_down - 0.5,
            (window.left + column + 0.5) * window.pixels_across - 0.5,
        )
        of_cell = [
            (y, x)
            for y in _pixels_around(middle[0], window.pixels_down, 101)
            for x in _pixels_around(middle[1], window.pixels_across, 147)
            if valid[y, x]
        ]
        assert kept[row, column] == bool(of_cell)
        far = [(y - middle[0]) ** 2 + (x - middle[1]) ** 2 for y, x in of_cell]
        values = [depth_m[place] for place, distance in zip(of_cell, far, strict=True) if distance <= min(far) + 1e-9]
        if smallest:
            values = [min(depth_m[place] for place in of_cell)] if of_cell else []
        assert out_m[row, column] in (values or [0.0])


def _pixels_around(middle: float, pixels: float, limit: int) -> list[int]:
    """Indices of the pixels whose center is in a cell; where the resize enlarges, the nearest one."""
    if pixels <= 1:
        return [min(max(int(np.floor(middle + 0.5)), 0), limit - 1)]
    return [i for i in range(limit) if middle - pixels / 2 - 1e-9 <= i < middle + pixels / 2 - 1e-9]


@pytest.mark.parametrize("side", [14, 7])
def test_sky_is_kept_and_of_a_sparse_map_what_stands_before_it_wins(side: int) -> None:
    preprocessing = Preprocessing(input_size=(14, 14))
    depth_m = np.full((2 * side, 2 * side), np.inf, dtype=np.float32)
    valid = np.ones_like(depth_m, dtype=np.bool_)
    depth_m[0, 0] = 5.0
    valid[-2:, -2:] = False
    valid[2::4] = False
    assert is_sparse(valid)
    out_m, kept = preprocessing.whole(*depth_m.shape).depth(depth_m, valid)
    assert out_m[0, 0] == 5.0
    assert np.isinf(out_m[kept]).sum() == kept.sum() - 1
    assert not out_m[~kept].any()


@pytest.mark.parametrize("side", [14, 7])
def test_sky_of_a_dense_map_is_kept(side: int) -> None:
    depth_m = np.full((2 * side, 2 * side), np.inf, dtype=np.float32)
    valid = np.ones_like(depth_m, dtype=np.bool_)
    depth_m[1, 1] = 5.0  # the center of a cell of 2x2 is the corner of four pixels, and the last of them is taken
    valid[-2:, -2:] = False
    out_m, kept = Preprocessing(input_size=(14, 14)).whole(*depth_m.shape).depth(depth_m, valid)
    assert np.isinf(out_m[kept]).sum() == kept.sum() - 1
    assert kept.sum() == 14 * 14 - (1 if side == 14 else 4)
    assert not out_m[~kept].any()


@pytest.mark.parametrize("size", [(375, 1242), (1080, 1920), (241, 319), (50, 50)])
def test_no_depth_value_is_made_up_and_sparse_returns_stay(size: tuple[int, int]) -> None:
    generator = np.random.default_rng(2)
    depth_m = generator.uniform(1, 80, size).astype(np.float32)
    valid = generator.uniform(size=size) < 0.04
    preprocessing = Preprocessing(input_size=(196, 392))
    window = preprocessing.window(*size, 0.5, 0.5)
    out_m, kept = window.depth(depth_m, valid)
    assert out_m.shape == kept.shape == (196, 392)
    assert np.isin(out_m[kept], depth_m[valid]).all()
    if window.pixels_down > 1 and window.pixels_across > 1:
        cells = np.zeros((196, 392), dtype=np.bool_)
        y, x = np.nonzero(valid)
        row = np.floor((y + 0.5) / window.pixels_down).astype(int) - window.top
        column = np.floor((x + 0.5) / window.pixels_across).astype(int) - window.left
        inside = (row >= 0) & (row < 196) & (column >= 0) & (column < 392)
        cells[row[inside], column[inside]] = True
        assert np.array_equal(kept, cells)


@pytest.mark.parametrize("size", [(32, 800), (900, 40), (100, 400), (75, 90)])
@pytest.mark.parametrize(("across", "down"), [(0.0, 0.0), (0.4, 0.7), (0.999, 0.999)])
def test_training_shows_an_image_as_large_as_evaluation_does(size: tuple[int, int], across: float, down: float) -> None:
    preprocessing = Preprocessing(input_size=(112, 154))
    depth_m = np.random.default_rng(0).uniform(1, 5, size).astype(np.float32)
    valid = np.random.default_rng(1).random(size) < 0.97
    camera = Camera(fx_px=300.0, fy_px=310.0, cx_px=20.0, cy_px=10.0)
    sample = DepthSample(image=noise(*size), depth_m=depth_m, valid=valid, source="strip", camera=camera)
    scored, window = preprocessing.whole(*size), preprocessing.window(*size, across, down)
    seen, trained = scored(sample), window(sample)
    assert seen.camera is not None and trained.camera is not None
    assert (trained.camera.fx_px, trained.camera.fy_px) == (seen.camera.fx_px, seen.camera.fy_px)
    assert trained.depth_m.shape == trained.valid.shape == trained.image.shape[:2] == (112, 154)
    # What both show is the same, pixel by pixel; where the window goes beyond the image nothing is measured.
    rows, columns = (np.arange(first, first + count) for first, count in ((window.top, 112), (window.left, 154)))
    inside = ((rows >= 0) & (rows < scored.height))[:, None] & ((columns >= 0) & (columns < scored.width))
    assert np.count_nonzero(inside) == min(112, scored.height) * min(154, scored.width)
    place = np.ix_(np.clip(rows, 0, scored.height - 1), np.clip(columns, 0, scored.width - 1))
    assert np.array_equal(trained.valid, seen.valid[place] & inside)
    assert np.array_equal(trained.depth_m[trained.valid], seen.depth_m[place][trained.valid])
    assert np.abs(trained.image.astype(int) - seen.image[place])[inside].max() <= 1


def test_camera_moves_with_the_window() -> None:
    camera = Camera(fx_px=300.0, fy_px=310.0, cx_px=159.5, cy_px=119.5)
    sample = DepthSample(
        image=noise(240, 320),
        depth_m=np.ones((240, 320), np.float32),
        valid=np.ones((240, 320), np.bool_),
        source="plane",
        camera=camera,
    )
    window = Preprocessing(input_size=(252, 252)).window(240, 320, 0.5, 0.0)
    moved = window(sample).camera
    assert moved is not None
    # The ray through the middle of output pixel (0, 0) is the ray through the source point it was taken from.
    x_source = window.pixels_across * (window.left + 0.5) - 0.5
    assert (0 - moved.cx_px) / moved.fx_px == pytest.approx((x_source - camera.cx_px) / camera.fx_px)
    assert moved.fy_px == pytest.approx(310.0 * 252 / 240)


def test_survives_the_metadata_of_a_weights_file() -> None:
    preprocessing = Preprocessing(input_size=(252, 336))
    assert Preprocessing.from_mapping(preprocessing.to_mapping()) == preprocessing
    # Weights from before images were turned in training say nothing of it, and go on saying nothing.
    older = {name: value for name, value in preprocessing.to_mapping().items() if name != "orientation"}
    assert Preprocessing.from_mapping(older).orientation == "stored"
    assert Preprocessing.from_mapping(older).to_mapping() == older
    with pytest.raises(ValueError, match=r"preprocessing\.orientation is 'sideways'; expected upright or stored"):
        Preprocessing.from_mapping({**older, "orientation": "sideways"})


NOT_OURS = [
    (
        {"input_size": "ab"},
        "preprocessing.input_size is 'ab'; expected height and width, positive multiples of 14 up to 4200",
    ),
    ({"input_size": [0, 0]}, "preprocessing.input_size is [0, 0]; expected height"),
    ({"input_size": [252, 335]}, "preprocessing.input_size is [252, 335]; expected height"),
    ({"input_size": [252.0, 336]}, "preprocessing.input_size is [252.0, 336]; expected height"),
    ({"input_size": [252]}, "preprocessing.input_size is [252]; expected height"),
    (
        {"mean": [0.5, 0.5, float("nan")]},
        "preprocessing.mean is [0.5, 0.5, nan]; expected three numbers from -1000 to 1000",
    ),
    ({"mean": 0.5}, "preprocessing.mean is 0.5; expected three numbers from -1000 to 1000"),
    ({"std": [0.2, 0.0, 0.2]}, "preprocessing.std is [0.2, 0.0, 0.2]; expected three numbers from 0.001 to 1000"),
    (
        {"std": [0.2, 0.2, float("inf")]},
        "preprocessing.std is [0.2, 0.2, inf]; expected three numbers from 0.001 to 1000",
    ),
    ({"std": [True, 0.2, 0.2]}, "preprocessing.std is [True, 0.2, 0.2]; expected three numbers from 0.001 to 1000"),
    ({"crop": 1}, "expected input_size, mean, std and nothing else"),
]


@pytest.mark.parametrize(("changes", "said"), NOT_OURS)
def test_a_mapping_that_is_not_ours_is_named(changes: dict[str, object], said: str) -> None:
    mapping = {**Preprocessing(input_size=(252, 336)).to_mapping(), **changes}
    with pytest.raises(ValueError, match=re.escape(said)):
        Preprocessing.from_mapping(mapping)


@pytest.mark.parametrize("mapping", [{"input_size": [252, 336]}, [1, 2], "ab", None])
def test_what_is_no_whole_mapping_is_named(mapping: object) -> None:
    with pytest.raises(ValueError, match="expected input_size, mean, std and nothing else"):
        Preprocessing.from_mapping(mapping)


def require_returns_kept(depth_m: np.ndarray, valid: np.ndarray) -> None:
    """At half size at least 95 % of the cells with a return keep one, and no value is new."""
    height, width = depth_m.shape
    # 14 * 13 = 182 rows of 375: about half.
    size = (round(height / 28) * 14, round(width / 28) * 14)
    whole = Preprocessing(input_size=size).whole(height, width)
    found_m, found = whole.depth(depth_m, valid)
    assert found.shape == (whole.height, whole.width)
    assert height / whole.height == pytest.approx(2, rel=0.1)
    rows = np.minimum((np.arange(height) + 0.5) / whole.pixels_down, whole.height - 1).astype(int)
    columns = np.minimum((np.arange(width) + 0.5) / whole.pixels_across, whole.width - 1).astype(int)
    cells = np.zeros_like(found)
    cells[rows[np.nonzero(valid)[0]], columns[np.nonzero(valid)[1]]] = True
    assert (found & cells).sum() >= 0.95 * cells.sum()
    assert np.isin(found_m[found], depth_m[valid]).all()


def test_a_64_line_scan_keeps_its_returns_at_half_size() -> None:
    require_returns_kept(*lidar_scan())


def test_a_real_64_line_scan_keeps_its_returns_at_half_size() -> None:
    if "DEPTH_SAMPLES" not in os.environ:
        pytest.skip("DEPTH_SAMPLES is not set")
    root = Path(os.environ["DEPTH_SAMPLES"]) / "kitti_depth"
    sample = Kitti(root=str(root), list="eigen_style_subset.txt")[0]
    require_returns_kept(sample.depth_m, sample.valid)


@pytest.mark.parametrize("size", [(28, 42), (84, 112), (56, 70)])
def test_weights_are_those_of_the_pixels_whose_depth_is_taken(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    height, width = 56, 75
    depth_m = (1 + np.arange(height * width, dtype=np.float32)).reshape(height, width)
    valid = rng.random(depth_m.shape) > 0.1
    image = np.zeros((height, width, 3), np.uint8)
    sample = DepthSample(image=image, depth_m=depth_m, valid=valid, source="it", weight=depth_m / np.float32(2))
    found = Preprocessing(input_size=size).window(height, width, 0.7, 0.2)(sample)
    assert found.weight is not None and found.valid.any()
    assert np.array_equal(found.weight[found.valid], found.depth_m[found.valid] / 2)
    part = sample.window(3, 5, 20, 30)
    assert part.weight is not None and np.array_equal(part.weight, part.depth_m / 2)
