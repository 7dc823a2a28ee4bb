"""Depth of boxes over their picture, in place and moved by known pixels."""

import numpy as np
import pytest
from numpy.typing import NDArray

from finetune.evidence.registration import Edges, find_edges, fit


def frame(seed: int, across: int = 0, down: int = 0, zoom: int = 1) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Bright boxes at 1 m before a dark wall at 3 m, in 240x320 times ``zoom``; depth is moved."""
    generator = np.random.default_rng(seed)
    image = generator.integers(20, 30, (240, 320, 3)).astype(np.uint8)
    depth_m = np.full((240, 320), 3.0, dtype=np.float32)
    for _ in range(6):
        top, left = generator.integers((40, 40), (160, 240))
        height, width = generator.integers(15, 50, 2)
        image[top : top + height, left : left + width] += np.uint8(120)
        depth_m[top + down : top + down + height, left + across : left + across + width] = 1.0
    return image.repeat(zoom, 0).repeat(zoom, 1), depth_m.repeat(zoom, 0).repeat(zoom, 1)


def edges_of(image: NDArray[np.uint8], depth_m: NDArray[np.float32]) -> Edges:
    edges = find_edges(image, depth_m, depth_m > 0)
    assert edges is not None
    return edges


def test_depth_on_its_image_is_in_place() -> None:
    found = fit([edges_of(*frame(seed)) for seed in range(3)])
    assert found is not None
    assert found.frames == 3
    assert found.in_place > 0.2
    assert max(abs(found.across_px), abs(found.down_px)) <= 1


@pytest.mark.parametrize("zoom", [1, 2])
def test_a_shift_is_found_in_pixels_of_the_image_and_its_way_back_is_named(zoom: int) -> None:
    found = fit([edges_of(*frame(seed, across=12, down=-5, zoom=zoom)) for seed in range(3)])
    assert found is not None
    assert found.in_place < 0.1 < 0.2 < found.best
    assert found.across_px == pytest.approx(-12 * zoom, abs=zoom)
    assert found.down_px == pytest.approx(5 * zoom, abs=zoom)


def test_mirrored_depth_fits_once_it_is_turned() -> None:
    frames = [frame(seed) for seed in range(3)]
    mirrored = [edges_of(image, np.ascontiguousarray(depth_m[:, ::-1])) for image, depth_m in frames]
    as_is, turned = fit(mirrored), fit(mirrored, mirrored=True)
    assert as_is is not None and turned is not None
    assert as_is.in_place < 0.1 < 0.2 < turned.in_place


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
    assert fit([]) is None
