"""Drawn frames that are the same for everybody, drawn once and kept in the user's cache."""

from __future__ import annotations

import os
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.data.reader import Reader
from finetune.data.readers.scenes import Scenes
from finetune.data.sample import DepthSample
from finetune.utils.files import explain_write_errors, move_into_place, remove
from finetune.utils.paths import expand_path, make_folder

MAX_DRAWN_FRAMES = 200
DRAWN_SIZE = (112, 154)
# No recipe of ours trains on worlds of this seed.
DRAWN_SEED = 1_120_154
# Part of the file's name. Raise it when the same options draw other frames.
_VERSION = 1
_FIX = "Set XDG_CACHE_HOME to a folder where this user may write"
# What NumPy raises for a file that is cut or changed; the members of an .npz have checksums.
_DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


def describe_scenes(count: int) -> Scenes:
    """The worlds that are drawn: rooms, and open ground in a fifth of the frames, by a camera with some noise."""
    return Scenes(
        seed=DRAWN_SEED, count=count, size=DRAWN_SIZE, outdoors=0.2, noise=0.02, blur_px=0.5, exposure_stops=0.3
    )


class DrawnFrames(Reader):
    """Drawn frames in memory, with exact depth; sky is infinitely far."""

    def __init__(self, scenes: Scenes, image: NDArray[np.uint8], depth_m: NDArray[np.float32]) -> None:
        """
        Args:
            scenes: what they were drawn by, which names them.
            image: (N, H, W, 3), RGB.
            depth_m: (N, H, W), meters.
        """
        self._scenes, self._image, self._depth_m = scenes, image, depth_m

    def __len__(self) -> int:
        return len(self._image)

    def __getitem__(self, index: int) -> DepthSample:
        depth_m = self._depth_m[index]
        valid = np.ones_like(depth_m, bool)
        return DepthSample(image=self._image[index], depth_m=depth_m, valid=valid, source=self.source(index))

    def source(self, index: int) -> str:
        """As a recipe names the frame that trains on it."""
        return self._scenes.source(index)


def find_cache() -> Path:
    """The folder of this package in the user's cache: ``$XDG_CACHE_HOME/finetune``, or ``~/.cache/finetune``."""
    folder = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The specification ignores a path that is not absolute.
    return (folder if folder.is_absolute() else expand_path("~/.cache")) / "finetune"


def load_drawn_frames(count: int, say: Callable[[str], None] = lambda sentence: None) -> DrawnFrames:
    """
    Take the frames from the cache; where they are not there, or damaged, draw them and put them there.

    Args:
        count: how many, at most ``MAX_DRAWN_FRAMES``; frame i is the same whatever the count.
        say: told how long the drawing took, and where the frames are.

    Raises:
        FinetuneError: the cache cannot be written.
    """
    scenes = describe_scenes(count)
    path = find_cache() / f"drawn_frames_{_VERSION}_{count}.npz"
    found = _read(path, count)
    if found is None:
        with explain_write_errors(path, _FIX):
            make_folder(path.parent)
        begun = time.monotonic()
        samples = scenes.batch(range(count))
        found = np.stack([sample.image for sample in samples]), np.stack([sample.depth_m for sample in samples])
        _write(path, *found)
        say(f"{count} general frames drawn in {time.monotonic() - begun:.0f} s, and kept in {path}")
    return DrawnFrames(scenes, *found)


def _read(path: Path, count: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]] | None:
    """None where the file is missing, damaged, or holds something else."""
    try:
        with np.load(path, allow_pickle=False) as file:
            image, depth_m = file["image"], file["depth_m"]
    except _DAMAGED:
        return None
    right = image.shape == (count, *DRAWN_SIZE, 3) and depth_m.shape == (count, *DRAWN_SIZE)
    return (image, depth_m) if right and image.dtype == np.uint8 and depth_m.dtype == np.float32 else None


def _write(path: Path, image: NDArray[np.uint8], depth_m: NDArray[np.float32]) -> None:
    with explain_write_errors(path, _FIX):
        # A name of its own: another run may draw the same frames at the same time.
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=".writing")
        unfinished = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                np.savez(file, image=image, depth_m=depth_m)
            move_into_place(unfinished, path)
        finally:
            remove(unfinished)
