"""A tilted wall and a floor, whose depth is a formula, read in three ways."""

import numpy as np
import pytest

from finetune.data.camera import Camera
from finetune.data.checks.flatness import largest_plane, measure_bends

CAMERA = Camera(fx_px=60.0, fy_px=60.0, cx_px=31.5, cy_px=23.5)


def wall() -> np.ndarray:
    """(48, 64) depth of the plane 0.3 x + 0.2 y + z = 3 m: z = 3 / (0.3 rx + 0.2 ry + 1)."""
    rays = CAMERA.rays(48, 64)
    return 3.0 / (rays @ np.array([0.3, 0.2, 1.0]))


READ_AS = {
    "z": lambda depth_m: depth_m,
    "range": lambda depth_m: depth_m * np.linalg.norm(CAMERA.rays(48, 64), axis=-1),
    "disparity": lambda depth_m: 1.0 / depth_m,
}


@pytest.mark.parametrize("stored", READ_AS)
def test_what_is_stored_is_what_holds_the_plane(stored: str) -> None:
    numbers = READ_AS[stored](wall()).astype(np.float32)
    shares = largest_plane(numbers, np.ones(numbers.shape, dtype=np.bool_), CAMERA)
    assert shares is not None
    assert shares[stored] == 1.0  # type: ignore[index]
    assert all(share < 0.7 for name, share in shares.items() if name != stored)


def test_without_a_camera_range_is_not_told() -> None:
    numbers = wall().astype(np.float32)
    shares = largest_plane(numbers, np.ones(numbers.shape, dtype=np.bool_), None)
    assert shares is not None and set(shares) == {"z", "disparity"}


def test_half_a_wall_is_half_of_the_pixels() -> None:
    depth_m = wall()
    depth_m[:, 32:] = np.random.default_rng(0).uniform(1, 5, (48, 32))
    shares = largest_plane(depth_m.astype(np.float32), np.ones((48, 64), dtype=np.bool_), CAMERA)
    assert shares is not None
    assert shares["z"] == pytest.approx(0.5, abs=0.05)


def test_too_few_pixels_tell_nothing() -> None:
    valid = np.zeros((48, 64), dtype=np.bool_)
    valid[0, :50] = True
    assert largest_plane(wall().astype(np.float32), valid, CAMERA) is None
    valid[0] = True
    valid[1, :40] = True  # two rows: any plane through them is as good as the next
    assert largest_plane(wall().astype(np.float32), valid, CAMERA) is not None


def test_a_plane_has_no_bend_and_its_inverse_has_one() -> None:
    row, column = np.mgrid[:24, :36].astype(np.float64)
    plane = 1.0 + 0.02 * row + 0.01 * column
    known = np.ones((24, 36), np.bool_)
    known[0, 0] = False  # the first of the six squares of 12 x 12 has a hole
    bends = measure_bends(known, 1.0 / plane, plane + 1e-9 * row * column)
    assert bends.shape == (5, 2)
    assert (bends[:, 1] < 1e-5).all() and (bends[:, 0] > 1e-3).all()
    # By hand, for x^2 over 12 columns: what a line leaves of it, as a share of its spread.
    x = np.arange(12.0)
    apart = x**2 - np.polyval(np.polyfit(x, x**2, 1), x)
    bends = measure_bends(known, np.tile(np.arange(36.0) % 12, (24, 1)) ** 2 + 1.0)
    np.testing.assert_allclose(bends, np.full((5, 1), apart.std() / (x**2).std()), rtol=1e-9)
