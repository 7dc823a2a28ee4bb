"""Intrinsics out of files, in the forms that programs write them; what they say of the lens is not left out."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.data.camera import Camera
from finetune.utils.errors import DataError, ListError
from finetune.utils.paths import read_bytes

_FIX = 'Write {"width": 640, "height": 480, "fx": 615.2, "fy": 615.4, "cx": 319.1, "cy": 241.7}, in pixels'
# Beyond this share of a depth, a pinhole is not what the camera is.
_MAX_OFF = 0.01
# Names that programs give to models of a lens, in lower case.
_PINHOLE = ("pinhole", "simple_pinhole", "perspective", "none", "")
_POLYNOMIAL = (
    *("opencv", "full_opencv", "simple_radial", "radial", "plumb_bob", "rational_polynomial", "radtan", "brown"),
    *("brown_conrady", "brown-conrady", "modified_brown_conrady", "radial-tangential", "radial_tangential"),
)
_FISHEYE = (
    *("opencv_fisheye", "fisheye", "equidistant", "kannala_brandt", "kannala_brandt4", "kb4"),
    *("simple_radial_fisheye", "radial_fisheye"),
)
_MODEL_KEYS = (
    *("camera_model", "distortion_model", "lens_model", "model", "model_type", "projection", "projection_model"),
    *("camera_type", "type"),
)
_LIST_KEYS = (
    *("distortion_coefficients", "dist_coeffs", "distcoeffs", "dist_coeff", "dist", "distortion", "distortion_params"),
    *("distortion_parameters", "distortion_coeffs", "coeffs", "d", "kc"),
)
_FISHEYE_FLAGS = ("is_fisheye", "fisheye")
# Models that have no coefficients of ours, and what only they say of a lens.
_OTHER_MODELS = (
    *("mei", "omni", "omnidirectional", "unified", "ucm", "eucm", "double_sphere", "ocam", "scaramuzza", "fov"),
    *("equirectangular", "equirect", "spherical", "panorama", "cylindrical"),
)
_OTHER_KEYS = ("mirror_parameters", "xi", "radial_distortion", "radial")
# In OpenCV's order; the models of COLMAP and of nerfstudio have the same names.
_NAMED_KEYS = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")
_FISHEYE_KEYS = ("k1", "k2", "k3", "k4")


@dataclass(frozen=True, kw_only=True)
class Lens:
    """How far a lens bends rays away from a pinhole's.

    Attributes:
        fisheye: OpenCV's fisheye model, by the angle to the axis; else its polynomial in the tangent.
        coefficients: in OpenCV's order: k1, k2, p1, p2, k3, k4, k5, k6, or, of a fisheye, k1, k2, k3, k4.
    """

    fisheye: bool
    coefficients: tuple[float, ...]

    def depth_from_ray(self, ray_m: NDArray[np.float32], camera: Camera) -> NDArray[np.float32]:
        """(H, W) meters from the camera's center -> (H, W) meters along the optical axis; 0 of rays behind it."""
        height, width = ray_m.shape
        return (ray_m * self.cosines(height, width, camera)).astype(np.float32)

    def cosines(self, height: int, width: int, camera: Camera) -> NDArray[np.float64]:
        """(H, W) of the angle between the ray of a pixel and the optical axis; 0 where the model has no ray."""
        return _cosines(self, height, width, camera)

    def _tangents(self, bent: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N, 2) places on the image at focal length 1 -> (N,) tangent of the angle to the axis; infinity where the
        polynomial gives that place to no ray, as beyond where it turns back."""
        import cv2

        coefficients = np.array(self.coefficients)
        # Its default of five steps leaves a percent at the rim of wide lenses.
        steps = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 50, 1e-10)
        straight = cv2.undistortPoints(bent[:, None], np.eye(3), coefficients, None, None, None, steps)
        points = np.concatenate([straight, np.ones_like(straight[..., :1])], axis=-1)
        again, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), np.eye(3), coefficients)
        found = np.abs(again[:, 0] - bent).max(-1) < 1e-3
        return np.where(found, np.hypot(*straight[:, 0].T), np.inf)

    def _angles(self, bent: NDArray[np.float64]) -> NDArray[np.float64]:
        """The angle a that a + k1 a^3 + k2 a^5 + k3 a^7 + k4 a^9 equals, by a table; at most a right angle, beyond
        which there is no depth along the axis. Source: OpenCV's fisheye model, Kannala and Brandt 2006."""
        angles = np.linspace(0.0, math.pi / 2, 20_001)
        powers = sum(k * angles ** (3 + 2 * place) for place, k in enumerate(self.coefficients))
        # A polynomial that turns back has no ray beyond.
        table = np.maximum.accumulate(angles + powers)
        return np.interp(bent, table, angles, right=math.pi / 2)


