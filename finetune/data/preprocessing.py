"""The one preprocessing object: what train, evaluate, predict and export do to an image before the network sees it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from typing import Literal, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from finetune.data.camera import Camera
from finetune.data.readers.image_levels import ImageLevels
from finetune.data.sample import DepthSample, is_sparse
from finetune.models.encoder_specs import MAX_SIDE_PX, PATCH
from finetune.utils.errors import shown

_LEVELS = "image_levels"
_ORIENTATION = "orientation"
_MAX_COLOR = 1000  # largest mean and std; beyond it all images would look the same
# Images more than this many times as elongated as the input size have their longer side bounded; see network_size.
MAX_ELONGATED = 4.0
# A resize of the whole image is quicker than a warp of the window until it is so many times as large as the window.
_MAX_RESIZED = 8
# More than the bits of any depth, as a whole number.
_UNMEASURED = np.iinfo(np.int32).max


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Lower-bound resize that keeps the aspect, sides multiples of the patch, bicubic, ImageNet normalization.

    The arithmetic is that of the original's transform (Depth Anything V2, ``util/transform.py``), so that its weights
    see what they were trained on. It is saved inside every weights file.

    Attributes:
        input_size: (height, width) that the resized image reaches at least, pixels; multiples of 14.
        mean, std: per RGB channel, of values from 0 to 1.
        image_levels: what is black and white of image files of more than 8 bits; used where they are read.
        orientation: how the images of training lay: ``upright``, turned as their EXIF tag says, or ``stored``, which is
            said of weights that were written before training turned images. Images without a tag are the same in both.
            Every command turns images upright, whatever the weights say.
    """

    input_size: tuple[int, int]
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    image_levels: ImageLevels | None = None
    orientation: Literal["upright", "stored"] = "upright"

    def network_size(self, height: int, width: int) -> tuple[int, int]:
        """
        (height, width) in pixels of what the network sees of an image of ``height`` x ``width`` pixels.

        An image that is more than ``MAX_ELONGATED`` times as elongated as ``input_size`` is bounded by its longer
        side, where the original's lower bound would let that grow without end.
        """
        elongated = self.elongation(height, width)
        scale = max(self.input_size[0] / height, self.input_size[1] / width)
        if elongated <= MAX_ELONGATED:
            return _to_patches(scale * height, self.input_size[0]), _to_patches(scale * width, self.input_size[1])
        scale *= MAX_ELONGATED / elongated
        return _to_patches(scale * height, PATCH), _to_patches(scale * width, PATCH)

    def elongation(self, height: int, width: int) -> float:
        """How many times as elongated as ``input_size`` an image is, 1 or more."""
        down, across = height / self.input_size[0], width / self.input_size[1]
        return max(down, across) / min(down, across)

    def __call__(self, image: NDArray[np.uint8], *, shrink: float = 1.0) -> NDArray[np.float32]:
        """
        Args:
            image: (H, W, 3) uint8, RGB.
            shrink: at most 1: how many times as large as usual both sides become, to the nearest patch.

        Returns:
            (3, h, w) float32, normalized and not clipped, ``network_size(H, W)`` large.
        """
        height, width = self.network_size(*image.shape[:2])
        if shrink != 1.0:
            height, width = (_to_patches(shrink * side, PATCH) for side in (height, width))
        # float64, as in the original: float32 is up to 4e-4 off after the division by std.
        resized = cv2.resize(image / 255.0, (width, height), interpolation=cv2.INTER_CUBIC)
        normalized = (resized - np.array(self.mean)) / np.array(self.std)
        return np.ascontiguousarray(normalized.transpose(2, 0, 1), dtype=np.float32)

    def focal_px(self, camera: Camera, height: int, width: int) -> float:
        """
        Args:
            camera: of an image of ``height`` x ``width`` pixels.

        Returns:
            Its focal length at the size at which the network sees the image, pixels. A crop does not change it.
        """
        return self.whole(height, width).camera(camera).focal_px

    def least_zoom(self, height: int, width: int) -> float:
        """The smallest zoom at which the resized image still fills a training window; 1 where none below 1 does."""
        rows, columns = self.network_size(height, width)
        return min(1.0, max(self.input_size[0] / rows, self.input_size[1] / columns))

    def window(self, height: int, width: int, across: float, down: float, zoom: float = 1.0) -> Window:
        """The training crop: a window of ``input_size`` out of the resized image, expressed in the image's own pixels.

        The image is ``zoom`` times as large as in evaluation. Where its longer side is bounded it is smaller than the
        window in one direction, and somewhere in it; around it the rim of the image is repeated, and nothing is valid.

        Args:
            height, width: of the image, pixels.
            across, down: where the window is, each from 0 (left, top) to below 1 (right, bottom).
            zoom: multiplies the focal length at the network's size.
        """
        whole = self.whole(height, width)
        if zoom != 1.0:
            whole = whole.zoomed(zoom)
        out_height, out_width = self.input_size
        return replace(
            whole,
            top=_window_start(down, whole.height - out_height),
            left=_window_start(across, whole.width - out_width),
            height=out_height,
            width=out_width,
        )

    def whole(self, height: int, width: int) -> Window:
        """All of the resized image of ``height`` x ``width`` pixels: what brings its depth to the network's size."""
        out_height, out_width = self.network_size(height, width)
        return Window(
            top=0,
            left=0,
            height=out_height,
            width=out_width,
            pixels_down=height / out_height,
            pixels_across=width / out_width,
        )

    def to_mapping(self) -> dict[str, object]:
        """Plain values, for the metadata of a weights file."""
        saved: dict[str, object] = {name: list(getattr(self, name)) for name in _SAVED}
        # Only where they are set: older versions know no such keys.
        if self.image_levels is not None:
            saved[_LEVELS] = self.image_levels.to_mapping()
        if self.orientation != "stored":
            saved[_ORIENTATION] = self.orientation
        return saved

    @classmethod
    def from_mapping(cls, mapping: object) -> Preprocessing:
        """
        The inverse of ``to_mapping``.

        Raises:
            ValueError: ``to_mapping`` gives no such mapping.
        """
        if not isinstance(mapping, Mapping) or set(mapping) - {_LEVELS, _ORIENTATION} != set(_SAVED):
            raise ValueError(f"preprocessing is {shown(mapping)}; expected {', '.join(_SAVED)} and nothing else")
        orientation = mapping.get(_ORIENTATION, "stored")
        if orientation not in ("upright", "stored"):
            raise ValueError(f"preprocessing.orientation is {shown(orientation)}; expected upright or stored")
        for name, (count, expected, holds) in _SAVED.items():
            values = mapping[name]
            if not isinstance(values, list | tuple) or len(values) != count or not all(map(holds, values)):
                raise ValueError(f"preprocessing.{name} is {shown(values)}; expected {expected}")
        levels = ImageLevels.from_mapping(mapping[_LEVELS]) if _LEVELS in mapping else None
        saved = {name: tuple(mapping[name]) for name in _SAVED}
        return cls(**saved, image_levels=levels, orientation=orientation)


