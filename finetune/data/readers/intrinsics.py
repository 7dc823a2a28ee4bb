"""Intrinsics from files, in the forms that programs write, with what they say about the lens."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.data.camera import Camera
from finetune.data.readers.middlebury import calibration_values, is_calibration
from finetune.utils.errors import DataError, ListError
from finetune.utils.paths import read_bytes

_FIX = 'Write {"width": 640, "height": 480, "fx": 615.2, "fy": 615.4, "cx": 319.1, "cy": 241.7}, in pixels'
# Where a pinhole's depth is off by more than this share, the lens is kept.
_MAX_OFF = 0.01
# Names that programs give to lens models, in lower case.
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
# Lens models that are not supported, and keys that only they have.
_OTHER_MODELS = (
    *("mei", "omni", "omnidirectional", "unified", "ucm", "eucm", "double_sphere", "ocam", "scaramuzza", "fov"),
    *("equirectangular", "equirect", "spherical", "panorama", "cylindrical"),
)
_OTHER_KEYS = ("mirror_parameters", "xi", "radial_distortion", "radial")
# In OpenCV's order; COLMAP and nerfstudio use the same names.
_NAMED_KEYS = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")
_FISHEYE_KEYS = ("k1", "k2", "k3", "k4")


@dataclass(frozen=True, kw_only=True)
class Lens:
    """How far a lens bends rays away from a pinhole's.

    Attributes:
        fisheye: OpenCV's fisheye model, in the angle to the axis; else OpenCV's polynomial in the tangent.
        coefficients: in OpenCV's order: k1, k2, p1, p2, k3, k4, k5, k6; for a fisheye k1, k2, k3, k4.
    """

    fisheye: bool
    coefficients: tuple[float, ...]

    def depth_from_ray(self, ray_m: NDArray[np.float32], camera: Camera) -> NDArray[np.float32]:
        """(H, W) meters from the camera's center -> (H, W) meters along the optical axis; 0 for rays behind it."""
        height, width = ray_m.shape
        return (ray_m * self.cosines(height, width, camera)).astype(np.float32)

    def cosines(self, height: int, width: int, camera: Camera) -> NDArray[np.float64]:
        """(H, W) cosine of the angle between a pixel's ray and the optical axis; 0 where the model has no ray."""
        return _cosines(self, height, width, camera)

    def _tangents(self, bent: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N, 2) points of the image at focal length 1 -> (N,) tangent of the angle to the axis; infinity where no ray
        of the polynomial meets the point, as beyond the radius where the polynomial turns back."""
        import cv2

        coefficients = np.array(self.coefficients)
        # The default of five steps leaves an error of a percent at the rim of wide lenses.
        steps = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 50, 1e-10)
        straight = cv2.undistortPoints(bent[:, None], np.eye(3), coefficients, None, None, None, steps)
        points = np.concatenate([straight, np.ones_like(straight[..., :1])], axis=-1)
        again, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), np.eye(3), coefficients)
        found = np.abs(again[:, 0] - bent).max(-1) < 1e-3
        return np.where(found, np.hypot(*straight[:, 0].T), np.inf)

    def _angles(self, bent: NDArray[np.float64]) -> NDArray[np.float64]:
        """The angles a for which a + k1 a^3 + k2 a^5 + k3 a^7 + k4 a^9 is ``bent``, by a table; at most a right angle,
        beyond which there is no depth along the axis. Source: OpenCV's fisheye model, Kannala and Brandt 2006."""
        angles = np.linspace(0.0, math.pi / 2, 20_001)
        powers = sum(k * angles ** (3 + 2 * i) for i, k in enumerate(self.coefficients))
        # Where a polynomial turns back, there is no ray beyond.
        table = np.maximum.accumulate(angles + powers)
        return np.interp(bent, table, angles, right=math.pi / 2)