@lru_cache(maxsize=4)  # a camera has the same rays in each frame, and they take half a second
def _cosines(lens: Lens, height: int, width: int, camera: Camera) -> NDArray[np.float64]:
    x, y = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
    bent = np.stack([(x - camera.cx_px) / camera.fx_px, (y - camera.cy_px) / camera.fy_px], axis=-1).reshape(-1, 2)
    angles = lens._angles(np.hypot(*bent.T)) if lens.fisheye else np.arctan(lens._tangents(bent))
    # Of a right angle the cosine is 6e-17, which would be a depth.
    cosines = np.where(angles < math.pi / 2, np.cos(angles), 0.0).reshape(height, width)
    cosines.setflags(write=False)
    return cosines


@dataclass(frozen=True, kw_only=True)
class Intrinsics:
    """A camera and the size of the images it was calibrated for.

    Attributes:
        camera: focal lengths and principal point, pixels.
        height, width: size of the images, pixels; None: that of each image as stored.
        source: where it comes from, as a person can find it.
        fix: what to do when an image has another size; "" to suggest the scaled values.
        lens: what bends its rays; None of a pinhole, or where a pinhole's depth would be off by less than 1 %.
    """

    camera: Camera
    height: int | None
    width: int | None
    source: str
    fix: str = ""
    lens: Lens | None = None

    def camera_of(self, image: NDArray[np.uint8], path: str) -> Camera:
        """
        Args:
            image: (H, W, 3).
            path: its file, named in the error.

        Raises:
            DataError: the image has another size; the focal lengths would be those of another camera.
        """
        height, width = image.shape[:2]
        if (height, width) == (self.height, self.width):
            return self.camera
        assert self.height and self.width, "filled in where the image is read"
        scaled = self.camera.resized(height / self.height, width / self.width)
        fix = self.fix or (
            f"If the images were resized, write width {width}, height {height}, fx {scaled.fx_px:.3f}, "
            f"fy {scaled.fy_px:.3f}, cx {scaled.cx_px:.3f}, cy {scaled.cy_px:.3f}; if cropped, calibrate again"
        )
        raise DataError(
            path, f"is {height}x{width} (height x width), {self.source} is for {self.height}x{self.width}", fix
        )


def read_intrinsics(path: str | os.PathLike[str]) -> Intrinsics:
    """
    Args:
        path: JSON with width, height (or w, h; image_width, image_height) and one of: fx, fy, cx, cy; fl_x, fl_y, cx,
            cy, as nerfstudio writes it; ``K`` or ``camera_matrix``, row by row as ROS and OpenCV write it;
            ``intrinsic_matrix``, column by column as Open3D writes it. Pixels. What it says of the lens (k1 and
            others, ``D``, ``distortion_coefficients``, ``camera_model``, ...) is read too; all else is not. YAML with
            the same keys, as ROS' camera_info has them, is read likewise, as is Middlebury's ``calib.txt``.

    Raises:
        ListError: the file is missing, is neither, lacks a key, a focal length is not above 0, or the lens is of a
            model that is not known here.
    """
    content = _content_of(path)
    if isinstance(content, dict) and "frames" in content and "fl_x" not in content:
        raise ListError(path, "holds a camera for each frame, and one is needed here", _FIX)
    return _intrinsics_in(content, str(path))