def _is_color(value: object, least: float = -_MAX_COLOR) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= _MAX_COLOR


def _is_spread(value: object) -> bool:
    return _is_color(value, 1 / _MAX_COLOR)


def _is_whole_patches(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_SIDE_PX and value % PATCH == 0


# Each field as a weights file holds it: how many values, what is expected, and whether a value is that.
_SAVED: dict[str, tuple[int, str, Callable[[object], bool]]] = {
    "input_size": (2, f"height and width, positive multiples of {PATCH} up to {MAX_SIDE_PX}", _is_whole_patches),
    "mean": (3, f"three numbers from -{_MAX_COLOR} to {_MAX_COLOR}", _is_color),
    "std": (3, f"three numbers from {1 / _MAX_COLOR:g} to {_MAX_COLOR}", _is_spread),
}


@dataclass(frozen=True, kw_only=True)
class Window:
    """A window of the resized image, cut before the resize, so that no pixel is resized only to be thrown away.

    Attributes:
        top, left: corner in the resized image, pixels; below 0 where the window begins before the image.
        height, width: of the window, pixels.
        pixels_down, pixels_across: pixels of the original image for each pixel of the resized one.
        single_points: a measured pixel of a sparse map stays one pixel where the resize enlarges; without it, it
            becomes as large as the resize makes it.
    """

    top: int
    left: int
    height: int
    width: int
    pixels_down: float
    pixels_across: float
    single_points: bool = False

    def zoomed(self, zoom: float) -> Window:
        """All of the resized image, enlarged ``zoom`` times; its last, incomplete row and column are left out."""
        return replace(
            self,
            height=math.floor(self.height * zoom + 1e-6),
            width=math.floor(self.width * zoom + 1e-6),
            pixels_down=self.pixels_down / zoom,
            pixels_across=self.pixels_across / zoom,
            single_points=True,
        )

    def __call__(self, sample: DepthSample) -> DepthSample:
        """The window of a sample: image bicubic, depth by selection alone, camera moved along.

        Weights are those of the pixels that are selected; where a sparse map shrinks, the smallest of each cell.
        """
        depth_m, valid = self.depth(sample.depth_m, sample.valid)
        camera = sample.camera and self.camera(sample.camera)
        found = sample.changed(image=self.image(sample.image), depth_m=depth_m, valid=valid, camera=camera)
        if sample.weight is None:
            return found
        # In a dense map ``valid`` alone decides which pixel is selected, so this selects the same ones.
        return found.changed(weight=self.depth(sample.weight, sample.valid)[0])

    def image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 -> (height, width, 3) uint8, bicubic, with the fractional scale and a corner at whole pixels
        of the resized image."""
        whole_height, whole_width = (
            math.floor(side / pixels + 1e-6)
            for side, pixels in zip(image.shape[:2], (self.pixels_down, self.pixels_across), strict=True)
        )
        bottom, right = self.top + self.height, self.left + self.width
        is_inside = min(self.top, self.left) >= 0 and bottom <= whole_height and right <= whole_width
        if not is_inside or whole_height * whole_width > _MAX_RESIZED * self.height * self.width:
            return self._warp_image(image)
        resized: NDArray[np.generic] = image
        if not self._keeps_size:
            # By factors and not by a size, which would be rounded, and the factors with it.
            factors = {"fx": 1 / self.pixels_across, "fy": 1 / self.pixels_down}
            resized = cv2.resize(image, None, **factors, interpolation=cv2.INTER_CUBIC)
        return np.ascontiguousarray(resized[self.top : bottom, self.left : right], dtype=np.uint8)

    def _warp_image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """``image`` by one warp, which is slow for each pixel, but takes a window that leaves the image."""
        x_scale, y_scale = self.pixels_across, self.pixels_down
        to_source = np.array(
            [
                [x_scale, 0.0, x_scale * (self.left + 0.5) - 0.5],
                [0.0, y_scale, y_scale * (self.top + 0.5) - 0.5],
            ]
        )
        # cv2.resize repeats the last pixel at the rim. This must do the same, or borders differ from evaluation.
        return np.asarray(
            cv2.warpAffine(
                image,
                to_source,
                (self.width, self.height),
                flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REPLICATE,
            ),
            dtype=np.uint8,
        )

    def depth(
        self, depth_m: NDArray[np.float32], valid: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """
        Args:
            depth_m: (H, W), meters.
            valid: (H, W), True where measured.

        Returns:
            Depth and valid, (height, width); no value is made up. Where the resize enlarges, the nearest pixel. Where
            it shrinks a dense map, the measured pixel nearest to the center of each cell: the smallest depth would be
            too near by as much as a surface recedes in half a cell. Where it shrinks a sparse map (``is_sparse``), the
            smallest depth of each cell: every return is kept, and where a LiDAR, which is next to the camera, saw past
            a near thing, the near thing is kept.
        """
        if self.single_points and is_sparse(valid):
            return self._scatter_points(depth_m, valid)
        top, height = _clip_stretch(self.top, self.height, round(depth_m.shape[0] / self.pixels_down))
        left, width = _clip_stretch(self.left, self.width, round(depth_m.shape[1] / self.pixels_across))
        if self._keeps_size:
            kept = np.ascontiguousarray(valid[top : top + height, left : left + width])
            found_m = _keep(np.ascontiguousarray(depth_m[top : top + height, left : left + width]), kept)
            return self._pad(found_m, kept, top, left)
        cells = (
            _cell_edges(top, height, self.pixels_down, depth_m.shape[0]),
            _cell_edges(left, width, self.pixels_across, depth_m.shape[1]),
        )
        if max(self.pixels_down, self.pixels_across) > 1 and is_sparse(valid):
            found_m, kept = _select_smallest(depth_m, valid, cells)
        else:
            centers = _cell_centers(top, height, self.pixels_down), _cell_centers(left, width, self.pixels_across)
            found_m, kept = _select_nearest(depth_m, valid, cells, centers)
        return self._pad(found_m, kept, top, left)

    @property
    def _keeps_size(self) -> bool:
        """Whether the resized image is the image itself, as for packed frames."""
        return self.pixels_down == self.pixels_across == 1.0

    def _pad(
        self, found_m: NDArray[np.float32], kept: NDArray[np.bool_], top: int, left: int
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The part of a window that is within the image, from ``top`` and ``left`` on, with nothing around it."""
        if found_m.shape == (self.height, self.width):
            return found_m, kept
        height, width = found_m.shape
        around = (
            (top - self.top, self.top + self.height - top - height),
            (left - self.left, self.left + self.width - left - width),
        )
        return np.pad(found_m, around), np.pad(kept, around)

    def _scatter_points(
        self, depth_m: NDArray[np.float32], valid: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Each measured pixel at the one cell that holds its center; of several in a cell the nearest surface."""
        rows, columns = np.nonzero(valid)
        down = np.floor((rows + 0.5) / self.pixels_down + 1e-9).astype(np.intp) - self.top
        across = np.floor((columns + 0.5) / self.pixels_across + 1e-9).astype(np.intp) - self.left
        inside = (down >= 0) & (down < self.height) & (across >= 0) & (across < self.width)
        cells = down[inside], across[inside]
        found_m = np.full((self.height, self.width), np.inf, np.float32)
        np.minimum.at(found_m, cells, depth_m[rows[inside], columns[inside]])
        kept = np.zeros(found_m.shape, np.bool_)
        kept[cells] = True
        return np.where(kept, found_m, np.float32(0.0)), kept

    def camera(self, camera: Camera) -> Camera:
        """The intrinsics of the window."""
        return camera.resized(1 / self.pixels_down, 1 / self.pixels_across).cropped(self.top, self.left)


def _window_start(share: float, spare: int) -> int:
    """The start, 0 to ``spare``, of a window that is ``spare`` pixels smaller than the image; below 0: larger."""
    return math.floor(share * (spare + 1)) if spare >= 0 else -math.floor(share * (1 - spare))


def _to_patches(side_px: float, at_least_px: int) -> int:
    """The multiple of the patch nearest to a side, or the next larger one where that is below the bound."""
    # round() breaks ties to the even multiple, as the original's np.round does.
    nearest = round(side_px / PATCH) * PATCH
    return nearest if nearest >= at_least_px else math.ceil(side_px / PATCH) * PATCH


def _cell_edges(first: int, count: int, pixels: float, limit: int) -> NDArray[np.intp]:
    """First source index of each of ``count`` output cells, and one past the last source index they reach."""
    edges = (first + np.arange(count + 1)) * pixels
    if pixels > 1:
        # A source pixel belongs to the cell that holds its center: each to exactly one, and each cell has at least one.
        return np.minimum(np.ceil(edges - 0.5 - 1e-9).astype(np.intp), limit)
    nearest = np.minimum(np.floor(edges[:-1] + pixels / 2).astype(np.intp), limit - 1)
    return np.append(nearest, nearest[-1] + 1)


def _cell_centers(first: int, count: int, pixels: float) -> NDArray[np.float64]:
    """The center of each of ``count`` output cells, in source pixels; the center of pixel 0 is 0."""
    return (first + np.arange(count, dtype=np.float64) + 0.5) * pixels - 0.5


def _clip_stretch(first: int, count: int, limit: int) -> tuple[int, int]:
    """Start and length of the part of a stretch of ``count`` that is within 0 to ``limit``."""
    begin = max(0, first)
    return begin, min(first + count, limit) - begin


def _keep(depth_m: NDArray[np.float32], kept: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Depth where ``kept``, and 0 elsewhere, whatever was there."""
    # OpenCV copies many times as fast as numpy selects.
    return np.asarray(cv2.copyTo(depth_m, kept.view(np.uint8)), dtype=np.float32)


def _cell_pixels(edges: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """The first source index of each cell, the second, and so on; a cell that has fewer repeats its last one."""
    # Where the resize enlarges, several cells start at one pixel, and each of them is that pixel.
    first, last = edges[:-1], np.maximum(edges[1:], edges[:-1] + 1) - 1
    return [np.minimum(first + i, last) for i in range(int((last - first).max(initial=0)) + 1)]


_Bits = TypeVar("_Bits", bound=np.generic)


def _pool(
    values: NDArray[_Bits],
    cells: tuple[NDArray[np.intp], NDArray[np.intp]],
    choose: Callable[[NDArray[_Bits], NDArray[_Bits]], NDArray[_Bits]],
) -> NDArray[_Bits]:
    """The value of each cell that ``choose`` prefers. Rows are gathered whole, which is many times as fast as
    ``reduceat``."""
    rows, columns = cells
    of_rows = reduce(choose, (values[pixels] for pixels in _cell_pixels(rows)))
    return reduce(choose, (of_rows.take(pixels, axis=1) for pixels in _cell_pixels(columns)))


def _select_smallest(
    depth_m: NDArray[np.float32], valid: NDArray[np.bool_], cells: tuple[NDArray[np.intp], NDArray[np.intp]]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The smallest measured depth of each cell."""
    rows, columns = cells
    inside = np.s_[rows[0] : rows[-1], columns[0] : columns[-1]]
    depth_m, valid = np.ascontiguousarray(depth_m[inside]), valid[inside]
    # Depths above 0 are in the order of their bits as whole numbers, infinity behind them.
    bits = np.full(depth_m.shape, _UNMEASURED, np.int32)
    cv2.copyTo(depth_m.view(np.int32), valid.view(np.uint8), bits)
    chosen = _pool(bits, (rows - rows[0], columns - columns[0]), np.minimum)
    kept = chosen != _UNMEASURED
    return _keep(chosen.view(np.float32), kept), kept


def _select_nearest(
    depth_m: NDArray[np.float32],
    valid: NDArray[np.bool_],
    cells: tuple[NDArray[np.intp], NDArray[np.intp]],
    centers: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The measured pixel nearest to the center of each cell; of equally near ones the lowest, then the rightmost."""
    # Where the resize enlarges, several cells start at one pixel, and each of them is that pixel.
    (rows, row_ends), (columns, column_ends) = ((edges[:-1], np.maximum(edges[1:], edges[:-1] + 1)) for edges in cells)
    middle_rows, middle_columns = centers
    center_rows, center_columns = (
        np.clip(np.floor(middles + 0.5).astype(np.intp), first, ends - 1)
        for middles, first, ends in ((middle_rows, rows, row_ends), (middle_columns, columns, column_ends))
    )
    across_all = slice(columns[0], column_ends[-1])  # of the rows, only what the window needs is gathered
    kept = valid[center_rows, across_all].take(center_columns - columns[0], axis=1)
    chosen_m = _keep(depth_m[center_rows, across_all].take(center_columns - columns[0], axis=1), kept)
    if max((row_ends - rows).max(), (column_ends - columns).max()) == 1:
        return chosen_m, kept
    # In a hole or at its rim, look at the other pixels of the cell. Few cells have any that was measured.
    found = _pool(valid[:, across_all], (cells[0], cells[1] - columns[0]), np.logical_or)
    down, across = np.nonzero(found & ~kept)
    least = np.full(down.shape, np.inf)
    heights, widths = (row_ends - rows)[down], (column_ends - columns)[across]
    for below in reversed(range(int(heights.max(initial=1)))):
        for right in reversed(range(int(widths.max(initial=1)))):
            # A cell smaller than the largest one repeats its last pixel, which cannot be nearer than itself.
            row = rows[down] + np.minimum(below, heights - 1)
            column = columns[across] + np.minimum(right, widths - 1)
            distance = (row - middle_rows[down]) ** 2 + (column - middle_columns[across]) ** 2
            nearer = valid[row, column] & (distance < least)
            least[nearer] = distance[nearer]
            chosen_m[down[nearer], across[nearer]] = depth_m[row[nearer], column[nearer]]
    return chosen_m, found
