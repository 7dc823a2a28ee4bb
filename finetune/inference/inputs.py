"""Find the images and videos that the PATH arguments name: files, folders, patterns and lists."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
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
ENDINGS = (".npy", ".png", "_preview.png", "_inverse.npy", "_relative.npy", "_unsure.png", ".ply")
VIDEO_ENDINGS = ("_preview.mp4",)
LIST_SUFFIXES = (".txt", ".csv")


@dataclass(frozen=True, kw_only=True)
class Input:
    """One image or video.

    Attributes:
        path: as the user wrote it.
        intrinsics: fx, fy, cx, cy in pixels, if a list gives them.
    """

    path: Path
    intrinsics: tuple[float, float, float, float] | None = None

    @property
    def is_video(self) -> bool:
        """Whether its name ends as that of a video."""
        return self.path.suffix.lower() in VIDEO_SUFFIXES


def find_inputs(paths: Sequence[Path], output: Path) -> list[Input]:
    """
    ``find_files`` for a command that names its files by the stems of the inputs.

    Raises:
        FinetuneError: see ``find_files``; or one file would overwrite another.
    """
    inputs = find_files(paths, output)
    _require_own_targets([found.path for found in inputs], output)
    return inputs


def find_files(paths: Sequence[Path], output: Path) -> list[Input]:
    """
    Args:
        paths: images and videos; folders, which are not searched recursively; patterns such as ``photos/**/*.jpg``;
            ``.txt`` and ``.csv`` lists with an image a line, relative to the list's folder or to the current one, and
            optionally fx, fy, cx, cy in pixels, as the last columns or by a header.
        output: the folder that predictions are written to.

    Returns:
        Every file once; those of a folder or a pattern are sorted by name.

    Raises:
        FinetuneError: a path does not exist, or no image is found.
    """
    inputs: dict[Path, Input] = {}
    for path in paths:
        for found in _find_in_path(path, output):
            inputs.setdefault(real_path(found.path), found)
    if not inputs:
        raise FinetuneError(
            f"{', '.join(map(str, paths))}: no image in there. Name a folder that holds some directly "
            f"({', '.join((*_image_suffixes(), *VIDEO_SUFFIXES))}), or the images."
        )
    return list(inputs.values())


def _image_suffixes() -> tuple[str, ...]:
    from finetune.data.readers.arrays import ARRAY_SUFFIXES
    from finetune.data.readers.files import IMAGE_SUFFIXES

    # An array in a folder is more likely a depth map than an image.
    return tuple(suffix for suffix in IMAGE_SUFFIXES if suffix not in ARRAY_SUFFIXES)


def _find_in_path(path: Path, output: Path) -> list[Input]:
    if is_folder(path):
        if real_path(path) == real_path(output):
            raise FinetuneError(f"{output}: is both input and output. Name another folder with --output.")
        return _keep_images(_list_folder(path))
    if is_file(path) and path.suffix.lower() in LIST_SUFFIXES:
        return _read_list(path)
    if path_exists(path):
        return [Input(path=path)]
    if glob.has_magic(str(path)):
        return _find_by_pattern(path)
    raise FinetuneError(f"{path}: {missing(path, 'file or folder')}. Name images, or folders that hold them.")


def _list_folder(path: Path) -> list[Path]:
    """
    Raises:
        FinetuneError: the folder cannot be listed.
    """
    try:
        return list_folder(path)
    except OSError as error:
        fix = "Make it a folder that this user may read, or name another"
        raise FinetuneError(f"{path}: cannot be listed ({error.strerror}). {fix}.") from error


def _find_by_pattern(pattern: Path) -> list[Input]:
    """
    Raises:
        FinetuneError: no image matches, the pattern has too many parts, or its first folder cannot be listed.
    """
    try:
        found = _keep_images(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))))
    except RecursionError:  # pathlib descends one call a part
        raise FinetuneError(
            f"a pattern of {len(pattern.parts)} parts, {pattern.name} last, is too long to search. Name a folder."
        ) from None
    if found:
        return found
    # pathlib passes over folders that it may not list.
    plain = [*takewhile(lambda part: not glob.has_magic(part), pattern.parts)]
    folder = Path(*plain)
    if is_folder(folder):
        _list_folder(folder)
    raise FinetuneError(f"{pattern}: matches no image{if_closed(folder)}. Fix the pattern, or name a folder.")


def _keep_images(paths: Iterable[Path]) -> list[Input]:
    """The images and videos among files, sorted by name, without hidden ones."""
    suffixes = (*_image_suffixes(), *VIDEO_SUFFIXES)
    return [Input(path=p) for p in sorted(paths) if p.suffix.lower() in suffixes and not p.name.startswith(".")]


def _read_list(path: Path) -> list[Input]:
    """
    Raises:
        FinetuneError: the list cannot be read, or a line names no file; says which line.
    """
    found = []
    for number, columns in read_rows(str(path), ("image",), optional=("fx", "fy", "cx", "cy")):
        # The whole line may be the name of an image, with spaces or commas in it.
        names = (columns[0], *([] if len(columns) == 1 else [" ".join(columns), ",".join(columns)]))
        candidates = ((name, file) for name in names for file in (path.parent / expand_path(name), expand_path(name)))
        image = next(((name, file) for name, file in candidates if is_file(file)), None)
        if image is None:
            closed = if_closed(path.parent / expand_path(columns[0]))
            raise ListError(
                f"{path}:{number}",
                f"{columns[0]} is no file below {path.parent} or from here{closed}",
                "Fix the line: one image a line, in quotes if it has spaces",
            )
        name, file = image
        found.append(Input(path=file, intrinsics=_four_numbers(columns[1:]) if name == columns[0] else None))
    return found


def _four_numbers(columns: Sequence[str]) -> tuple[float, float, float, float] | None:
    """The last four columns, if all are numbers; lists for training have depth files and focal lengths there."""
    try:
        fx, fy, cx, cy = (float(column) for column in columns[-4:])
    except ValueError:
        return None
    return fx, fy, cx, cy


def _require_own_targets(paths: Sequence[Path], output: Path) -> None:
    """
    Raises:
        FinetuneError: two images would be written to one file, or an image would be overwritten.
    """
    inputs = {real_path(path) for path in paths}
    writers: dict[Path, Path] = {}
    for path in paths:
        video = path.suffix.lower() in VIDEO_SUFFIXES
        for ending in VIDEO_ENDINGS if video else ENDINGS:
            target = output / f"{path.stem}{ending}"
            if real_path(target) in inputs:
                raise FinetuneError(f"{target}: is both an image to read and a file to write. Name another --output.")
            if target in writers:
                raise FinetuneError(
                    f"{writers[target]} and {path} would both be written to {target}. "
                    "Call once for each, with different --output folders."
                )
            writers[target] = path