def read_intrinsics_of_images(path: str | os.PathLike[str]) -> Mapping[str, Intrinsics] | Intrinsics:
    """
    Args:
        path: as of ``read_intrinsics``; or JSON that holds the same for each image, by its path below the root, its
            file name or its stem: ``{"0001.jpg": {"width": 640, ...}, ...}``; or nerfstudio's ``transforms.json``.

    Raises:
        ListError: it is neither; names the image.
    """
    content = _content_of(path)
    if isinstance(content, dict) and isinstance(content.get("frames"), list):
        return _of_frames(content, str(path))
    if not isinstance(content, dict) or not content or not all(isinstance(one, dict) for one in content.values()):
        return _intrinsics_in(content, str(path))
    if "camera_matrix" in content:
        return _intrinsics_in(content, str(path))
    return {name: _intrinsics_in(one, f"{path}: {name}") for name, one in content.items()}


def _of_frames(content: dict[str, Any], path: str) -> Mapping[str, Intrinsics] | Intrinsics:
    """Of nerfstudio's ``transforms.json``: one camera at its top, or one with each frame, by the image's path."""
    frames = [frame for frame in content["frames"] if isinstance(frame, dict)]
    if not any("fl_x" in frame for frame in frames):
        return _intrinsics_in(content, path)
    shared = {key: value for key, value in content.items() if key != "frames"}
    found = {}
    for frame in frames:
        name = Path(str(frame.get("file_path", ""))).as_posix()
        found[name] = _intrinsics_in(shared | frame, f"{path}: {name}")
        found.setdefault(Path(name).name, found[name])
    return found


def _content_of(path: str | os.PathLike[str]) -> Any:
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except OSError as error:
        raise ListError(path, f"cannot be read as intrinsics ({error.strerror})", _FIX) from None
    except UnicodeDecodeError as error:
        raise ListError(path, f"cannot be read as intrinsics ({error.reason})", _FIX) from None
    if "cam0=" in text:
        return _of_middlebury(text)
    if str(path).lower().endswith((".csv", ".txt")):
        raise _matrix_alone(path, text)
    try:
        if str(path).lower().endswith((".yaml", ".yml")):
            import yaml

            return yaml.safe_load(text)
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ListError(path, f"cannot be read as intrinsics ({_short(error)})", _FIX) from None
    except Exception as error:
        if type(error).__module__.startswith("yaml"):
            raise ListError(path, f"cannot be read as intrinsics ({_short(error)})", _FIX) from None
        raise


def _of_middlebury(text: str) -> dict[str, Any]:
    """The left camera of ``calib.txt``, ``cam0=[fx 0 cx; 0 fy cy; 0 0 1]``, with width and height, as of JSON."""
    values = {key.strip(): value for key, _, value in (line.partition("=") for line in text.splitlines())}
    matrix = values.pop("cam0").strip(" []").replace(";", " ").split()
    return {**{key: value.strip() for key, value in values.items() if key in ("width", "height")}, "K": matrix}


def _short(error: BaseException) -> str:
    """What a library says of text that may be of any length, on one line."""
    said = " ".join(str(error).split())
    return said if len(said) <= 120 else f"{said[:120]}..."


def _matrix_alone(path: str | os.PathLike[str], text: str) -> ListError:
    """Nine numbers in three rows, as in Stray Scanner's ``camera_matrix.csv``: the size of the images is missing."""
    try:
        numbers = np.array([float(part) for part in text.replace(",", " ").split()]).reshape(3, 3)
    except ValueError:
        return ListError(path, "cannot be read as intrinsics (it is not JSON)", _FIX)
    fx, fy, cx, cy = numbers[0, 0], numbers[1, 1], numbers[0, 2], numbers[1, 2]
    # The size is not said; the center is near the middle of it.
    line = f'{{"width": W, "height": H, "fx": {fx:g}, "fy": {fy:g}, "cx": {cx:g}, "cy": {cy:g}}}'
    fix = f"Write {line} as JSON, W and H those of the images, about {2 * cx:.0f} and {2 * cy:.0f}"
    return ListError(path, "is a camera matrix without the size of its images, as Stray Scanner writes it", fix)


