"""Images or a video, with a folder of depth maps in any format that can be read."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from finetune.prepare.depth_options import add_depth_arguments, make_depth_numbers
from finetune.prepare.recording import FrameKey, FrameSource, RecordedFrame
from finetune.utils.errors import ListError
from finetune.utils.paths import expand_path, is_file, is_folder, list_folder, missing
from finetune.utils.text import count_noun

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from finetune.data.readers.depth_numbers import DepthNumbers
    from finetune.data.readers.intrinsics import Intrinsics
    from finetune.data.readers.orientation import ExifTurns
    from finetune.prepare.video_frames import IndexedVideo

_NUMBER = re.compile(r"(\d+)\D*$")
# Files that are copied as they are.
COPIED = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")


def add_arguments(parser: argparse.ArgumentParser, *, of_each_image: bool = True) -> None:
    """Declare IMAGES, DEPTH and the options of depth files; ``of_each_image``: see ``add_depth_arguments``."""
    parser.add_argument("images", type=expand_path, metavar="IMAGES", help="a folder of images, or a video")
    parser.add_argument("depth", type=expand_path, metavar="DEPTH", help="a folder with a depth map for each")
    add_depth_arguments(parser, of_each_image=of_each_image)


def open_source(arguments: argparse.Namespace) -> FrameSource:
    """
    List the frames and read what is known of the camera.

    Raises:
        FinetuneError: a folder is missing, images and depth maps do not pair up, or an option is wrong.
    """
    images, depth = arguments.images, arguments.depth
    if not is_folder(depth):
        raise ListError(depth, missing(depth, "folder"), "Name the folder of the depth maps")
    if is_file(images):
        return _open_video(arguments)
    if not is_folder(images):
        raise ListError(images, missing(images, "folder or video"), "Name the folder of the images, or a video")
    from finetune.data.readers.matching import frame_key, match_frames

    pairs = [(images / image, depth / name) for image, name in match_frames(str(images), str(depth))]
    stems = [frame_key(image.stem) or image.stem for image, _ in pairs]
    return FileFrames(
        frame_keys=[FrameKey(recording=images.name, stem=stem) for stem in stems],
        images=[image for image, _ in pairs],
        depths=[depth for _, depth in pairs],
        numbers=make_depth_numbers(arguments, [depth for _, depth in pairs]),
        intrinsics=_read_intrinsics(arguments),
        exif_turns=arguments.exif_turns,
        lines=_describe_hidden(images),
    )


def _describe_hidden(folder: Path) -> list[str]:
    """How many images are left out for the dot at the start of their names, if any are."""
    from finetune.data.readers.files import IMAGE_SUFFIXES

    # A Mac writes ._0001.png next to each 0001.png on disks of other systems: no image is in it.
    names = [path.name for path in list_folder(folder) if path.name.startswith(".") and path.name[:2] != "._"]
    hidden = [name for name in names if name.lower().endswith(IMAGE_SUFFIXES)]
    count = count_noun(len(hidden), "image")
    return [f"not used: {count} of {folder} whose names begin with a dot, {hidden[0]} first"] if hidden else []


def _read_intrinsics(arguments: argparse.Namespace) -> Mapping[str, Intrinsics] | Intrinsics | None:
    from finetune.data.readers.intrinsics import read_intrinsics_of_images

    return None if arguments.intrinsics is None else read_intrinsics_of_images(expand_path(arguments.intrinsics))


@dataclass(frozen=True, kw_only=True)
class FileFrames(FrameSource):
    """Frames whose depth is a file each.

    Attributes:
        frame_keys, lines: the ``keys`` and ``notes`` of ``FrameSource``.
        images: the file of each frame, or the video of all.
        depths: the depth file of each frame.
        numbers: what the numbers in the depth files mean.
        intrinsics: of all images, or of each by its name or stem; None where nothing is known.
        frames: the number of each frame in the video.
        exif_turns: what the EXIF tag of an image turns; None: the sizes decide.
    """

    frame_keys: Sequence[FrameKey]
    images: Sequence[Path] | IndexedVideo
    depths: Sequence[Path]
    numbers: DepthNumbers
    intrinsics: Mapping[str, Intrinsics] | Intrinsics | None
    frames: Sequence[int] = ()
    exif_turns: ExifTurns | None = None
    lines: Sequence[str] = ()

    @property
    def keys(self) -> Sequence[FrameKey]:
        """All frames, in order."""
        return self.frame_keys

    @property
    def notes(self) -> Sequence[str]:
        """How a video and its depth maps were paired, and which files are not used."""
        return self.lines

    def load_frame(self, index: int) -> RecordedFrame:
        """
        Raises:
            DataError: a file cannot be read, or sizes differ.
        """
        from finetune.data.readers.files import read_stored_image
        from finetune.data.readers.orientation import UPRIGHT

        depth_path = self.depths[index]
        if not isinstance(self.images, Sequence):
            stored = self.images.frame(self.frames[index]), UPRIGHT
            return self._combine(stored, self.images.path, depth_path, image_file=None)
        image_path = self.images[index]
        stored = read_stored_image(image_path)
        copied = stored[1] == UPRIGHT and image_path.suffix.lower() in COPIED
        return self._combine(stored, image_path, depth_path, image_file=image_path if copied else None)

    def _combine(
        self, stored: tuple[NDArray[np.uint8], int], image_path: Path, depth_path: Path, image_file: Path | None
    ) -> RecordedFrame:
        from finetune.data.readers.files import combine_frame, read_depth
        from finetune.data.readers.orientation import turn_upright

        sample, turn = combine_frame(
            stored,
            read_depth(depth_path, self.numbers.channels, self.numbers.key),
            str(image_path),
            str(depth_path),
            self.numbers.coding,
            self._intrinsics_of(image_path),
            reduce_image=True,
            along_rays=self.numbers.depth_is == "range",
            exif_turns=self.exif_turns,
        )
        sample = turn.apply(self.numbers.to_axis(sample))
        # An image larger than its depth stays so.
        image = turn_upright(*stored)
        down, across = (image.shape[side] / sample.image.shape[side] for side in (0, 1))
        return RecordedFrame(
            image=image,
            depth_m=np.where(sample.valid, sample.depth_m, np.float32(0)),
            camera=sample.camera and sample.camera.resized(down, across),
            source=str(depth_path),
            image_file=image_file,
        )

    def _intrinsics_of(self, image_path: Path) -> Intrinsics | None:
        """
        Raises:
            ListError: the file of intrinsics has none of this image.
        """
        if self.intrinsics is None or not isinstance(self.intrinsics, Mapping):
            return self.intrinsics
        for name in (image_path.name, image_path.stem):
            if name in self.intrinsics:
                return self.intrinsics[name]
        raise ListError("--intrinsics", f"holds none of {image_path.name}", "Add it by its file name or its stem")


def _open_video(arguments: argparse.Namespace) -> FrameSource:
    from finetune.data.readers.files import DEPTH_SUFFIXES
    from finetune.inference.video import VideoFrames
    from finetune.prepare.video_frames import IndexedVideo

    video: Path = arguments.images
    depths = [path for path in list_folder(arguments.depth) if path.suffix.lower() in DEPTH_SUFFIXES]
    if not depths:
        raise ListError(arguments.depth, f"holds no {', '.join(DEPTH_SUFFIXES)}", "Name the folder of the depth maps")
    decoder = VideoFrames(video)
    # Every frame is decoded for its time once: the count that a file announces may be wrong.
    times = decoder.frame_times([frame.seconds for frame in decoder])
    depths, frames, rule = pair_video(video, len(times), depths)
    return FileFrames(
        frame_keys=[FrameKey(recording=video.stem, stem=f"{frame:06}", time_s=times[frame]) for frame in frames],
        images=IndexedVideo(video),
        depths=depths,
        numbers=make_depth_numbers(arguments, depths),
        intrinsics=_read_intrinsics(arguments),
        frames=frames,
        lines=[rule],
    )


def pair_video(video: Path, count: int, depths: Sequence[Path]) -> tuple[list[Path], list[int], str]:
    """
    Args:
        video: for the sentences.
        count: of its frames.
        depths: all depth files.

    Returns:
        The depth files in order, the number of the frame of each, from 0, and the rule in a sentence.

    Raises:
        ListError: counts differ, and the names have no numbers of frames.
    """
    found = [_NUMBER.search(path.stem) for path in depths]
    numbers = [int(match[1]) for match in found if match]
    named = len(set(numbers)) == len(depths)
    ordered = [path for _, path in sorted(zip(numbers, depths, strict=True))] if named else list(depths)
    if len(depths) == count:
        rule = f"{video}: its {count} frames and the {count} depth maps are paired in their order"
        return ordered, list(range(count)), rule
    if named and max(numbers) < count:
        rule = f"{video}: {len(depths)} of its {count} frames have a depth map, by the number in its name, from 0"
        return ordered, sorted(numbers), rule
    raise ListError(
        depths[0].parent,
        f"holds {len(depths)} depth maps, and {video} {count} frames",
        "Give each depth map the number of its frame as its name, from 0, such as 000012.png",
    )
