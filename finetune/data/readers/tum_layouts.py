"""Layouts of recordings of other data sets: where color and depth are, what a unit is, which camera recorded them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from finetune.data.camera import Camera
from finetune.data.readers.intrinsics import Intrinsics
from finetune.data.readers.listing import list_tree
from finetune.utils.errors import ListError
from finetune.utils.paths import is_file

_CAMERA_FILE = "camera-intrinsics.txt"  # three rows of three numbers, as 3DMatch and its followers write it


@dataclass(frozen=True, kw_only=True)
class RecordingLayout:
    """
    Attributes:
        color, depth: patterns of paths below the root, whose group ``key`` is the same for both files of a frame; None:
            lists of time stamps pair the files.
        meters_per_unit: of the 16-bit depth.
        invalid: raw values that mean "nothing measured".
        camera: fx, fy, cx, cy for its images of 480x640, if the data set has just one camera.
        rotated: the three lowest bits of a raw value come before the others.
    """

    color: str | None = None
    depth: str | None = None
    meters_per_unit: float = 0.0002
    invalid: tuple[float, ...] = (0.0,)
    camera: tuple[float, float, float, float] | None = None
    rotated: bool = False


_FRAMES = r"(?P<key>(?:.*/)?frame-\d+)"
LAYOUTS = {
    "tum": RecordingLayout(),
    # The data set itself says fy is -480, since its worlds are upside down in its images.
    "icl_nuim": RecordingLayout(camera=(481.2, 480.0, 319.5, 239.5)),
    "redwood": RecordingLayout(
        color=r"(?:color|image|rgb)/(?P<key>\d+)(?:-\d+)?\.(?:jpg|png)",
        depth=r"depth/(?P<key>\d+)(?:-\d+)?\.png",
        meters_per_unit=0.001,
        camera=(525.0, 525.0, 319.5, 239.5),
    ),
    "sevenscenes": RecordingLayout(
        color=_FRAMES + r"\.color\.(?:png|jpg)",
        depth=_FRAMES + r"\.depth\.png",
        meters_per_unit=0.001,
        invalid=(0.0, 65535.0),
        camera=(585.0, 585.0, 320.0, 240.0),
    ),
    "threedmatch": RecordingLayout(
        color=_FRAMES + r"\.color\.(?:png|jpg)", depth=_FRAMES + r"\.depth\.png", meters_per_unit=0.001
    ),
    "sun3d": RecordingLayout(
        color=r"image/(?P<key>\d+)-\d+\.jpg", depth=r"depth/(?P<key>\d+)-\d+\.png", meters_per_unit=0.001, rotated=True
    ),
    "ycb": RecordingLayout(
        color=r"(?P<key>(?:.*/)?\d+)-color\.(?:png|jpg)",
        depth=r"(?P<key>(?:.*/)?\d+)-depth\.png",
        meters_per_unit=0.0001,
    ),
}


def pair_by_name(root: Path, layout: RecordingLayout) -> list[tuple[str, str]]:
    """
    Returns:
        (color, depth) below the root, sorted by key. Files without a counterpart are left out: recordings begin and
        end with some.

    Raises:
        ListError: there is no pair.
    """
    assert layout.color is not None and layout.depth is not None
    color, depth = (dict(_find_files(root, pattern)) for pattern in (layout.color, layout.depth))
    pairs = [(color[key], depth[key]) for key in sorted(color.keys() & depth.keys())]
    if not pairs:
        raise ListError(
            root,
            f"holds {len(color)} color images and {len(depth)} depth maps of this layout, and no two of one frame",
            "Check root and layout, or read it with reader pairs",
        )
    return pairs


def _find_files(root: Path, pattern: str) -> Iterator[tuple[str, str]]:
    for path in list_tree(root):
        name = path.relative_to(root).as_posix()
        found = re.fullmatch(pattern, name)
        if found:
            yield found["key"], name


def find_camera(root: Path, layout: RecordingLayout) -> Intrinsics | None:
    """
    The camera of a recording: from the file at its root, else that of the data set.

    Raises:
        ListError: the file is not three rows of three numbers.
    """
    path = root / _CAMERA_FILE
    source, numbers = str(path), layout.camera
    if is_file(path):
        try:
            matrix = np.loadtxt(path, dtype=np.float64)
            fx, fy, cx, cy = (float(matrix[row, column]) for row, column in ((0, 0), (1, 1), (0, 2), (1, 2)))
        except (OSError, ValueError, IndexError) as error:
            raise ListError(
                path, f"is not three rows of three numbers ({error})", "Fix it, or set intrinsics"
            ) from error
        numbers = (fx, fy, cx, cy)
    elif numbers is not None:
        source = "the camera of this layout"
    if numbers is None:
        return None
    fx, fy, cx, cy = numbers
    camera = Camera(fx_px=fx, fy_px=fy, cx_px=cx, cy_px=cy)
    return Intrinsics(camera=camera, height=480, width=640, source=source, fix="Give intrinsics of images of this size")
