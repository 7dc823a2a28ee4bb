"""Names of the files of each label: the same for every process and shard that is given the same inputs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from finetune.inference.inputs import Input
from finetune.utils.errors import FinetuneError
from finetune.utils.paths import MAX_NAME_BYTES, real_path

# The longest ending that a name gets.
_ENDING = ".json"


def absolute_path(path: Path) -> Path:
    """The path from the root of the file system. Links in it stay as the user named them."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - Path.absolute keeps ".."


def name_inputs(inputs: Sequence[Input], output: Path) -> list[str]:
    """
    Args:
        inputs: images and videos, each once.
        output: the folder of the labels.

    Returns:
        For each input the path of its label below ``labels/``, without the ending: its stem where all stems differ;
        else its path below the folder that all share, with its own ending where that is needed to tell two apart.

    Raises:
        FinetuneError: an input is in the output folder, or the name of one is too long.
    """
    paths = [absolute_path(given.path) for given in inputs]
    _require_outside(paths, output)
    common = Path(os.path.commonpath([path.parent for path in paths]))
    below = [path.relative_to(common) for path in paths]
    ways = (
        [path.stem for path in paths],
        [path.with_suffix("").as_posix() for path in below],
        [path.as_posix() for path in below],
    )
    names = next((way for way in ways if _are_distinct(way, inputs)), ways[-1])
    for path, name in zip(paths, names, strict=True):
        if any(len(os.fsencode(f"{part}{_ENDING}")) > MAX_NAME_BYTES for part in name.split("/")):
            raise FinetuneError(
                f"{path}: its label would have a name of more than {MAX_NAME_BYTES} bytes. Rename the image."
            )
    return names


def _are_distinct(names: Sequence[str], inputs: Sequence[Input]) -> bool:
    """Whether no two names are equal, and none is in the folder that the frames of a video get."""
    videos = {name for name, given in zip(names, inputs, strict=True) if given.is_video}
    inside = any(parent.as_posix() in videos for name in names for parent in Path(name).parents)
    return len(set(names)) == len(names) and not inside


def _require_outside(paths: Sequence[Path], output: Path) -> None:
    """
    Raises:
        FinetuneError: an input is in the output folder, so that a later call would find labels among its inputs.
    """
    folder = real_path(output)
    inside = next((path for path in paths if folder in real_path(path).parents), None)
    if inside is not None:
        raise FinetuneError(f"{inside}: is in {output}, the folder of the labels. Name another folder with --output.")
