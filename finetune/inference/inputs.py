"""What PATH names: images, folders, patterns, lists and videos."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune.data.readers.list_lines import read_rows
from finetune.utils.errors import FinetuneError, ListError
from finetune.utils.paths import (
    expand_path,
    if_closed,
    is_file,
    is_folder,
    list_folder,
    missing,
    path_exists,
    real_path,
)

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")
ENDINGS = (".npy", ".png", "_preview.png", "_inverse.npy", ".ply")
VIDEO_ENDINGS = ("_preview.mp4",)
LIST_SUFFIXES = (".txt", ".csv")


@dataclass(frozen=True, kw_only=True)
class Input:
    """One image or video.

    Attributes:
        path: as the user wrote it.
        intrinsics: fx, fy, cx, cy in pixels, where a list says so.
    """

    path: Path
    intrinsics: tuple[float, float, float, float] | None = None

    @property
    def is_video(self) -> bool:
        """By its ending."""
        return self.path.suffix.lower() in VIDEO_SUFFIXES


def found_inputs(paths: Sequence[Path], output: Path) -> list[Input]:
    """
    Args:
        paths: images and videos; folders, of which all are taken, but not those of folders within; patterns such as
            ``photos/**/*.jpg``; ``.txt`` and ``.csv`` lists with an image a line, below the list's folder or from the
            current one, and perhaps fx, fy, cx, cy in pixels, as the last columns or by a header.
        output: the folder that answers go to.

    Returns:
        Every file once, folders and patterns sorted by name.

    Raises:
        FinetuneError: a path does not exist, there is no image, or a file would be written over another.
    """
    inputs: dict[Path, Input] = {}
    for path in paths:
        for one in _of_path(path, output):
            inputs.setdefault(real_path(one.path), one)
    if not inputs:
        raise FinetuneError(
            f"{', '.join(map(str, paths))}: no image in there. Name a folder that holds some itself "
            f"({', '.join((*_suffixes(), *VIDEO_SUFFIXES))}), or the images."
        )
    _require_own_targets([one.path for one in inputs.values()], output)
    return list(inputs.values())


def _suffixes() -> tuple[str, ...]:
    from finetune.data.readers.files import IMAGE_SUFFIXES

    # In a folder, an array is more likely an answer than an image.
    return tuple(suffix for suffix in IMAGE_SUFFIXES if suffix not in (".npy", ".npz"))


def _of_path(path: Path, output: Path) -> list[Input]:
    if is_folder(path):
        if real_path(path) == real_path(output):
            raise FinetuneError(f"{output}: is read from and written to. Name another folder with --output.")
        try:
            return _seen(list_folder(path))
        except OSError as error:
            fix = "Make it a folder that this user may read, or name another"
            raise FinetuneError(f"{path}: cannot be listed ({error.strerror}). {fix}.") from error
    if is_file(path) and path.suffix.lower() in LIST_SUFFIXES:
        return _listed(path)
    if path_exists(path):
        return [Input(path=path)]
    if glob.has_magic(str(path)):
        found = _seen(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
        if found:
            return found
        raise FinetuneError(f"{path}: fits no image. Mend the pattern, or name a folder.")
    raise FinetuneError(f"{path}: {missing(path, 'file or folder')}. Name images, or folders that hold them.")


def _seen(paths: Iterable[Path]) -> list[Input]:
    """Images and videos among files, sorted by name; hidden ones are left out."""
    suffixes = (*_suffixes(), *VIDEO_SUFFIXES)
    return [Input(path=p) for p in sorted(paths) if p.suffix.lower() in suffixes and not p.name.startswith(".")]


def _listed(path: Path) -> list[Input]:
    """
    Raises:
        FinetuneError: the list cannot be read, or a line names no file; says which line.
    """
    found = []
    for number, columns in read_rows(str(path), ("image",), optional=("fx", "fy", "cx", "cy")):
        # A line may be the name of an image as it is, with spaces and commas in it.
        names = (columns[0], *([] if len(columns) == 1 else [" ".join(columns), ",".join(columns)]))
        places = ((name, place) for name in names for place in (path.parent / expand_path(name), expand_path(name)))
        image = next(((name, place) for name, place in places if is_file(place)), None)
        if image is None:
            closed = if_closed(path.parent / expand_path(columns[0]))
            raise ListError(
                f"{path}:{number}",
                f"{columns[0]} is no file below {path.parent} or from here{closed}",
                "Mend the line, one image a line, in quotes if it has spaces",
            )
        name, place = image
        found.append(Input(path=place, intrinsics=_four_numbers(columns[1:]) if name == columns[0] else None))
    return found


def _four_numbers(columns: Sequence[str]) -> tuple[float, float, float, float] | None:
    """The last four columns where all are numbers; lists for training hold depth files and focal lengths there."""
    try:
        fx, fy, cx, cy = (float(column) for column in columns[-4:])
    except ValueError:
        return None
    return fx, fy, cx, cy


def _require_own_targets(paths: Sequence[Path], output: Path) -> None:
    """
    Raises:
        FinetuneError: two images would be written to one file, or an image would be written over.
    """
    inputs = {real_path(path) for path in paths}
    writers: dict[Path, Path] = {}
    for path in paths:
        video = path.suffix.lower() in VIDEO_SUFFIXES
        for ending in VIDEO_ENDINGS if video else ENDINGS:
            target = output / f"{path.stem}{ending}"
            if real_path(target) in inputs:
                raise FinetuneError(f"{target}: is an image to read and a file to write. Name another --output.")
            if target in writers:
                raise FinetuneError(
                    f"{writers[target]} and {path} would both be written to {target}. "
                    "Call once for each of them, with an --output of its own."
                )
            writers[target] = path
