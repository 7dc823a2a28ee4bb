"""Which files make up a frame of ``pairs``: its image, its depth map, its masks, and the intrinsics of its camera."""

from __future__ import annotations

import math
import os
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from finetune.data.camera import Camera
from finetune.data.readers.intrinsics import Intrinsics, read_intrinsics_of_images
from finetune.data.readers.listing import (
    PATHS,
    Listing,
    describe_places,
    locate,
    read_columns,
    read_list,
    require_file,
    require_folder,
    require_folder_below,
    require_other_file,
)
from finetune.data.readers.masks import STEM, find_side_file
from finetune.data.readers.matching import match_frames
from finetune.utils.errors import ListError, RecipeError
from finetune.utils.paths import expand_path, is_file, path_exists

# The value of ``intrinsics``, ``mask`` and ``sky_mask`` that means columns of the list.
IN_LIST = "list"
MASKS = ("mask", "sky_mask")
_CAMERA_COLUMNS = ("fx", "fy", "cx", "cy")


@dataclass(frozen=True, kw_only=True)
class FrameFiles:
    """The files of the frames of ``pairs``. Making it opens nothing; a list or a folder is read at first use.

    The attributes are the options of ``Pairs`` with the same names, which documents them; ``list_file`` is its
    ``list``.
    """

    root: str
    list_file: str | None
    image_dir: str | None
    depth_dir: str | None
    intrinsics: str | None
    mask: str | None
    sky_mask: str | None

    def require_options(self) -> None:
        """
        Raises:
            RecipeError: an option is missing, or needs a list that is not given, or contradicts the list.
        """
        if self.intrinsics == IN_LIST and self.list_file is None:
            raise RecipeError("intrinsics", IN_LIST, "a JSON file, since there is no list")
        for key in MASKS:
            if getattr(self, key) == IN_LIST and self.list_file is None:
                raise RecipeError(key, IN_LIST, f"a file or folder, or a name with {STEM}, since there is no list")
        for key, folder in (("image_dir", self.image_dir), ("depth_dir", self.depth_dir)):
            if self.list_file is None and folder is None:
                raise RecipeError(key, None, "a folder below root, since there is no list; or give a list file as list")
            if self.list_file is not None and folder is not None:
                raise RecipeError(key, folder, "nothing, since list names the pairs; leave out one of the two")

    def check_paths(self) -> None:
        """
        Raises:
            RecipeError: a folder or file that the options name is missing. Only existence is looked at.
        """
        require_folder("root", self.root)
        if self.list_file is not None:
            require_file("list", self.root, self.list_file)
        for key, folder in (("image_dir", self.image_dir), ("depth_dir", self.depth_dir)):
            if folder is not None:
                require_folder_below(key, self.root, folder)
        if self.intrinsics not in (None, IN_LIST):
            require_file("intrinsics", self.root, str(self.intrinsics))
        for key in MASKS:
            name = getattr(self, key)
            if name is None or name == IN_LIST:
                continue
            # For a pattern such as confidence/*.png, only the folder can be looked up.
            known = os.path.split(name)[0] if STEM in name else name
            if known and not path_exists(locate(self.root, known)):
                raise RecipeError(key, name, f"an existing file or folder, {describe_places(self.root, known)}")

    @cached_property
    def listing(self) -> Listing:
        """The image and the depth map of every frame."""
        if self.list_file is not None:
            path = locate(self.root, self.list_file)
            return Listing.of_list(path, read_list(path), self._root, self._root)
        assert self.image_dir is not None and self.depth_dir is not None
        image_root, depth_root = (str(Path(self._root, expand_path(name))) for name in (self.image_dir, self.depth_dir))
        return Listing(pairs=match_frames(image_root, depth_root), image_root=image_root, depth_root=depth_root)

    def mask_file(self, key: str, index: int, image_path: str, depth_path: str) -> Path | None:
        """
        Args:
            key: ``mask`` or ``sky_mask``.
            index: of the frame.
            image_path, depth_path: its two files.

        Returns:
            The mask of the frame; None if the entry has no masks of this key.

        Raises:
            ListError: it is the image or the depth map itself, or the list names none.
            DataError: this frame has none.
        """
        name: str | None = getattr(self, key)
        if name is None:
            return None
        if name != IN_LIST:
            path = find_side_file(name, self.root, image_path, depth_path)
        else:
            path = Path(self._root, expand_path(self._mask_columns[key][index]))
            if not is_file(path):
                raise ListError(self.listing.place(index), f"{path} is no file", f"Correct the column of {key}")
        for other, what in ((image_path, "image"), (depth_path, "depth map")):
            require_other_file(path, other, self.listing.place(index), f"its {what} and its {key}")
        return path

    def intrinsics_of(self, index: int, image_path: str) -> Intrinsics | None:
        """
        Returns:
            Those of the frame's image; None if the entry has none.

        Raises:
            ListError: a file that holds intrinsics for each image has none for this one.
        """
        found = self._intrinsics
        if found is None or isinstance(found, Intrinsics):
            return found
        if isinstance(found, array):
            fx, fy, cx, cy = found[4 * index : 4 * index + 4]
            camera = Camera(fx_px=fx, fy_px=fy, cx_px=cx, cy_px=cy)
            # A line of a list gives no size: its numbers are for the image as stored, which is not decoded here.
            return Intrinsics(camera=camera, height=None, width=None, source=image_path)
        image = Path(image_path)
        below = image.relative_to(self._root).as_posix() if image.is_relative_to(self._root) else image.name
        for name in (below, image.name, image.stem):
            if name in found:
                return found[name]
        raise ListError(str(self.intrinsics), f"holds no intrinsics of {below}", "Add them by this path, name or stem")

    @property
    def intrinsics_file(self) -> str | None:
        """The file that ``intrinsics`` names, if it names one."""
        return None if self.intrinsics in (None, IN_LIST) else locate(self.root, str(self.intrinsics))

    @property
    def _root(self) -> str:
        return str(expand_path(self.root))

    @cached_property
    def _intrinsics(self) -> Intrinsics | Mapping[str, Intrinsics] | array[float] | None:
        """One for all images, or one for each by its name, or fx, fy, cx, cy of one frame after the other."""
        if self.intrinsics_file is not None:
            return read_intrinsics_of_images(self.intrinsics_file)
        if self.intrinsics is None:
            return None
        assert self.list_file is not None
        path = locate(self.root, self.list_file)
        numbers = array("d")
        for line, columns in read_columns(path, self._columns):
            try:
                fx, fy, cx, cy = (float(column) for column in columns[2:6])
            except ValueError:
                fix = "Write `image depth fx fy cx cy`, pixels, or intrinsics: a JSON file"
                raise ListError(f"{path}:{line}", "has no fx, fy, cx, cy after its two paths", fix) from None
            if not (0 < fx < math.inf and 0 < fy < math.inf):
                raise ListError(f"{path}:{line}", f"has fx {fx:g}, fy {fy:g}", "Write focal lengths above 0, in pixels")
            numbers.extend((fx, fy, cx, cy))
        return numbers

    @property
    def _columns(self) -> tuple[str, ...]:
        """Names of the columns of the list that are read."""
        camera = _CAMERA_COLUMNS if self.intrinsics == IN_LIST else ()
        return (*PATHS, *camera, *(key for key in MASKS if getattr(self, key) == IN_LIST))

    @cached_property
    def _mask_columns(self) -> dict[str, list[str]]:
        """Key -> the file of each frame, for the masks that are columns of the list."""
        assert self.list_file is not None
        path, names = locate(self.root, self.list_file), self._columns
        found: dict[str, list[str]] = {key: [] for key in MASKS if key in names}
        for line, columns in read_columns(path, names):
            for key, files in found.items():
                column = names.index(key)
                if len(columns) <= column or not columns[column]:
                    fix = f"Write {' '.join(names)} in each line"
                    raise ListError(f"{path}:{line}", f"has no {key}", fix)
                files.append(columns[column])
        return found
