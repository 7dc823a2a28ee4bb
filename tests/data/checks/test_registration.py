"""Depth of boxes over their picture, in place, moved by known pixels, and of other pictures."""

import numpy as np
import pytest
from numpy.typing import NDArray

from finetune.data.checks.registration import Edges, _score_shifts, find_edges, fit_edges


def frame(seed: int, across: int = 0, down: int = 0, zoom: int = 1) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Bright boxes at 1 m before a dark wall at 3 m, in 240x320 times ``zoom``; depth is moved."""
    generator = np.random.default_rng(seed)
    image = generator.integers(20, 30, (240, 320, 3)).astype(np.uint8)
    depth_m = np.full((240, 320), 3.0, dtype=np.float32)
    for _ in range(6):
        top, left = generator.integers((40, 55), (140, 220))
        height, width = generator.integers(15, 45, 2)
        image[top : top + height, left : left + width] += np.uint8(120)
        depth_m[top + down : top + down + height, left + across : left + across + width] = 1.0
    return image.repeat(zoom, 0).repeat(zoom, 1), depth_m.repeat(zoom, 0).repeat(zoom, 1)


def edges_of(image: NDArray[np.uint8], depth_m: NDArray[np.float32]) -> Edges:
    edges = find_edges(image, depth_m, depth_m > 0)
    assert edges is not None
    return edges


def test_depth_on_its_image_is_in_place() -> None:
    found = fit_edges([edges_of(*frame(seed)) for seed in range(8)])
    assert found is not None
    assert found.frames == 8
    assert found.fits and found.verdict == "unknown"
    assert max(map(abs, found.shift_px)) <= 1


# A sixth of a width of 320 px is 53; at most a quarter of the height, 60, is looked up and down.
@pytest.mark.parametrize("zoom", [1, 2])
@pytest.mark.parametrize(("across", "down"), [(12, -5), (-40, 8), (50, 0), (0, -30)])
def test_a_shift_is_found_in_pixels_of_the_image_and_its_way_back_is_named(across: int, down: int, zoom: int) -> None:
    found = fit_edges([edges_of(*frame(seed, across=across, down=down, zoom=zoom)) for seed in range(8)])
    assert found is not None
    assert found.verdict == "moved" and not found.fits
    assert found.shift_px == (pytest.approx(-across * zoom, abs=zoom), pytest.approx(-down * zoom, abs=zoom))


def test_the_depth_of_another_picture_fits_nowhere() -> None:
    found = fit_edges([edges_of(frame(seed)[0], frame(seed + 100)[1]) for seed in range(16)])
    assert found is not None
    assert found.verdict == "apart" and not found.fits


def test_a_few_frames_say_nothing_but_a_clear_shift() -> None:
    apart = [edges_of(frame(seed)[0], frame(seed + 100)[1]) for seed in range(7)]
    moved = [edges_of(*frame(seed, across=20)) for seed in range(7)]
    for frames, verdict in ((apart, "unknown"), (moved, "moved"), (moved[:4], "moved"), (moved[:3], "unknown")):
        found = fit_edges(frames)
        assert found is not None and found.verdict == verdict


def test_mirrored_depth_fits_once_it_is_turned() -> None:
    frames = [frame(seed) for seed in range(8)]
    mirrored = [edges_of(image, np.ascontiguousarray(depth_m[:, ::-1])) for image, depth_m in frames]
    as_is, turned = fit_edges(mirrored), fit_edges(mirrored, mirrored=True)
    assert as_is is not None and turned is not None
    assert turned.fits and not as_is.fits


def test_a_score_is_the_mean_rank_at_the_moved_edges_that_are_still_in_the_image() -> None:
    edges = edges_of(*frame(3, across=30))
    scores = _score_shifts(edges, 40, 53, mirrored=False)
    assert scores.shape == (81, 107)
    height, width = edges.color.shape
    for down, across in ((0, 0), (-40, 17), (11, 53), (40, -53)):
        rows, columns = edges.rows + down, edges.columns + across
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        mean = edges.color[rows[inside], columns[inside]].mean() / 255
        assert scores[40 + down, 53 + across] == pytest.approx(mean, abs=1e-6)


def test_a_hole_beside_an_edge_is_stepped_over_and_the_near_side_is_the_edge() -> None:
    depth_m = np.full((240, 320), 3.0, dtype=np.float32)
    depth_m[:, 160:] = 1.0
    depth_m[:, 154:160] = 0.0  # nothing measured, as cameras do on the far side
    edges = edges_of(np.zeros((240, 320, 3), dtype=np.uint8), depth_m)
    assert set(edges.columns.tolist()) == {159, 160}
    depth_m[:, 140:160] = 0.0
    assert find_edges(np.zeros((240, 320, 3), dtype=np.uint8), depth_m, depth_m > 0) is None


def test_a_wall_and_a_sparse_scan_have_no_edges_and_no_fit() -> None:
    image, depth_m = frame(0)
    assert find_edges(image, np.full_like(depth_m, 2.0), depth_m > 0) is None
    scan = np.zeros(depth_m.shape, dtype=np.bool_)
    scan[::12, ::12] = True
    assert find_edges(image, depth_m, scan) is None
    # A fifth of the pixels, as of KITTI's annotated depth, is jumps everywhere.
    assert find_edges(image, depth_m, np.random.default_rng(0).random(depth_m.shape) < 0.2) is None
    assert fit_edges([]) is None


def test_in_small_images_there_is_no_room_to_move_edges() -> None:
    frames = [frame(seed, across=20) for seed in range(8)]
    assert fit_edges([edges_of(image[60:180, 80:200], depth_m[60:180, 80:200]) for image, depth_m in frames]) is None


def slanted(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Boxes before a floor, of which no two depths are the same, as cameras measure surfaces."""
    image, depth_m = frame(seed)
    return image, depth_m * np.linspace(1.2, 0.8, depth_m.size, dtype=np.float32).reshape(depth_m.shape)


