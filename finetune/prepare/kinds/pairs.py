"""Any folder of images and depth maps that already belong together, whatever its names and folders are."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from finetune.prepare.depth_options import add_depth_arguments, make_depth_numbers
from finetune.prepare.distinct_sources import require_distinct
from finetune.prepare.kinds.frames import FileFrames
from finetune.prepare.recording import FrameKey, FrameSource
from finetune.utils.errors import ListError
from finetune.utils.number_arguments import number
from finetune.utils.paths import expand_path, is_file, is_folder, missing, real_path

if TYPE_CHECKING:
    from finetune.data.readers.intrinsics import Intrinsics
    from finetune.prepare.pairing.recordings import Found
    from finetune.prepare.pairing.series import Kind, Series

_CAMERA_FILE = "intrinsics.json"
_LISTS = (".txt", ".csv", ".tsv", ".lst")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare SOURCE, how files are told apart, and the options of depth files."""
    parser.add_argument(
        "source",
        nargs="+",
        type=expand_path,
        metavar="SOURCE",
        help="folders of images and depth maps, searched with all folders in them; or lists of lines `image depth`",
    )
    parser.add_argument(
        "--images", metavar="PATTERN", help="which files are the images, such as 'rgb/*.png'; default: found by itself"
    )
    parser.add_argument("--depth", metavar="PATTERN", help="which files are the depth maps, such as '*/depth_raw/*'")
    parser.add_argument(
        "--tolerance",
        type=number("a number of seconds from 0 up, such as 0.02", lambda found: found >= 0),
        metavar="SECONDS",
        help="most time between image and depth, where times pair them; default: half a frame interval",
    )
    add_depth_arguments(parser)


def open_source(arguments: argparse.Namespace) -> FrameSource:
    """
    Find the pairs.

    Raises:
        FinetuneError: a folder is missing, its files do not pair up, or the unit is not given: then every unit that
            fits is named.
    """
    found = find_frames(arguments)
    depths = [frame.depth for frame in found.frames]
    _require_one_type(depths, arguments)
    images = [frame.image for frame in found.frames]
    cameras, note = _find_cameras(arguments, images)
    return PairedFiles(
        frame_keys=[
            FrameKey(recording=frame.recording, stem=frame.stem, time_s=frame.time_s) for frame in found.frames
        ],
        images=images,
        depths=depths,
        numbers=make_depth_numbers(arguments, depths),
        intrinsics=None,
        exif_turns=arguments.exif_turns,
        lines=[*found.notes, *note],
        cameras=cameras,
        roots=[source for source in arguments.source if is_folder(source)],
    )


def find_frames(arguments: argparse.Namespace) -> Found:
    """
    Args:
        arguments: parsed, with those of ``add_arguments``.

    Returns:
        The frames of all sources, and sentences about how they were found.

    Raises:
        ListError: a source is missing or named twice, or its files do not pair up.
    """
    from finetune.prepare.pairing.listed import read_recording
    from finetune.prepare.pairing.recordings import Found, pair_series
    from finetune.prepare.pairing.series import find_series, narrow_series

    sources: list[Path] = arguments.source
    require_distinct(sources)
    named = arguments.images is not None or arguments.depth is not None
    series: list[Series] = []
    found: list[Found] = []
    for source in sources:
        if is_file(source) and source.suffix.lower() in _LISTS:
            found.append(read_recording(source, source.stem, arguments.tolerance))
            continue
        if not is_folder(source):
            fix = "Name a folder of images and depth maps, or a list (.txt, .csv) with `image depth` on each line"
            raise ListError(source, missing(source, "folder"), fix)
        of_source = find_series(
            source,
            real_path(source).name if len(sources) > 1 else "",
            reads_8_bit=arguments.allow_8_bit,
            reads_channels=arguments.depth_channels is not None,
        )
        lists = set() if named else {path for one in of_source if (path := _find_list_above(one.folder, source))}
        for path in sorted(lists):
            recording = path.parent.relative_to(source).as_posix()
            name = real_path(source).name if recording == "." else recording
            found.append(read_recording(path, name, arguments.tolerance))
        series += [one for one in of_source if not any(path.parent in _up_to(one.folder, source) for path in lists)]
    for pattern, kind in ((arguments.images, "image"), (arguments.depth, "depth")):
        if pattern is not None:
            series = narrow_series(series, pattern, cast("Kind", kind))
    if any(one.kind != "hidden" for one in series) or not found:
        name = real_path(sources[0]).name if len(sources) == 1 else "recording"
        found.append(pair_series(series, [one for one in sources if is_folder(one)], name, arguments.tolerance))
    return Found(
        frames=[frame for part in found for frame in part.frames], notes=[note for part in found for note in part.notes]
    )


