"""Depth of one camera in the view of another that is mounted next to it."""

from __future__ import annotations

import math
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from finetune.prepare.calibration import CalibratedCamera, Rig
from finetune.prepare.projection import camera_rays, project_points

Floats = NDArray[np.float32]

# A piece of surface is as large as its depth pixel; this much more on each side, pixels, closes the seams that remain
# because pieces are taken for flat.
_SEAM = 0.05
# Where inverse depth changes by a larger share from one pixel to the next, there are two surfaces.
_MAX_STEP = 0.15
# Two steps of inverse depth in a row are on one plane if they differ by at most this share of the smaller one.
_ALIKE = 0.5
# A piece that the other camera sees at less than this share of its area is seen too flatly to be drawn.
_MIN_AREA = 0.02
# Pixels around the nearest one that a piece may reach. A piece that reaches farther was seen so flatly by the depth
# camera that nothing is known between its middle and the next one.
_REACH = 3
# Points a side of the table in which the pixels of points are looked up.
_TABLE = 513
# A column or row that is outside every image.
_OUTSIDE = -1e4
_WIDE = 1024
# A surface is hidden if it is farther than what is drawn before it by more than this share. At less, the two are seen
# at places that differ by a fraction of a pixel.
_HIDDEN_BEHIND = 0.02


class _Pieces(NamedTuple):
    """N pieces of surface in the plane at depth 1 of the color camera; a and b are columns and rows of depth pixels.

    Attributes:
        x, y, inverse: of the middles; inverse is 1 / depth, per meter.
        x_a, x_b, y_a, y_b, inverse_a, inverse_b: how they change within the piece, per depth pixel.
    """

    x: Floats
    y: Floats
    inverse: Floats
    x_a: Floats
    x_b: Floats
    y_a: Floats
    y_b: Floats
    inverse_left: Floats
    inverse_right: Floats
    inverse_above: Floats
    inverse_below: Floats


