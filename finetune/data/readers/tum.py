"""Recordings in the layout of TUM RGB-D: color and depth have separate time stamps and are paired by time."""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from finetune.data.readers.files import DepthCoding, read_frame, require_depth_range
from finetune.data.readers.intrinsics import Intrinsics, read_intrinsics
from finetune.data.readers.listing import ListedFrames, Listing, locate, require_file, require_folder
from finetune.data.readers.sensors import SENSORS, Sensor, sensor_note
from finetune.data.readers.tum_layouts import LAYOUTS, RecordingLayout, find_camera, pair_by_name
from finetune.data.readers.tum_lists import PAIRS_FILE, STAMP_FILES, read_associations, read_stamps
from finetune.data.sample import DepthSample
from finetune.utils.errors import ListError, RecipeError
from finetune.utils.paths import expand_path, is_file


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Tum(ListedFrames):
    """One recording: ``rgb.txt`` and ``depth.txt`` with a time stamp and a file per line, or ``associations.txt``.

    Depth is uint16 PNG, 1/5000 m, 0 = invalid, registered to color. Each depth map is paired with the color image
    nearest in time, if that is within ``tolerance_s`` and no other depth map is nearer to it. Frames are sorted by
    time. Making the reader opens nothing.

    ``layout`` reads the recordings of other data sets, each with its unit, its invalid values and its camera: ICL-NUIM
    (as above), Redwood (``color`` and ``depth``, by number), 7-Scenes and 3DMatch (``frame-N.color`` next to
    ``frame-N.depth``, also in folders below; a ``camera-intrinsics.txt`` at the root wins), SUN3D (``image`` and
    ``depth``, whose three lowest bits come before the others), YCB-Video (``N-color`` next to ``N-depth``). Color and
    depth of 7-Scenes are not registered.

    Recordings of other devices use the layout ``tum`` too, with other units: set ``sensor`` or ``meters_per_unit``.
    Without either, the reader assumes TUM's unit and prints it.

    Source: the data set's own description of its file formats, Sturm et al. 2012, doi:10.1109/IROS.2012.6385773.
    """

    root: str  # folder of the recording
    layout: Literal["tum", "icl_nuim", "redwood", "sevenscenes", "threedmatch", "sun3d", "ycb"] = "tum"  # data set
    associations: str | None = None  # file of pairs: time, color, time, depth per line, or depth first
    tolerance_s: float = 0.02  # most seconds between color and depth of a frame
    sensor: Sensor | None = None  # another device's recording in this layout: fills in the next two, and prints them
    meters_per_unit: float | None = None  # raw value to meters; null: sensor's, or the layout's, 1/5000 of tum
    invalid: tuple[float, ...] | None = None  # raw values that mean "nothing measured"; null: sensor's, or the layout's
    min_depth_m: float = 0.0  # depths up to this are not valid
    max_depth_m: float | None = None  # depths beyond this are not valid; null for no limit
    intrinsics: str | None = None  # JSON with width, height, fx, fy, cx, cy in pixels, below root or from here

    _assumed: ClassVar[bool] = False  # whether the unit of this reader is assumed; no option of a recipe

    def __post_init__(self) -> None:
        unit, invalid = self._layout.meters_per_unit, self._layout.invalid
        if self.sensor is not None:
            unit, invalid, _ = SENSORS[self.sensor]
        # Many recordings have TUM's layout, but only the data set's own have its unit.
        object.__setattr__(self, "_assumed", self.sensor is None and self.meters_per_unit is None)
        if self.meters_per_unit is None:
            object.__setattr__(self, "meters_per_unit", unit)
        if self.invalid is None:
            object.__setattr__(self, "invalid", invalid)
        assert self.meters_per_unit is not None
        if not 0.0 < self.meters_per_unit < math.inf:
            raise RecipeError("meters_per_unit", self.meters_per_unit, "a number above 0; 0.0002 for TUM RGB-D")
        if self.associations is not None and self._layout.color is not None:
            raise RecipeError("associations", self.associations, f"nothing; names pair the files of {self.layout}")
        if not 0.0 <= self.tolerance_s < math.inf:
            raise RecipeError("tolerance_s", self.tolerance_s, "seconds from 0 up; 0.02 is usual")
        require_depth_range(self.min_depth_m, self.max_depth_m)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a sensor's name stands for, or which unit is assumed, to be printed."""
        if self.sensor is not None:
            return (sensor_note(self.root, self.sensor, self.meters_per_unit, self.invalid or ()),)
        if not self._assumed or self.layout != "tum":
            return ()
        return (
            f"{self.root}: meters_per_unit is that of TUM RGB-D, {self.meters_per_unit:g}; for a recording by another "
            "device in this layout, set sensor, or meters_per_unit (0.001 for a RealSense)",
        )

    def check_paths(self) -> None:
        """
        Raises:
            RecipeError: the folder or one of its lists is missing. Only existence is looked at.
        """
        require_folder("root", self.root)
        if self.associations is not None:
            require_file("associations", self.root, self.associations)
        root = expand_path(self.root)
        if (
            self._layout.color is None
            and self._pairs_file is None
            and not (is_file(root / "rgb.txt") and is_file(root / "depth.txt"))
        ):
            expected = f"a folder that holds rgb.txt and depth.txt, or {PAIRS_FILE}; or name one as associations"
            raise RecipeError("root", self.root, expected)
        if self.intrinsics is not None:
            require_file("intrinsics", self.root, self.intrinsics)

    def __getitem__(self, index: int) -> DepthSample:
        """
        Raises:
            ListError: a list is malformed, no two files are near in time, or a file of this frame is missing.
            DataError: a file of this frame cannot be decoded, or sizes differ.
        """
        image_path, depth_path = self._listing.files(index)
        assert self.meters_per_unit is not None, "filled when it was made"
        coding = DepthCoding(
            meters_per_unit=self.meters_per_unit,
            invalid=self.invalid or (),
            min_depth_m=self.min_depth_m,
            max_depth_m=self.max_depth_m,
            bits="rotated" if self._layout.rotated else None,
        )
        return read_frame(
            image_path, depth_path, coding, self._intrinsics, levels=self.image_levels, network=self.network
        )

    @property
    def _layout(self) -> RecordingLayout:
        return LAYOUTS[self.layout]

    @property
    def _pairs_file(self) -> str | None:
        """The file that pairs color and depth, if it is named, or is at the root and ``rgb.txt`` is not."""
        if self.associations is not None:
            return self.associations
        root = expand_path(self.root)
        return PAIRS_FILE if is_file(root / PAIRS_FILE) and not is_file(root / "rgb.txt") else None

    @cached_property
    def _intrinsics(self) -> Intrinsics | None:
        if self.intrinsics is not None:
            return read_intrinsics(locate(self.root, self.intrinsics))
        return find_camera(expand_path(self.root), self._layout)

    @cached_property
    def _listing(self) -> Listing:
        root = str(expand_path(self.root))
        if self._layout.color is not None:
            return Listing(pairs=pair_by_name(Path(root), self._layout), image_root=root, depth_root=root)
        if self._pairs_file is not None:
            path = locate(self.root, self._pairs_file)
            rows = [(row.line, row.color, row.depth) for row in read_associations(path)]
            return Listing.of_list(path, rows, root, root)
        color, depth = (read_stamps(locate(self.root, name)) for name in STAMP_FILES)
        pairs = pair_by_time(color, depth, self.tolerance_s)
        if not pairs:
            raise ListError(
                locate(self.root, "depth.txt"),
                f"none of its {len(depth)} depth maps is within {self.tolerance_s:g} s of one of {len(color)} "
                "color images",
                "Check that both lists are of one recording and one clock, or raise tolerance_s",
            )
        return Listing(pairs=pairs, image_root=root, depth_root=root)


def pair_by_time(
    color: list[tuple[float, str]], depth: list[tuple[float, str]], tolerance_s: float
) -> list[tuple[str, str]]:
    """
    Args:
        color, depth: (seconds, file), in any order.
        tolerance_s: most seconds between the two of a pair.

    Returns:
        (color, depth), sorted by the time of the depth maps. The closest pairs are chosen first, and no file is in two.
    """
    color, depth = sorted(color), sorted(depth)
    near, first = [], 0
    for i, (time_s, _) in enumerate(depth):
        while first < len(color) and color[first][0] < time_s - tolerance_s:
            first += 1
        k = first
        while k < len(color) and color[k][0] <= time_s + tolerance_s:
            near.append((abs(color[k][0] - time_s), i, k))
            k += 1
    taken_color: set[int] = set()
    chosen: dict[int, int] = {}
    for _, i, k in sorted(near):
        if i not in chosen and k not in taken_color:
            chosen[i] = k
            taken_color.add(k)
    return [(color[chosen[i]][1], depth[i][1]) for i in sorted(chosen)]