@lru_cache(maxsize=4)  # all frames of a camera have the same rays, which take half a second to compute
def _cosines(lens: Lens, height: int, width: int, camera: Camera) -> NDArray[np.float64]:
    x, y = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
    bent = np.stack([(x - camera.cx_px) / camera.fx_px, (y - camera.cy_px) / camera.fy_px], axis=-1).reshape(-1, 2)
    angles = lens._angles(np.hypot(*bent.T)) if lens.fisheye else np.arctan(lens._tangents(bent))
    # The cosine of a right angle comes out as 6e-17, which would be taken for a depth.
    cosines = np.where(angles < math.pi / 2, np.cos(angles), 0.0).reshape(height, width)
    cosines.setflags(write=False)
    return cosines


@dataclass(frozen=True, kw_only=True)
class Intrinsics:
    """A camera and the size of the images it was calibrated for.

    Attributes:
        camera: focal lengths and principal point, pixels.
        height, width: size of the images, pixels; None: the size of each image as stored.
        source: where it comes from, as a person can find it.
        fix: what to do if an image has another size; "" to suggest the scaled values.
        lens: what bends its rays; None for a pinhole, and where a pinhole's depth is off by less than 1 %.
    """

    camera: Camera
    height: int | None
    width: int | None
    source: str
    fix: str = ""
    lens: Lens | None = None

    def camera_of(self, size: tuple[int, int], path: str) -> Camera:
        """
        Args:
            size: height and width of an image, pixels.
            path: its file, named in the error.

        Raises:
            DataError: the image has another size, so these focal lengths are not those of its camera.
        """
        height, width = size
        if (height, width) == (self.height, self.width):
            return self.camera
        assert self.height and self.width, "filled in when the image was read"
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
            others, ``D``, ``distortion_coefficients``, ``camera_model``, ...) is read too; everything else is ignored.
            YAML with the same keys, such as ROS' camera_info, and Middlebury's ``calib.txt`` are read as well.

    Raises:
        ListError: the file is missing or is none of these, lacks a key, a focal length is not above 0, or the lens
            model is not known here.
    """
    content = parse_camera_file(path)
    if isinstance(content, dict) and "frames" in content and "fl_x" not in content:
        raise ListError(path, "holds a camera for each frame, but one camera is needed here", _FIX)
    return make_intrinsics(content, str(path))


def read_intrinsics_of_images(path: str | os.PathLike[str]) -> Mapping[str, Intrinsics] | Intrinsics:
    """
    Args:
        path: a file that ``read_intrinsics`` reads; or JSON that holds the same for each image, by its path below the
            root, its file name or its stem: ``{"0001.jpg": {"width": 640, ...}, ...}``; or nerfstudio's
            ``transforms.json``.

    Raises:
        ListError: it is none of these; names the image.
    """
    content = parse_camera_file(path)
    if isinstance(content, dict) and isinstance(content.get("frames"), list):
        return _read_nerfstudio(content, str(path))
    if not isinstance(content, dict) or not content or not all(isinstance(camera, dict) for camera in content.values()):
        return make_intrinsics(content, str(path))
    if "camera_matrix" in content:
        return make_intrinsics(content, str(path))
    return {str(name): make_intrinsics(camera, f"{path}: {name}") for name, camera in content.items()}


def _read_nerfstudio(content: Mapping[str, object], path: str) -> Mapping[str, Intrinsics] | Intrinsics:
    """The one camera at the top of nerfstudio's ``transforms.json``, or that of each frame by its image's path."""
    listed = content["frames"]
    frames = [frame for frame in listed if isinstance(frame, dict)] if isinstance(listed, list) else []
    if not any("fl_x" in frame for frame in frames):
        return make_intrinsics(content, path)
    shared = {key: value for key, value in content.items() if key != "frames"}
    found = {}
    for frame in frames:
        name = Path(str(frame.get("file_path", ""))).as_posix()
        found[name] = make_intrinsics(shared | frame, f"{path}: {name}")
        found.setdefault(Path(name).name, found[name])
    return found


def parse_camera_file(path: str | os.PathLike[str]) -> object:
    """
    The content of a file that ``read_intrinsics`` reads, before anything of it is looked up.

    Raises:
        ListError: the file is missing, or is neither JSON, YAML nor Middlebury's ``calib.txt``.
    """
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except OSError as error:
        raise ListError(path, f"cannot be read as intrinsics ({error.strerror})", _FIX) from None
    except UnicodeDecodeError as error:
        raise ListError(path, f"cannot be read as intrinsics ({error.reason})", _FIX) from None
    if is_calibration(text):
        return _parse_middlebury(text)
    if str(path).lower().endswith((".csv", ".txt")):
        raise _text_error(path, text)
    try:
        if str(path).lower().endswith((".yaml", ".yml")):
            import yaml

            return yaml.safe_load(text)
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ListError(path, f"cannot be read as intrinsics ({_one_line(error)})", _FIX) from None
    except Exception as error:
        if type(error).__module__.startswith("yaml"):
            raise ListError(path, f"cannot be read as intrinsics ({_one_line(error)})", _FIX) from None
        raise


def _parse_middlebury(text: str) -> dict[str, object]:
    """The left camera of ``calib.txt``, ``cam0=[fx 0 cx; 0 fy cy; 0 0 1]``, with width and height, in JSON's keys."""
    values = calibration_values(text)
    matrix = values["cam0"].strip("[]").replace(";", " ").split()
    return {**{key: value for key, value in values.items() if key in ("width", "height")}, "K": matrix}


