"""The one preprocessing object: what train, evaluate, predict and export do to an image before the network sees it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, TypeVar, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from finetune.data.camera import Camera
from finetune.data.coded_depth import NUMBERS, look_up
from finetune.data.readers.image_levels import Decode, ImageLevels
from finetune.data.sample import DepthSample, is_sparse
from finetune.models.encoder_specs import MAX_SIDE_PX, PATCH
from finetune.utils.errors import shown

_LEVELS = "image_levels"
_ORIENTATION = "orientation"
_DECODE = "decode"
_MAX_COLOR = 1000  # largest mean and std; beyond it all images would look the same
# Images more than this many times as elongated as the input size have their longer side bounded; see network_size.
MAX_ELONGATED = 4.0
# A resize of the whole image is quicker than a warp of the window until it is so many times as large as the window.
_MAX_RESIZED = 8
# More than the bits of any depth, as a whole number.
_UNMEASURED = np.iinfo(np.int32).max
_Value = TypeVar("_Value", bound=np.generic)


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
        decode: how JPEG files are decoded: ``full``, or ``reduced``, by ``image_scale``. Arrays are as they are.
    """

    input_size: tuple[int, int]
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    image_levels: ImageLevels | None = None
    orientation: Literal["upright", "stored"] = "upright"
    decode: Decode = "full"

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

    def image_scale(self, height: int, width: int) -> int:
        """
        1, 2 or 4: by how much a JPEG file of ``height`` x ``width`` pixels is reduced as it is decoded. What is left is
        at least as large as the network sees it.
        """
        if self.decode == "full":
            return 1
        rows, columns = self.network_size(height, width)
        return next((scale for scale in (4, 2) if height >= scale * rows and width >= scale * columns), 1)

    def __call__(
        self, image: NDArray[np.uint8], *, shrink: float = 1.0, size: tuple[int, ...] | None = None
    ) -> NDArray[np.float32]:
        """
        Args:
            image: (H, W, 3) uint8, RGB.
            shrink: at most 1: how many times as large as usual both sides become, to the nearest patch.
            size: (H, W) of the file of an image that was reduced as it was decoded; None: that of ``image``.

        Returns:
            (3, h, w) float32, normalized and not clipped, ``network_size(H, W)`` large.
        """
        resized = self.resize(image, shrink=shrink, size=size)
        normalized = (resized - np.array(self.mean)) / np.array(self.std)
        return np.ascontiguousarray(normalized.transpose(2, 0, 1), dtype=np.float32)

    def resize(
        self, image: NDArray[np.uint8], *, shrink: float = 1.0, size: tuple[int, ...] | None = None
    ) -> NDArray[np.float64]:
        """As ``__call__``, before the normalization: (H, W, 3) uint8 -> (h, w, 3), 0 to 1 and a little beyond."""
        full_height, full_width = size or image.shape[:2]
        height, width = self.network_size(full_height, full_width)
        if shrink != 1.0:
            height, width = (_to_patches(shrink * side, PATCH) for side in (height, width))
        # float64, as in the original: float32 is up to 4e-4 off after the division by std.
        pixels = image / 255.0
        if (full_height, full_width) == image.shape[:2]:
            return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_CUBIC), np.float64)
        # By factors: the last row and column may be of pixels that the file does not have.
        scale = round(full_height / image.shape[0])
        factors = {"fx": scale * width / full_width, "fy": scale * height / full_height}
        return np.asarray(cv2.resize(pixels, None, **factors, interpolation=cv2.INTER_CUBIC), np.float64)[
            :height, :width
        ]

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
        if self.decode != "full":
            saved[_DECODE] = self.decode
        return saved

    @classmethod
    def from_mapping(cls, mapping: object) -> Preprocessing:
        """
        The inverse of ``to_mapping``.

        Raises:
            ValueError: ``to_mapping`` gives no such mapping.
        """
        if not isinstance(mapping, Mapping) or set(mapping) - {_LEVELS, _ORIENTATION, _DECODE} != set(_SAVED):
            raise ValueError(f"preprocessing is {shown(mapping)}; expected {', '.join(_SAVED)} and nothing else")
        orientation = mapping.get(_ORIENTATION, "stored")
        if orientation not in ("upright", "stored"):
            raise ValueError(f"preprocessing.orientation is {shown(orientation)}; expected upright or stored")
        decode = mapping.get(_DECODE, "full")
        if decode not in ("full", "reduced"):
            raise ValueError(f"preprocessing.decode is {shown(decode)}; expected full or reduced")
        for name, (count, expected, holds) in _SAVED.items():
            values = mapping[name]
            if not isinstance(values, list | tuple) or len(values) != count or not all(map(holds, values)):
                raise ValueError(f"preprocessing.{name} is {shown(values)}; expected {expected}")
        levels = ImageLevels.from_mapping(mapping[_LEVELS]) if _LEVELS in mapping else None
        saved = {name: tuple(mapping[name]) for name in _SAVED}
        return cls(**saved, image_levels=levels, orientation=orientation, decode=decode)


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
        depth_m, valid = self.depth(sample.depth_m, sample.valid) if sample.coded is None else self._decode(sample)
        camera = sample.camera and self.camera(sample.camera)
        image = self._of_image(sample.image_scale).image(sample.image)
        found = sample.changed(image=image, depth_m=depth_m, valid=valid, camera=camera, image_scale=1)
        if sample.weight is None:
            return found
        # In a dense map ``valid`` alone decides which pixel is selected, so this selects the same ones.
        return found.changed(weight=self.depth(sample.weight, sample.valid)[0])

    def _of_image(self, scale: int) -> Window:
        """The window in pixels of an image that is so many times smaller."""
        if scale == 1:
            return self
        return replace(self, pixels_down=self.pixels_down / scale, pixels_across=self.pixels_across / scale)

    def _decode(self, sample: DepthSample) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """``depth`` of a sample that has it as it is stored: pixels are chosen first, and only they become meters."""
        assert sample.coded is not None
        numbers, table = sample.coded.numbers, sample.coded.table
        if (self._keeps_size and not self.single_points) or not is_sparse(sample.valid):
            chosen, valid = self._choose(numbers, sample.valid, _select_nearest)
            depth_m = look_up(chosen, table.measured_m)  # of 0 where nothing was measured
            return _keep(depth_m, valid) if table.measured[0] else depth_m, valid
        if table.ranks is None or self.single_points or max(self.pixels_down, self.pixels_across) <= 1:
            return self.depth(sample.depth_m, sample.valid)
        chosen, valid = self._choose(look_up(numbers, table.ranks), sample.valid, _select_lowest)
        return look_up(chosen, table.measured_m), valid

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
        if (self.single_points or max(self.pixels_down, self.pixels_across) > 1) and is_sparse(valid):
            if self.single_points:
                return self._scatter_points(depth_m, valid)
            return self._choose(depth_m, valid, _select_smallest)
        return self._choose(depth_m, valid, _select_nearest)

    def _choose(
        self, values: NDArray[_Value], valid: NDArray[np.bool_], select: _Select[_Value]
    ) -> tuple[NDArray[_Value], NDArray[np.bool_]]:
        """A value of each cell of the window, 0 where there is none, and where there is one."""
        top, height = _clip_stretch(self.top, self.height, round(values.shape[0] / self.pixels_down))
        left, width = _clip_stretch(self.left, self.width, round(values.shape[1] / self.pixels_across))
        if self._keeps_size:
            kept = np.ascontiguousarray(valid[top : top + height, left : left + width])
            found = _keep(np.ascontiguousarray(values[top : top + height, left : left + width]), kept)
            return self._pad(found, kept, top, left)
        down, across = (
            Cells(
                edges=_cell_edges(first, count, pixels, limit),
                centers=_cell_centers(first, count, pixels),
            )
            for first, count, pixels, limit in (
                (top, height, self.pixels_down, values.shape[0]),
                (left, width, self.pixels_across, values.shape[1]),
            )
        )
        found, kept = select(values, valid, down, across)
        return self._pad(found, kept, top, left)

    @property
    def _keeps_size(self) -> bool:
        """Whether the resized image is the image itself, as for packed frames."""
        return self.pixels_down == self.pixels_across == 1.0

    def _pad(
        self, found: NDArray[_Value], kept: NDArray[np.bool_], top: int, left: int
    ) -> tuple[NDArray[_Value], NDArray[np.bool_]]:
        """The part of a window that is within the image, from ``top`` and ``left`` on, with nothing around it."""
        if found.shape == (self.height, self.width):
            return found, kept
        height, width = found.shape
        around = (
            (top - self.top, self.top + self.height - top - height),
            (left - self.left, self.left + self.width - left - width),
        )
        return np.pad(found, around), np.pad(kept, around)

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