@pytest.mark.parametrize("zones", [(12, 16), (6, 8)])
def test_zones_of_a_coarse_sensor_are_not_judged(zones: tuple[int, int]) -> None:
    for seed in range(4):
        image, depth_m = slanted(seed)
        assert find_edges(image, depth_m, depth_m > 0) is not None
        rows, columns = zones
        small = depth_m[120 // rows :: 240 // rows, 160 // columns :: 320 // columns]
        coarse = small.repeat(240 // rows, 0).repeat(320 // columns, 1)
        assert find_edges(image, coarse, coarse > 0) is None


def test_points_that_are_drawn_as_blots_are_not_judged() -> None:
    image, depth_m = slanted(1)
    at = np.random.default_rng(0).integers((4, 4), (236, 316), (400, 2))
    for half in (3, 4):  # wide enough that most pixels have neighbors on all sides
        blots = np.zeros_like(depth_m)
        for row, column in at:
            blots[row - half : row + half + 1, column - half : column + half + 1] = depth_m[row, column]
        assert find_edges(image, blots, blots > 0) is None


@pytest.mark.parametrize("noise", ["of stereo", "flying points"])
def test_jumps_of_noise_are_not_judged(noise: str) -> None:
    draw = np.random.default_rng(0)
    for seed in range(4):
        image, depth_m = slanted(seed)
        if noise == "of stereo":  # 2 % of depth at 1 m, 6 % at 3 m
            noisy = depth_m + 0.02 * depth_m**2 * draw.normal(size=depth_m.shape)
        else:
            noisy = np.where(draw.random(depth_m.shape) < 0.05, depth_m * draw.uniform(0.5, 2, depth_m.shape), depth_m)
        assert find_edges(image, noisy.astype(np.float32), depth_m > 0) is None
    little = (depth_m + 0.004 * depth_m**2 * draw.normal(size=depth_m.shape)).astype(np.float32)
    assert find_edges(image, little, depth_m > 0) is not None


@pytest.mark.parametrize("thick", [4, 6])
def test_scan_lines_drawn_thick_are_not_judged(thick: int) -> None:
    image, depth_m = slanted(2)
    lines = np.arange(depth_m.shape[0]) % 8 < thick
    assert find_edges(image, depth_m, np.broadcast_to(lines[:, None], depth_m.shape)) is None
    # Depth with one large hole is none.
    assert find_edges(image, depth_m, np.broadcast_to((np.arange(320) < 200)[None], depth_m.shape)) is not None