def _intrinsics_in(content: Any, source: str) -> Intrinsics:
    try:
        fx, fy, cx, cy = _four_numbers(content)
        width, height = (_side(content, names) for names in (_WIDTH_KEYS, _HEIGHT_KEYS))
    except (ValueError, TypeError, OverflowError) as error:
        raise ListError(source, f"cannot be read as intrinsics ({_short(error)})", _FIX) from None
    except KeyError as error:
        raise ListError(source, f"has no {error.args[0]}", _FIX) from None
    if not (0 < fx < np.inf and 0 < fy < np.inf and np.isfinite([cx, cy]).all()):
        raise ListError(source, f"has fx {fx}, fy {fy}, cx {cx}, cy {cy}", "Write focal lengths above 0, in pixels")
    camera = Camera(fx_px=fx, fy_px=fy, cx_px=cx, cy_px=cy)
    lens = _lens_in(content, source)
    if lens is not None and not _bends(lens, camera, height, width):
        lens = None
    return Intrinsics(camera=camera, height=height, width=width, source=source, lens=lens)


_WIDTH_KEYS = ("width", "w", "image_width")
_HEIGHT_KEYS = ("height", "h", "image_height")
_MAX_PX = 1_000_000


def _side(content: Mapping[str, Any], names: tuple[str, ...]) -> int:
    """
    Raises:
        KeyError: none of the names is there.
        ValueError: it is no count of pixels.
    """
    value = next((content[name] for name in names if name in content), None)
    if value is None:
        raise KeyError(names[0])
    number = _number(value)
    if not (number.is_integer() and 0 < number <= _MAX_PX):
        raise ValueError(f"{names[0]} is {number:g}; expected a whole number of pixels from 1 to {_MAX_PX}")
    return int(number)


def _number(value: Any) -> float:
    """
    Raises:
        ValueError: it is no number, or none that a float holds.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{str(value)[:40]!r} is no number")
    try:
        return float(value)
    except (ValueError, OverflowError):
        raise ValueError(f"{str(value)[:40]!r} is no number of pixels") from None


def _four_numbers(content: Any) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy of the forms that ``read_intrinsics`` knows."""
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    if "fx" not in content and "fl_x" in content:
        fl_y = content.get("fl_y", content["fl_x"])
        return tuple(_number(value) for value in (content["fl_x"], fl_y, content["cx"], content["cy"]))  # type: ignore[return-value]
    for key in ("K", "k", "camera_matrix", "intrinsic_matrix"):
        if key in content and "fx" not in content:
            matrix = _matrix(content[key], key)
            return float(matrix[0, 0]), float(matrix[1, 1]), float(matrix[0, 2]), float(matrix[1, 2])
    return tuple(_number(content[key]) for key in ("fx", "fy", "cx", "cy"))  # type: ignore[return-value]


def _matrix(value: Any, key: str) -> NDArray[np.float64]:
    """
    Raises:
        ValueError: it is no matrix of a camera.
    """
    numbers = _numbers_in(value)
    if len(numbers) != 9:
        raise ValueError(f"{key} has {len(numbers)} numbers, not 9")
    matrix = np.array(numbers).reshape(3, 3)
    # Its last row is 0, 0, 1; where the last column is, it was written column by column, as Open3D and Record3D do.
    by_column = key == "intrinsic_matrix" or (matrix[2, :2].any() and not matrix[:2, 2].any())
    return matrix.T if by_column else matrix


def _numbers_in(value: Any) -> list[float]:
    """The numbers of nested lists, or of the ``data`` of OpenCV and ROS."""
    if isinstance(value, dict):
        value = value.get("data", [])
    if isinstance(value, list):
        return [number for part in value for number in _numbers_in(part)]
    return [_number(value)]