def _one_line(error: BaseException) -> str:
    """An error of a library, which may quote text of any length, as one short line."""
    message = " ".join(str(error).split())
    return message if len(message) <= 120 else f"{message[:120]}..."


def _text_error(path: str | os.PathLike[str], text: str) -> ListError:
    """Why text is not read: nine numbers, as in Stray Scanner's ``camera_matrix.csv``, lack the size of the images."""
    try:
        numbers = np.array([float(part) for part in text.replace(",", " ").split()]).reshape(3, 3)
    except ValueError:
        return ListError(path, "cannot be read as intrinsics (it is not JSON)", _FIX)
    fx, fy, cx, cy = numbers[0, 0], numbers[1, 1], numbers[0, 2], numbers[1, 2]
    # The principal point is near the middle of the image, which suggests its size.
    line = f'{{"width": W, "height": H, "fx": {fx:g}, "fy": {fy:g}, "cx": {cx:g}, "cy": {cy:g}}}'
    fix = f"Write {line} as JSON, where W and H are the size of the images, about {2 * cx:.0f} and {2 * cy:.0f}"
    return ListError(path, "is a camera matrix without the size of its images, as Stray Scanner writes it", fix)


def make_intrinsics(content: object, source: str, *, keep_lens: bool = False) -> Intrinsics:
    """
    Args:
        content: what ``parse_camera_file`` gave, or a part of it that describes one camera.
        source: names it in errors.
        keep_lens: keep a lens whose depth a pinhole matches within 1 %: pixels move by more than depth does.

    Raises:
        ListError: as ``read_intrinsics``.
    """
    try:
        if not isinstance(content, dict):
            raise ValueError("not a JSON object")
        fx, fy, cx, cy = _focal_and_center(content)
        width, height = (_read_side(content, names) for names in (_WIDTH_KEYS, _HEIGHT_KEYS))
    except (ValueError, TypeError, OverflowError) as error:
        raise ListError(source, f"cannot be read as intrinsics ({_one_line(error)})", _FIX) from None
    except KeyError as error:
        raise ListError(source, f"has no {error.args[0]}", _FIX) from None
    if not (0 < fx < np.inf and 0 < fy < np.inf and np.isfinite([cx, cy]).all()):
        raise ListError(source, f"has fx {fx}, fy {fy}, cx {cx}, cy {cy}", "Write focal lengths above 0, in pixels")
    camera = Camera(fx_px=fx, fy_px=fy, cx_px=cx, cy_px=cy)
    lens = _read_lens(content, source)
    if lens is not None and not keep_lens and not bends_rays(lens, camera, height, width):
        lens = None
    return Intrinsics(camera=camera, height=height, width=width, source=source, lens=lens)