class Registration:
    """
    Takes depth from the view of ``rig.depth`` into that of ``rig.color``.

    Each measured pixel is taken for a piece of plane as large as the pixel. Its slope is that of neighbors which are on
    one plane with it, so that no piece leads from one surface to another. The pieces are drawn into the color view with
    a z-buffer. So a continuous surface stays without cracks, whatever the sizes of the two images, and a hole stays a
    hole.

    Attributes:
        rig: both cameras and how they are mounted.
        camera: of the registered depth: the color camera, with as many pixels as depth has measurements. Where color is
            finer than depth, this is smaller than the image and of the same shape.
    """

    def __init__(self, rig: Rig) -> None:
        assert rig.depth is not None, "the caller refuses a rig without depth camera"
        self.rig = rig
        self.camera = _with_density_of(rig.color, rig.depth)
        self._depth_camera = rig.depth

    def __getstate__(self) -> Rig:
        return self.rig

    def __setstate__(self, rig: Rig) -> None:
        self.__init__(rig)  # type: ignore[misc]

    def depth_in_color(self, depth_m: Floats) -> Floats:
        """
        Args:
            depth_m: (H, W) as measured, meters along the axis of the depth camera; 0 where nothing was measured.

        Returns:
            Meters along the axis of the color camera, of the size of ``camera``; 0 where no measured surface is seen.
        """
        return self._draw(self._make_pieces(depth_m))

    def color_in_depth(self, image: NDArray[np.uint8], depth_m: Floats) -> tuple[NDArray[np.uint8], Floats]:
        """
        Args:
            image: (H, W, 3) of the color camera.
            depth_m: (h, w) as measured; 0 where nothing was.

        Returns:
            (h, w, 3) what the depth camera would see, black beyond the view of the color camera; and (h, w) the depth,
            0 where the color camera does not see the surface. Where nothing was measured, color is looked up at the
            depth of the nearest pixel that was.
        """
        import cv2

        measured = depth_m > 0
        filled = _fill_from_nearest(depth_m)
        shift = self.rig.color_from_sensor[:3, 3].astype(np.float32)
        # Without a ray, or behind the color camera, there is nothing to see.
        place = [(ray * filled + part).ravel() for ray, part in zip(self._rays[0], shift, strict=True)]
        ahead_of_camera = np.nan_to_num(place[2]) > 0
        far_m = np.where(ahead_of_camera, place[2], np.float32(np.nan))
        columns, rows = (part.reshape(depth_m.shape) for part in self._find_pixels(place[0] / far_m, place[1] / far_m))
        # With as many pixels as depth, each pixel of the result is the mean of all that it covers.
        size = (self.camera.width, self.camera.height)
        smaller = image if size == image.shape[1::-1] else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        seen = cv2.remap(smaller, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        # What is drawn there, or next to it, is not nearer.
        farthest = cv2.dilate(self.depth_in_color(depth_m), np.ones((3, 3), np.uint8))
        ahead = cv2.remap(farthest, columns, rows, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)
        inside = (columns > -0.5) & (columns < size[0] - 0.5) & (rows > -0.5) & (rows < size[1] - 0.5)
        visible = measured & inside & ((far_m.reshape(depth_m.shape) <= (1 + _HIDDEN_BEHIND) * ahead) | (ahead == 0))
        return np.asarray(seen, dtype=np.uint8), np.where(visible, depth_m, np.float32(0.0))

    @cached_property
    def _rays(self) -> tuple[Floats, Floats, Floats]:
        """(3, H, W) each: the ray of each depth pixel in the axes of the color camera, and its change by column and by
        row."""
        rays = camera_rays(self._depth_camera)
        rays = np.concatenate([rays, np.ones_like(rays[..., :1])], axis=-1)
        changes = [np.gradient(rays, axis=axis) for axis in (1, 0)]
        rotation = self.rig.color_from_sensor[:3, :3]
        turned = [np.moveaxis(part @ rotation.T, -1, 0).astype(np.float32) for part in (rays, *changes)]
        return turned[0], turned[1], turned[2]

    @cached_property
    def _targets(self) -> Floats:
        """(H * W, 2): where the ray of each pixel of ``camera`` meets the plane at depth 1; NaN where it has none."""
        return camera_rays(self.camera).reshape(-1, 2).astype(np.float32)

    @cached_property
    def _pixel_table(self) -> tuple[Floats, Floats]:
        """(S, S, 2): the pixels of a grid of points of the plane at depth 1, and (2, 2): its first point and the points
        per unit. OpenCV takes longer to project all pieces of a frame than everything else."""
        rays = camera_rays(self.camera).reshape(-1, 2)
        first, last = np.nanmin(rays, axis=0), np.nanmax(rays, axis=0)
        margin = 0.05 * (last - first)
        first, last = first - margin, last + margin
        x, y = (np.linspace(first[i], last[i], _TABLE) for i in (0, 1))
        grid = np.stack([*np.meshgrid(x, y), np.ones((_TABLE, _TABLE))], axis=-1)
        pixels = project_points(grid.reshape(-1, 3), self.camera).reshape(_TABLE, _TABLE, 2)
        place = np.stack([first, (_TABLE - 1) / (last - first)])
        return np.nan_to_num(pixels, nan=_OUTSIDE).astype(np.float32), place.astype(np.float32)

    def _find_pixels(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Columns and rows, (N,), in the images of ``camera``, of points (N,) of the plane at depth 1, to a hundredth
        of a pixel; ``_OUTSIDE`` for those far from the image."""
        import cv2

        table, (first, per_unit) = self._pixel_table
        # The images that OpenCV looks up may have 32,767 rows.
        padded = np.full((2, (len(x) // _WIDE + 1) * _WIDE), np.float32(_OUTSIDE))
        for i, part in enumerate((x, y)):
            padded[i, : len(x)] = np.nan_to_num((part - first[i]) * per_unit[i], nan=_OUTSIDE)
        at = padded.clip(_OUTSIDE, -_OUTSIDE).reshape(2, -1, _WIDE)
        border = (_OUTSIDE, _OUTSIDE)
        found = cv2.remap(table, at[0], at[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=border)
        columns, rows = np.asarray(found, dtype=np.float32).reshape(-1, 2)[: len(x)].T
        return columns, rows

    def _make_pieces(self, depth_m: Floats) -> _Pieces:
        assert depth_m.shape == (self._depth_camera.height, self._depth_camera.width)
        rays, rays_a, rays_b = self._rays
        measured = (depth_m > 0) & np.isfinite(rays_a[0]) & np.isfinite(rays_b[0])
        inverse = np.where(measured, 1.0 / np.where(measured, depth_m, 1.0), 0.0).astype(np.float32)
        (slope_a, left, right), (slope_b, above, below) = (
            tuple(part[measured] for part in _slopes(inverse, axis)) for axis in (1, 0)
        )
        seen, inverse = measured.ravel(), inverse[measured]
        shift = self.rig.color_from_sensor[:3, 3].astype(np.float32)
        # A point is ray / inverse; times inverse, its place in the other camera is rotation * ray + shift * inverse.
        place, place_a, place_b = (
            [part[i].ravel()[seen] + shift[i] * change for i in range(3)]
            for part, change in ((rays, inverse), (rays_a, slope_a), (rays_b, slope_b))
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            scale = 1.0 / place[2]
            x, y, far = place[0] * scale, place[1] * scale, inverse * scale
            pieces = _Pieces(
                x=x,
                y=y,
                inverse=far,
                x_a=(place_a[0] - x * place_a[2]) * scale,
                x_b=(place_b[0] - x * place_b[2]) * scale,
                y_a=(place_a[1] - y * place_a[2]) * scale,
                y_b=(place_b[1] - y * place_b[2]) * scale,
                **{
                    name: (slope - far * change[2]) * scale
                    for name, slope, change in (
                        ("inverse_left", left, place_a),
                        ("inverse_right", right, place_a),
                        ("inverse_above", above, place_b),
                        ("inverse_below", below, place_b),
                    )
                },
            )
            area = pieces.x_a * pieces.y_b - pieces.x_b * pieces.y_a
            usual = 1.0 / (self._depth_camera.camera.fx_px * self._depth_camera.camera.fy_px)
            # The area is negative where the camera would see the back of the piece.
            kept = (place[2] > 0) & (area > _MIN_AREA * usual)
        return _Pieces(*(part[kept] for part in pieces))

    def _draw(self, pieces: _Pieces) -> Floats:
        camera = self.camera.camera
        height, width = self.camera.height, self.camera.width
        columns, rows = self._find_pixels(pieces.x, pieces.y)
        nearest_u, nearest_v = np.floor(columns + np.float32(0.5)), np.floor(rows + np.float32(0.5))
        away_u, away_v = nearest_u - columns, nearest_v - rows
        half = np.float32(0.5 + _SEAM)
        reach_u = np.float32(camera.fx_px) * half * (np.abs(pieces.x_a) + np.abs(pieces.x_b))
        reach_v = np.float32(camera.fy_px) * half * (np.abs(pieces.y_a) + np.abs(pieces.y_b))
        buffer = np.full(height * width, np.inf, dtype=np.float32)
        for down in range(-_REACH, _REACH + 1):
            rows = nearest_v + down
            near_v = (np.abs(away_v + down) <= reach_v) & (rows >= 0) & (rows < height)
            for across in range(-_REACH, _REACH + 1):
                columns = nearest_u + across
                near = near_v & (np.abs(away_u + across) <= reach_u) & (columns >= 0) & (columns < width)
                chosen = np.flatnonzero(near)
                if not chosen.size:
                    continue
                flat = rows[chosen].astype(np.int64) * width + columns[chosen].astype(np.int64)
                _draw_at(buffer, flat, self._targets[flat], _Pieces(*(part[chosen] for part in pieces)), half)
        buffer[np.isinf(buffer)] = 0.0
        return buffer.reshape(height, width)


def _draw_at(buffer: Floats, flat: NDArray[np.int64], targets: Floats, pieces: _Pieces, half: np.float32) -> None:
    """Write the depth of the pieces at the pixels ``flat``, whose rays are ``targets``, where a piece covers its pixel
    and is nearer than what is there."""
    away_x, away_y = targets[:, 0] - pieces.x, targets[:, 1] - pieces.y
    area = pieces.x_a * pieces.y_b - pieces.x_b * pieces.y_a
    a = (away_x * pieces.y_b - away_y * pieces.x_b) / area
    b = (away_y * pieces.x_a - away_x * pieces.y_a) / area
    change_a = np.where(a < 0, pieces.inverse_left, pieces.inverse_right)
    change_b = np.where(b < 0, pieces.inverse_above, pieces.inverse_below)
    inverse = pieces.inverse + a * change_a + b * change_b
    covers = (np.abs(a) <= half) & (np.abs(b) <= half) & (inverse > 0)
    np.minimum.at(buffer, flat[covers], 1.0 / inverse[covers])


def _fill_from_nearest(depth_m: Floats) -> Floats:
    """(H, W) with the depth of the nearest measured pixel where nothing was measured; 0 if nothing was anywhere."""
    import cv2

    holes = (depth_m <= 0).astype(np.uint8)
    if not holes.any() or holes.all():
        return depth_m
    _, labels = cv2.distanceTransformWithLabels(holes, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    # Every measured pixel has a label of its own, which the holes next to it share.
    depth_of_label = np.zeros(labels.max() + 1, dtype=np.float32)
    depth_of_label[labels[holes == 0]] = depth_m[holes == 0]
    return np.asarray(depth_of_label[labels], dtype=np.float32)


def _slopes(inverse: Floats, axis: int) -> tuple[Floats, Floats, Floats]:
    """
    Change of inverse depth from pixel to pixel along an axis, (H, W) each: of the piece, and towards the pixel before
    and the one after. The latter are never more than what leads to that pixel, so that a piece ends where a surface
    ends or bends.
    """
    step = np.diff(inverse, axis=axis)
    first, second = (np.take(inverse, range(n, inverse.shape[axis] - 1 + n), axis) for n in (0, 1))
    # Inverse depth is 0 where nothing was measured, so that such a step is always too large.
    step[np.abs(step) > _MAX_STEP * np.minimum(first, second)] = np.nan
    padded = np.pad(step, [(2, 2) if i == axis else (0, 0) for i in (0, 1)], constant_values=np.nan)
    far_before, before, after, far_after = (np.take(padded, range(n, inverse.shape[axis] + n), axis) for n in range(4))
    slope, least = np.zeros_like(inverse), np.full_like(inverse, np.inf)
    pairs = ((far_before, before, before), (before, after, (before + after) / 2), (after, far_after, after))
    for one, other, candidate in pairs:
        # Two steps in a row that are alike are on one plane; of three pairs, the most alike.
        unlike = np.abs(one - other)
        chosen = (unlike <= _ALIKE * np.minimum(np.abs(one), np.abs(other))) & (unlike < least)
        slope, least = np.where(chosen, candidate, slope), np.where(chosen, unlike, least)
    return slope, _smaller(slope, before), _smaller(slope, after)


def _smaller(slope: Floats, step: Floats) -> Floats:
    """The slope, at most as large as the step; 0 where the two go opposite ways, and where there is no step."""
    step = np.where(slope * step > 0, np.abs(step), np.float32(0.0))
    return np.asarray(np.sign(slope) * np.minimum(np.abs(slope), step), dtype=np.float32)


def _with_density_of(color: CalibratedCamera, depth: CalibratedCamera) -> CalibratedCamera:
    """The color camera with smaller images, so that it has as many pixels per angle as the depth camera; unchanged
    where it has no more."""
    share = math.sqrt(depth.camera.fx_px * depth.camera.fy_px / (color.camera.fx_px * color.camera.fy_px))
    if share >= 1:
        return color
    height, width = round(color.height * share), round(color.width * share)
    camera = color.camera.resized(height / color.height, width / color.width)
    return CalibratedCamera(camera=camera, height=height, width=width, lens=color.lens)