def _keep(values: NDArray[_Value], kept: NDArray[np.bool_]) -> NDArray[_Value]:
    """Values where ``kept``, and 0 elsewhere, whatever was there."""
    # OpenCV copies many times as fast as numpy selects.
    return cast(NDArray[_Value], cv2.copyTo(values, kept.view(np.uint8)))


@dataclass(frozen=True, kw_only=True)
class Cells:
    """The stretches of source pixels that become the rows, or the columns, of a window.

    Attributes:
        edges: first source index of each cell, and one past the last source index.
        centers: in source pixels; the center of pixel 0 is 0.
    """

    edges: NDArray[np.intp]
    centers: NDArray[np.float64]

    @property
    def first(self) -> NDArray[np.intp]:
        """The first source index of each cell."""
        return self.edges[:-1]

    @property
    def ends(self) -> NDArray[np.intp]:
        """One past the last source index of each cell."""
        # Where the resize enlarges, several cells start at one pixel, and each of them is that pixel.
        return np.maximum(self.edges[1:], self.edges[:-1] + 1)

    @property
    def reach(self) -> slice:
        """All source pixels of the cells."""
        return slice(self.edges[0], self.ends[-1])


# Values (H, W), where they are valid, rows and columns of the window -> a value of each cell, and where there is one.
_Select: TypeAlias = Callable[
    [NDArray[_Value], NDArray[np.bool_], Cells, Cells], tuple[NDArray[_Value], NDArray[np.bool_]]
]