_WIDTH_KEYS = ("width", "w", "image_width")
_HEIGHT_KEYS = ("height", "h", "image_height")
_MAX_PX = 1_000_000


def _read_side(content: Mapping[str, object], names: tuple[str, ...]) -> int:
    """
    Raises:
        KeyError: the file has none of the names.
        ValueError: the value is no count of pixels.
    """
    value = next((content[name] for name in names if name in content), None)
    if value is None:
        raise KeyError(names[0])
    number = _to_number(value)
    if not (number.is_integer() and 0 < number <= _MAX_PX):
        raise ValueError(f"{names[0]} is {number:g}; expected a whole number of pixels from 1 to {_MAX_PX}")
    return int(number)


def _to_number(value: object) -> float:
    """
    Raises:
        ValueError: it is no number, or one that no float holds.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{str(value)[:40]!r} is no number")
    try:
        return float(value)
    except (ValueError, OverflowError):
        raise ValueError(f"{str(value)[:40]!r} is no number of pixels") from None


def _focal_and_center(content: Mapping[str, object]) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy, from any of the forms that ``read_intrinsics`` knows."""
    if "fx" not in content and "fl_x" in content:
        fl_y = content.get("fl_y", content["fl_x"])
        values = (content["fl_x"], fl_y, content["cx"], content["cy"])
        return tuple(map(_to_number, values))  # type: ignore[return-value]
    for key in ("K", "k", "camera_matrix", "intrinsic_matrix"):
        if key in content and "fx" not in content:
            matrix = _to_matrix(content[key], key)
            return float(matrix[0, 0]), float(matrix[1, 1]), float(matrix[0, 2]), float(matrix[1, 2])
    return tuple(_to_number(content[key]) for key in ("fx", "fy", "cx", "cy"))  # type: ignore[return-value]


def _to_matrix(value: object, key: str) -> NDArray[np.float64]:
    """
    Raises:
        ValueError: it is no camera matrix.
    """
    numbers = _flatten_numbers(value)
    if len(numbers) != 9:
        raise ValueError(f"{key} has {len(numbers)} numbers, not 9")
    matrix = np.array(numbers).reshape(3, 3)
    # Row by row, the last row is 0, 0, 1. Column by column, as Open3D and Record3D write it, the last column is.
    by_column = key == "intrinsic_matrix" or (matrix[2, :2].any() and not matrix[:2, 2].any())
    return matrix.T if by_column else matrix


def _flatten_numbers(value: object) -> list[float]:
    """The numbers in nested lists, or in the ``data`` of OpenCV and ROS."""
    if isinstance(value, dict):
        value = value.get("data", [])
    if isinstance(value, list):
        return [number for part in value for number in _flatten_numbers(part)]
    return [_to_number(value)]