def _lens_in(content: Mapping[str, Any], source: str) -> Lens | None:
    """
    What the file says of the lens; None where all of it is 0.

    Raises:
        ListError: coefficients that are not 0 of a model that is not known here, or are no numbers.
    """
    content = _of_one_level(content, source)
    model = next((str(content[key]) for key in _MODEL_KEYS if isinstance(content.get(key), str)), "")
    name = model.lower()
    fisheye = name in _FISHEYE or any(content.get(key) is True for key in _FISHEYE_FLAGS)
    if any(_says_something(content.get(key)) for key in _OTHER_KEYS) or name in _OTHER_MODELS:
        return _unknown(model, source)
    try:
        coefficients = _coefficients(content, _FISHEYE_KEYS if fisheye else _NAMED_KEYS)
    except ValueError as error:
        raise ListError(source, f"has coefficients of distortion that cannot be read ({_short(error)})", _FIX) from None
    if not fisheye and not any(coefficients):
        # Without a word on the lens it is a pinhole; a fisheye bends rays with all its coefficients at 0 too.
        if name in _POLYNOMIAL and _says_something(content.get("params")):  # COLMAP's own list, focal length first
            return _unknown(model, source)
        if name in (*_PINHOLE, *_POLYNOMIAL):
            return None
        return _unknown(model, source) if "fish" in name else None
    if fisheye and not coefficients and _says_something(content.get("params")):
        return _unknown(model, source)
    known = fisheye or name in (*_POLYNOMIAL, *_PINHOLE)
    if not known or not all(map(math.isfinite, coefficients)):
        return _unknown(model, source)
    most = 4 if fisheye else 8
    if any(coefficients[most:]):
        return _unknown(f"{model} with {len(coefficients)} coefficients".strip(), source)
    kept = coefficients[:most]
    if not fisheye and len(kept) not in (4, 5, 8):
        kept += (0.0,) * (next(count for count in (4, 5, 8) if count >= len(kept)) - len(kept))
    return Lens(fisheye=fisheye, coefficients=kept)


def _says_something(value: Any) -> bool:
    """Whether a value holds anything but zeros."""
    if isinstance(value, dict):
        return any(_says_something(part) for part in value.values())
    if isinstance(value, list):
        return any(_says_something(part) for part in value)
    return bool(value)


def _of_one_level(content: Mapping[str, Any], source: str) -> dict[str, Any]:
    """
    The names of coefficients that stand one level below, as of nerfstudio's newer form and KITTI-360's, beside the
    others.

    Raises:
        ListError: both levels name a coefficient, and not the same.
    """
    flat = dict(content)
    for key, inner in content.items():
        if str(key).lower() not in _LIST_KEYS or not isinstance(inner, dict) or "data" in inner:
            continue
        del flat[key]
        for name, value in inner.items():
            if name in content and content[name] != value:
                found = f"says {name} {str(content[name])[:20]} and, below {key}, {str(value)[:20]}"
                raise ListError(source, found, "Leave one of the two")
            flat[name] = value
    return flat


def _unknown(model: str, source: str) -> Lens:
    """
    Raises:
        ListError: always.
    """
    raise ListError(
        source,
        f"describes a lens that is not read here, {model or 'of no name'}",
        "Undistort images and depth, and write the intrinsics of what comes out: width, height, fx, fy, cx, cy",
    )


def _coefficients(content: Mapping[str, Any], names: tuple[str, ...]) -> tuple[float, ...]:
    """In OpenCV's order, out of a list or out of k1, k2, ...; all that are given, and 0 between them."""
    for key, value in content.items():
        if str(key).lower() in _LIST_KEYS and value is not None:
            found = tuple(_numbers_in(value))
            if any(found):
                return found
    given = {
        key.lower().removeprefix("dist_"): value
        for key, value in content.items()
        if isinstance(key, str) and value is not None
    }
    # "k" alone is a matrix in files of ROS 2; "k1" is a coefficient.
    last = max((place for place, name in enumerate(names) if name in given), default=-1)
    return tuple(_number(given.get(name, 0.0)) for name in names[: last + 1])


def _bends(lens: Lens, camera: Camera, height: int, width: int) -> bool:
    """Whether depth out of distances along a pinhole's rays would be off by more than 1 % somewhere in the image."""
    step = max(1, max(height, width) // 64)
    small = Camera(
        fx_px=camera.fx_px / step, fy_px=camera.fy_px / step, cx_px=camera.cx_px / step, cy_px=camera.cy_px / step
    )
    rows, columns = height // step + 1, width // step + 1
    pinhole = 1 / np.linalg.norm(small.rays(rows, columns), axis=-1)
    return bool(np.max(np.abs(lens.cosines(rows, columns, small) / pinhole - 1)) > _MAX_OFF)