def _pool(
    values: NDArray[_Value],
    down: Cells,
    across: Cells,
    choose: Callable[[NDArray[_Value], NDArray[_Value]], NDArray[_Value]],
) -> NDArray[_Value]:
    """The value of each cell that ``choose`` prefers. Rows are gathered whole, which is many times as fast as
    ``reduceat``."""
    for axis, cells in enumerate((down, across)):
        last = cells.ends - 1
        pooled = values.take(cells.first, axis=axis)
        for i in range(1, int((cells.ends - cells.first).max(initial=1))):
            larger = np.flatnonzero(cells.first + i <= last)
            if 4 * len(larger) > len(last):  # a smaller cell repeats its last pixel
                pooled = choose(pooled, values.take(np.minimum(cells.first + i, last), axis=axis))
            else:
                at = (larger, slice(None)) if axis == 0 else (slice(None), larger)
                pooled[at] = choose(pooled[at], values.take(cells.first[larger] + i, axis=axis))
        values = pooled
    return values


def _select_smallest(
    depth_m: NDArray[np.float32], valid: NDArray[np.bool_], down: Cells, across: Cells
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The smallest measured depth of each cell."""
    # Depths above 0 are in the order of their bits as whole numbers, infinity behind them.
    bits = np.full(depth_m.shape, _UNMEASURED, np.int32)
    cv2.copyTo(np.ascontiguousarray(depth_m).view(np.int32), valid.view(np.uint8), bits)
    chosen = _pool(bits, down, across, np.minimum)
    kept = chosen != _UNMEASURED
    return _keep(chosen.view(np.float32), kept), kept


def _select_lowest(
    ranks: NDArray[np.uint16], valid: NDArray[np.bool_], down: Cells, across: Cells
) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    """The lowest number of each cell; the largest one stands for no measurement."""
    chosen = _pool(ranks, down, across, np.minimum)
    return chosen, chosen != NUMBERS - 1


def _select_nearest(
    values: NDArray[_Value], valid: NDArray[np.bool_], down: Cells, across: Cells
) -> tuple[NDArray[_Value], NDArray[np.bool_]]:
    """The measured pixel nearest to the center of each cell; of equally near ones the lowest, then the rightmost."""
    center_rows, center_columns = (
        np.clip(np.floor(cells.centers + 0.5).astype(np.intp), cells.first, cells.ends - 1) for cells in (down, across)
    )
    left = across.edges[0]  # of the rows, only what the window needs is gathered
    kept = valid[center_rows, across.reach].take(center_columns - left, axis=1)
    chosen = _keep(values[center_rows, across.reach].take(center_columns - left, axis=1), kept)
    if max((cells.ends - cells.first).max() for cells in (down, across)) == 1:
        return chosen, kept
    # At the rim of a hole, look at the other pixels of the cell; nowhere else is one that was measured so near.
    reach = [
        2 * int(np.maximum(middle - cells.first, cells.ends - 1 - middle).max()) + 1
        for middle, cells in ((center_rows, down), (center_columns, across))
    ]
    near = cv2.dilate(valid.view(np.uint8), np.ones(reach, np.uint8))
    near = near[center_rows, across.reach].take(center_columns - left, axis=1)
    rims = np.flatnonzero(near > kept.view(np.uint8))
    pixels, is_measured = _find_nearest(valid, down, across, *np.divmod(rims, len(center_columns)))
    kept.reshape(-1)[rims] = is_measured
    chosen.reshape(-1)[rims[is_measured]] = values.reshape(-1).take(pixels[is_measured])
    return chosen, kept


def _find_nearest(
    valid: NDArray[np.bool_], down: Cells, across: Cells, row_cells: NDArray[np.intp], column_cells: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """For some cells the index of the measured pixel nearest to their center, and whether they have one."""
    rows, columns = (
        [
            # A cell smaller than the largest one repeats its last pixel, which cannot be nearer than itself.
            (found := np.minimum(cells.first[own] + i, cells.ends[own] - 1), (found - cells.centers[own]) ** 2)
            for i in reversed(range(int((cells.ends - cells.first)[own].max(initial=1))))
        ]
        for cells, own in ((down, row_cells), (across, column_cells))
    )
    measured = valid.reshape(-1)
    nearest, least = np.zeros(len(row_cells), np.intp), np.full(len(row_cells), np.inf)
    for row, row_distance in rows:
        starts = row * valid.shape[1]
        for column, column_distance in columns:
            pixels, distance = starts + column, row_distance + column_distance
            nearer = measured.take(pixels) & (distance < least)
            np.copyto(least, distance, where=nearer)
            np.copyto(nearest, pixels, where=nearer)
    return nearest, least < np.inf
