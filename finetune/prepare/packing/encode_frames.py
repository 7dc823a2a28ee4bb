"""One frame of an entry to the members that hold it, in any process."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from finetune.data.packing.frames import (
    EncodedImage,
    ImageFormat,
    decode_frame,
    encode_fault,
    encode_frame,
    encode_image,
    keep_file,
)
from finetune.data.preprocessing import Preprocessing
from finetune.data.reader import Reader, try_read
from finetune.data.readers.image_levels import Decode
from finetune.data.sample import DepthSample
from finetune.utils.errors import FileFault, FinetuneError
from finetune.utils.paths import is_file, read_bytes


@dataclass(frozen=True, kw_only=True)
class PackFormat:
    """How the frames of an entry are packed.

    Attributes:
        input_size: of the recipe, (height, width), pixels.
        zoom: the largest by which the recipe enlarges frames.
        reduces: frames become as small as the network sees them; else they keep their size.
        images: what images become where their own file cannot be kept.
        quality: of JPEG.
        keeps_faults: a frame that cannot be read is packed as such; else it stops.
        decode: ``data.decode`` of the recipe.
    """

    input_size: tuple[int, int]
    zoom: float
    reduces: bool
    images: ImageFormat
    quality: int
    keeps_faults: bool
    decode: Decode = "full"

    @property
    def preprocessing(self) -> Preprocessing:
        """What of frames the network of the recipe sees."""
        return Preprocessing(input_size=self.input_size, decode=self.decode)

    def reduce(self, sample: DepthSample) -> DepthSample:
        """The frame as the network sees it at most, or the frame itself where that is no smaller."""
        if not self.reduces:
            return sample
        height, width = sample.valid.shape
        window = self.preprocessing.whole(height, width)
        if self.zoom > 1.0:
            # Selection as in a frame that is not enlarged: this one is smaller than its original.
            window = replace(window.zoomed(self.zoom), single_points=False)
        fits = window.height <= height and window.width <= width
        return window(sample) if fits and (window.height, window.width) != (height, width) else sample


@dataclass(frozen=True, kw_only=True)
class EncodedFrame:
    """A frame that is ready to be written.

    Attributes:
        index: in its entry.
        source: its name.
        parts: ending of a member -> its content.
        files: path -> bytes of the files that it was read from.
        is_reduced: it is smaller than it was.
        levels_off: how far its image is from the one that was read, at the size that is packed: the mean difference on
            the scale from 0 to 255; 0 where it is the same.
        fault: why it could not be read; empty where it could.
    """

    index: int
    source: str
    parts: Mapping[str, bytes]
    files: Mapping[str, int]
    is_reduced: bool = False
    levels_off: float = 0.0
    fault: str = ""


@dataclass(frozen=True, kw_only=True)
class FrameEncoder:
    """Reads and encodes frames of one entry; it is pickled into each process."""

    reader: Reader
    form: PackFormat

    def __call__(self, index: int) -> EncodedFrame:
        """
        Raises:
            FileFault: the frame cannot be read, and may not be packed as such.
        """
        found = try_read(self.reader.decoded_for(self.form.preprocessing), index)
        if isinstance(found, FileFault):
            if not self.form.keeps_faults:
                raise found
            source = self.reader.source(index)
            return EncodedFrame(index=index, source=source, parts=encode_fault(found), files={}, fault=found.cause)
        files = self.reader.files(index) or ()
        sample = self.form.reduce(found)
        is_reduced = sample is not found
        image = None if is_reduced or not files else self._keep_file(files[0], sample)
        image = image or encode_image(sample.image, self.form.images, self.form.quality)
        parts = encode_frame(sample, image, [self.reader.meters_per_unit])
        return EncodedFrame(
            index=index,
            source=sample.source,
            parts=parts,
            files={path: os.stat(path).st_size for path in files},  # noqa: PTH116 - the reader has just read it
            is_reduced=is_reduced,
            levels_off=_require_same(sample, decode_frame(parts)),
        )

    def _keep_file(self, path: str, sample: DepthSample) -> EncodedImage | None:
        """The image's own file, if it is as good as one written anew."""
        return keep_file(read_bytes(path), sample.image, self.form.images) if is_file(path) else None


def _describe(sample: DepthSample) -> tuple[object, ...]:
    return sample.camera, sample.source, sample.image.shape, sample.image_scale


def _require_same(sample: DepthSample, again: DepthSample) -> float:
    """
    Compare a frame with what will be read.

    Returns:
        The mean difference of their images, on the scale from 0 to 255.

    Raises:
        FinetuneError: anything else differs, which would be an error of this program or of the memory.
    """
    same = (
        np.array_equal(sample.valid, again.valid)
        and np.array_equal(sample.depth_m.view(np.uint32), again.depth_m.view(np.uint32))
        and _is_same_weight(sample.weight, again.weight)
        and _describe(sample) == _describe(again)
    )
    if not same:
        raise FinetuneError(f"{sample.source}: what was packed is not what was read. Call again.")
    return float(np.abs(sample.image.astype(np.int16) - again.image).mean())


def _is_same_weight(weight: NDArray[np.float32] | None, again: NDArray[np.float32] | None) -> bool:
    if weight is None or again is None:
        return weight is again
    return np.array_equal(weight, again)
