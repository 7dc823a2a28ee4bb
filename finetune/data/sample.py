"""One image with its measured depth, as every reader gives it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from finetune.data.camera import Camera
from finetune.data.coded_depth import CodedDepth
from finetune.utils.errors import DataError

# Aerial images show 1,400 m. No camera measures beyond this, so a larger number is a typing error.
MAX_DEPTH_M = 100_000
# Fields that depth has no part in.
_KEPT = ("image", "source", "camera", "weight", "image_scale")
_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)


@dataclass(frozen=True, kw_only=True, eq=False)
class DepthSample:
    """An image and the depth measured for each of its pixels.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        depth_m: (H, W) float32, meters along the optical axis; anything where ``valid`` is False. Infinity where
            ``valid`` is True means farther than any measurement, such as sky.
        valid: (H, W) bool, True where depth was measured. It alone says what was measured; a 0 says nothing.
        source: the depth file, or a name by which a person finds the frame; errors name it.
        camera: intrinsics of the frame, when known, in pixels of its depth map.
        weight: (H, W) float32, 0 or more: how much a valid pixel counts in a loss, relative to the others of its image;
            anything where ``valid`` is False. None: all count the same, as measured ones do.
        image_scale: 1, 2 or 4: how many pixels of the depth map a pixel of the image is wide and high. Above 1 the
            image was decoded at a half or a quarter of its size, and is (ceil(H / scale), ceil(W / scale), 3).

    Raises:
        DataError: shapes or types differ from the above, or a valid depth is not positive.
    """

    image: NDArray[np.uint8]
    depth_m: NDArray[np.float32]
    valid: NDArray[np.bool_]
    source: str
    camera: Camera | None = None
    weight: NDArray[np.float32] | None = None
    image_scale: int = 1
    coded: ClassVar[CodedDepth | None] = None  # depth as it is stored, where a ``CodedSample`` still has it

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.dtype != np.uint8:
            raise DataError(
                self.source,
                f"its image is {self.image.dtype} of shape {self.image.shape}",
                "Write images as 8-bit color, height x width x 3",
            )
        height, width = self.image.shape[:2]
        if self.image_scale != 1 and self.depth_m.ndim == 2:
            of_depth = tuple(-(-side // self.image_scale) for side in self.depth_m.shape)
            height, width = self.depth_m.shape if of_depth == (height, width) else (height, width)
        if self.depth_m.shape != (height, width) or self.valid.shape != (height, width):
            raise DataError(
                self.source,
                f"depth is {'x'.join(map(str, self.depth_m.shape))}, its image is {height}x{width}",
                "Export both at one size",
            )
        if self.depth_m.dtype != np.float32 or self.valid.dtype != np.bool_:
            raise DataError(
                self.source,
                f"depth is {self.depth_m.dtype} and valid is {self.valid.dtype}",
                "A reader must give float32 meters and a bool mask",
            )
        # In whole passes over the map: picking the valid pixels out of it takes ten times as long.
        if np.greater(self.valid, self.depth_m > 0).any():  # valid, and not above 0, as a NaN is not either
            raise DataError(
                self.source,
                "a depth marked valid is not a positive number of meters",
                "List the value that stands for no measurement under invalid",
            )

    @classmethod
    def of_valid(cls, **fields: Any) -> Self:
        """A sample of all fields that hold what the checks ask for by the way they were made; it is not checked."""
        sample = object.__new__(cls)
        sample.__dict__.update({"camera": None, "weight": None, "image_scale": 1, **fields})
        return sample

    def changed(self, **fields: Any) -> DepthSample:
        """
        A copy with other values in some fields.

        It is not checked again, which would take longer than the change itself: for steps that keep types and sizes,
        and depth that is valid above 0.
        """
        return self.of_valid(**{**self.__dict__, **fields})

    def window(self, top: int, left: int, height: int, width: int) -> DepthSample:
        """The pixels of a window, from row ``top`` and column ``left``; the camera moves along."""
        rows, columns = slice(top, top + height), slice(left, left + width)
        return self.changed(
            **self._image_window(top, left, height, width),
            depth_m=self.depth_m[rows, columns],
            valid=self.valid[rows, columns],
            weight=None if self.weight is None else self.weight[rows, columns],
        )

    def _image_window(self, top: int, left: int, height: int, width: int) -> dict[str, Any]:
        """Image and camera of a window. A reduced image is enlarged first if a pixel of it would have to be cut."""
        scale, image = self.image_scale, self.image
        if top % scale or left % scale:
            scale, image = 1, self.full_image()
        ends = -(-(top + height) // scale), -(-(left + width) // scale)
        return {
            "image": image[top // scale : ends[0], left // scale : ends[1]],
            "image_scale": scale,
            "camera": self.camera and self.camera.cropped(top, left),
        }

    def full_image(self) -> NDArray[np.uint8]:
        """(H, W, 3), the image at the size of the depth map; one that was reduced is enlarged."""
        return enlarge_image(self.image, self.valid.shape, self.image_scale)


class CodedSample(DepthSample):
    """A sample whose depth is as its file stores it. It becomes meters when it is asked for, and a window of it first.

    It is made by ``of_valid``, with ``coded`` in place of ``depth_m`` and ``valid``.
    """

    @cached_property
    def depth_m(self) -> NDArray[np.float32]:
        """As in ``DepthSample``."""
        assert self.coded is not None
        return self.coded.depth_m()

    @cached_property
    def valid(self) -> NDArray[np.bool_]:
        """As in ``DepthSample``."""
        assert self.coded is not None
        return self.coded.valid()

    def changed(self, **fields: Any) -> DepthSample:
        """As in ``DepthSample``; with another ``depth_m`` or ``valid``, it is stored no more."""
        if not {"depth_m", "valid"} & fields.keys():
            return super().changed(**fields)
        own = {name: getattr(self, name) for name in ("depth_m", "valid", *_KEPT) if name not in fields}
        return DepthSample.of_valid(**own, **fields)

    def recoded(self, coded: CodedDepth, **fields: Any) -> CodedSample:
        """A copy with other stored depth, and other values in some fields."""
        kept = {name: getattr(self, name) for name in _KEPT}
        return self.of_valid(**{**kept, **fields}, coded=coded)

    def window(self, top: int, left: int, height: int, width: int) -> DepthSample:
        """As in ``DepthSample``."""
        if self.coded is None:
            return super().window(top, left, height, width)
        rows, columns = slice(top, top + height), slice(left, left + width)
        weight = None if self.weight is None else self.weight[rows, columns]
        coded = self.coded.window(rows, columns)
        return self.recoded(coded, **self._image_window(top, left, height, width), weight=weight)


def enlarge_image(image: NDArray[np.uint8], size: tuple[int, ...], scale: int) -> NDArray[np.uint8]:
    """
    Args:
        image: (h, w, 3), decoded at 1 / ``scale`` of its size.
        size: (height, width) of its file.

    Returns:
        (height, width, 3), bicubic; the image itself at a scale of 1.
    """
    if scale == 1:
        return image
    import cv2

    # By factors: the last row and column may be of pixels that the file does not have.
    enlarged = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(enlarged[: size[0], : size[1]], dtype=np.uint8)


def is_sparse(valid: NDArray[np.bool_]) -> bool:
    """
    Whether a depth map is scattered points, such as LiDAR's, and not a surface with holes.

    It is sparse where fewer than half of the measured pixels have measured neighbors on all four sides. In real LiDAR
    maps that share is 0 to 0.11; in maps of depth cameras, stereo and renderers 0.82 to 1, however large their holes.

    Args:
        valid: (H, W), True where depth was measured, at the size at which it was measured.
    """
    import cv2

    inside = np.s_[1:-1, 1:-1]
    valid = np.ascontiguousarray(valid)
    # OpenCV's erosion by a cross leaves what has neighbors on all sides, in half the time that numpy takes.
    surrounded = cv2.erode(valid.view(np.uint8), _CROSS)[inside]
    return bool(2 * np.count_nonzero(surrounded) < np.count_nonzero(valid[inside]))