@dataclass(frozen=True, kw_only=True)
class PairedFiles(FileFrames):
    """Frames of files, with cameras from one file or from one in each folder.

    Attributes:
        cameras: folder -> what its file of intrinsics holds; the nearest folder above an image counts.
        roots: folders that paths in a file of intrinsics start from.
    """

    cameras: Mapping[Path, Mapping[str, Intrinsics] | Intrinsics]
    roots: Sequence[Path]

    def _intrinsics_of(self, image_path: Path) -> Intrinsics | None:
        """
        Raises:
            ListError: the file of intrinsics has none of this image.
        """
        folder = next((parent for parent in image_path.parents if parent in self.cameras), None)
        if folder is None:
            return None
        cameras = self.cameras[folder]
        if not isinstance(cameras, Mapping):
            return cameras
        below = [image_path.relative_to(root).as_posix() for root in self.roots if image_path.is_relative_to(root)]
        if folder in image_path.parents:
            below.append(image_path.relative_to(folder).as_posix())
        for name in (*below, image_path.name, image_path.stem):
            if name in cameras:
                return cameras[name]
        raise ListError(
            "intrinsics", f"hold none of {image_path.name}", "Add it by its path, its file name or its stem"
        )


def _require_one_type(depths: Sequence[Path], arguments: argparse.Namespace) -> None:
    """
    Raises:
        ListError: some depth files hold whole numbers and others do not, which no unit suits both.
        DataError: a file cannot be read.
    """
    from finetune.data.readers.files import read_depth

    firsts = {path.suffix.lower(): path for path in reversed(depths)}
    if len(firsts) < 2:
        return
    kinds = {
        path: read_depth(path, arguments.depth_channels, arguments.depth_key).dtype.kind == "f"
        for path in firsts.values()
    }
    if len(set(kinds.values())) > 1:
        (whole, *_), (fractions, *_) = (
            [path for path, is_float in kinds.items() if is_float is wanted] for wanted in (False, True)
        )
        raise ListError(
            whole,
            f"holds whole numbers, and {fractions} numbers with fractions, so they are of two units",
            "Name the folder of each in a call of its own, or say which depth files to take with --depth PATTERN",
        )


def _find_cameras(
    arguments: argparse.Namespace, images: Sequence[Path]
) -> tuple[dict[Path, Mapping[str, Intrinsics] | Intrinsics], list[str]]:
    """Folder -> intrinsics: those of ``--intrinsics`` for all, or of each ``intrinsics.json`` above the images."""
    from finetune.data.readers.intrinsics import read_intrinsics_of_images

    if arguments.intrinsics is not None:
        given = read_intrinsics_of_images(expand_path(arguments.intrinsics))
        return dict.fromkeys({path.parent for path in images}, given), []
    found = {}
    for folder in sorted({path.parent for path in images}):
        root = next((source for source in arguments.source if source in (folder, *folder.parents)), folder)
        place = next((above for above in _up_to(folder, root) if is_file(above / _CAMERA_FILE)), None)
        if place is not None and place not in found:
            found[place] = read_intrinsics_of_images(place / _CAMERA_FILE)
    names = ", ".join(str(folder / _CAMERA_FILE) for folder in sorted(found)[:3])
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return found, [f"the cameras are those of {names}{more}"] if found else []


def _up_to(folder: Path, root: Path) -> list[Path]:
    """A folder and those above it, up to ``root``."""
    above = [folder, *folder.parents]
    return above[: above.index(root) + 1] if root in above else [folder]


def _find_list_above(folder: Path, source: Path) -> Path | None:
    """The list that pairs the files of a folder, in it or above it, up to the source."""
    from finetune.prepare.pairing.listed import find_list

    return next((path for above in _up_to(folder, source) if (path := find_list(above))), None)