def _read_lens(content: Mapping[str, object], source: str) -> Lens | None:
    """
    What the file says about the lens; None where all of it is 0.

    Raises:
        ListError: its coefficients are no numbers, or belong to a model that is not known here and are not all 0.
    """
    content = _lift_coefficients(content, source)
    model = next((str(content[key]) for key in _MODEL_KEYS if isinstance(content.get(key), str)), "")
    name = model.lower()
    fisheye = name in _FISHEYE or any(content.get(key) is True for key in _FISHEYE_FLAGS)
    if any(_holds_nonzero(content.get(key)) for key in _OTHER_KEYS) or name in _OTHER_MODELS:
        raise _unknown_lens(model, source)
    try:
        coefficients = _read_coefficients(content, _FISHEYE_KEYS if fisheye else _NAMED_KEYS)
    except ValueError as error:
        raise ListError(
            source, f"has coefficients of distortion that cannot be read ({_one_line(error)})", _FIX
        ) from None
    if not fisheye and not any(coefficients):
        # Coefficients of 0 mean a pinhole, except for a fisheye, which bends rays even then.
        if name in _POLYNOMIAL and _holds_nonzero(content.get("params")):  # a list of COLMAP, focal length first
            raise _unknown_lens(model, source)
        if name in (*_PINHOLE, *_POLYNOMIAL):
            return None
        if "fish" in name:
            raise _unknown_lens(model, source)
        return None
    if fisheye and not coefficients and _holds_nonzero(content.get("params")):
        raise _unknown_lens(model, source)
    known = fisheye or name in (*_POLYNOMIAL, *_PINHOLE)
    if not known or not all(map(math.isfinite, coefficients)):
        raise _unknown_lens(model, source)
    most = 4 if fisheye else 8
    if any(coefficients[most:]):
        raise _unknown_lens(f"{model} with {len(coefficients)} coefficients".strip(), source)
    kept = coefficients[:most]
    if not fisheye and len(kept) not in (4, 5, 8):
        kept += (0.0,) * (next(count for count in (4, 5, 8) if count >= len(kept)) - len(kept))
    return Lens(fisheye=fisheye, coefficients=kept)


def _holds_nonzero(value: object) -> bool:
    """Whether a value holds anything but zeros."""
    if isinstance(value, dict):
        return any(_holds_nonzero(part) for part in value.values())
    if isinstance(value, list):
        return any(_holds_nonzero(part) for part in value)
    return bool(value)


def _lift_coefficients(content: Mapping[str, object], source: str) -> dict[str, object]:
    """
    The content with coefficients that are one level down, as nerfstudio's newer form and KITTI-360 have them, moved to
    the top level.

    Raises:
        ListError: both levels have a coefficient of one name, with different values.
    """
    flat = dict(content)
    for key, inner in content.items():
        if str(key).lower() not in _LIST_KEYS or not isinstance(inner, dict) or "data" in inner:
            continue
        del flat[key]
        for name, value in inner.items():
            if name in content and content[name] != value:
                found = f"says {name} {str(content[name])[:20]} and, below {key}, {str(value)[:20]}"
                raise ListError(source, found, "Remove one of the two")
            flat[name] = value
    return flat


def _unknown_lens(model: str, source: str) -> ListError:
    return ListError(
        source,
        f"describes a lens model that is not supported, {model or 'without a name'}",
        "Undistort images and depth, and write the intrinsics of the results: width, height, fx, fy, cx, cy",
    )


def _read_coefficients(content: Mapping[str, object], names: tuple[str, ...]) -> tuple[float, ...]:
    """The coefficients in OpenCV's order, from a list or from k1, k2, ...; up to the last one given, 0 if left out."""
    for key, value in content.items():
        if str(key).lower() in _LIST_KEYS and value is not None:
            found = tuple(_flatten_numbers(value))
            if any(found):
                return found
    given = {
        key.lower().removeprefix("dist_"): value
        for key, value in content.items()
        if isinstance(key, str) and value is not None
    }
    # "k" alone is a matrix in files of ROS 2; "k1" is a coefficient.
    last = max((i for i, name in enumerate(names) if name in given), default=-1)
    return tuple(_to_number(given.get(name, 0.0)) for name in names[: last + 1])


def bends_rays(lens: Lens, camera: Camera, height: int, width: int) -> bool:
    """Whether depth from distances along a pinhole's rays would be off by more than 1 % somewhere in the image."""
    step = max(1, max(height, width) // 64)
    small = Camera(
        fx_px=camera.fx_px / step, fy_px=camera.fy_px / step, cx_px=camera.cx_px / step, cy_px=camera.cy_px / step
    )
    rows, columns = height // step + 1, width // step + 1
    pinhole = 1 / np.linalg.norm(small.rays(rows, columns), axis=-1)
    return bool(np.max(np.abs(lens.cosines(rows, columns, small) / pinhole - 1)) > _MAX_OFF)
