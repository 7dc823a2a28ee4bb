"""How an exported graph takes images: normalized or as they are, how many at a time, resized before or by itself.

What this imports must not import torch, as ``inference.exported`` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.data.preprocessing import Preprocessing
from finetune.data.sample import enlarge_image
from finetune.models.encoder_specs import PATCH
from finetune.utils.errors import FinetuneError
from finetune.utils.text import count_noun


@dataclass(frozen=True, kw_only=True)
class InputForm:
    """
    Attributes:
        is_uint8: images are (B, H, W, 3) uint8 RGB, which the graph normalizes; else (B, 3, H, W), normalized.
        batch: how many images it takes at a time; None for any number.
        input_size: height and width of the network's input, pixels; None for all multiples of 14.
        frame_size: height and width of images that the graph resizes itself, pixels; None if it does not.
    """

    is_uint8: bool = False
    batch: int | None = 1
    input_size: tuple[int, int] | None = None
    frame_size: tuple[int, int] | None = None

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> InputForm:
        """
        Raises:
            KeyError, TypeError, ValueError: the metadata is not what ``finetune export`` writes.
        """
        size, batch, frame = metadata["input_size"], metadata.get("batch", 1), metadata.get("frame_size")
        return cls(
            is_uint8=metadata.get("input_type", "float32") == "uint8",
            batch=None if batch == "any" else int(batch),
            input_size=None if size == "any" else (int(size[0]), int(size[1])),
            frame_size=None if frame is None else (int(frame[0]), int(frame[1])),
        )

    def prepare(
        self, image: NDArray[np.uint8], preprocessing: Preprocessing, *, size: tuple[int, int] | None = None
    ) -> NDArray[Any]:
        """(H, W, 3) uint8 RGB -> one image as the graph takes it, (1, 3, h, w) or (1, h, w, 3). ``size`` is that of the
        file of an image that was reduced as it was decoded."""
        if not self.is_uint8:
            return preprocessing(image, size=size)[None]
        if self.frame_size is not None:
            return (image if size is None else enlarge_image(image, size, round(size[0] / image.shape[0])))[None]
        # Resized as for the model, and rounded once.
        return np.clip(np.rint(255 * preprocessing.resize(image, size=size)), 0, 255).astype(np.uint8)[None]

    @property
    def rounds(self) -> bool:
        """Whether an image that is resized before the graph gets it is rounded to 8 bits."""
        return self.is_uint8 and self.frame_size is None

    def mirror(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """The images, left and right swapped."""
        return np.ascontiguousarray(pixels[:, :, ::-1] if self.is_uint8 else pixels[..., ::-1])

    def focal_px(self, focal_px: float, image_size: tuple[int, int], network_size: tuple[int, int]) -> float:
        """A focal length at the network's size as the graph takes it: at the size of its input."""
        if self.frame_size is None:
            return focal_px
        return focal_px / (sum(side / full for side, full in zip(network_size, image_size, strict=True)) / 2)

    def fill_batch(self, array: NDArray[Any]) -> NDArray[Any]:
        """As many images, or focal lengths, as the graph takes at a time: one is repeated."""
        return array if self.batch is None or len(array) == self.batch else np.repeat(array, self.batch, axis=0)

    def require_pixels(self, pixels: NDArray[Any], source: str) -> None:
        """
        Raises:
            FinetuneError: this is not what the graph takes: another type or layout, number or size of images.
        """
        shape, kind = ("(B, H, W, 3)", np.uint8) if self.is_uint8 else ("(B, 3, H, W)", np.floating)
        is_laid_out = pixels.ndim == 4 and pixels.shape[3 if self.is_uint8 else 1] == 3
        if not is_laid_out or not np.issubdtype(pixels.dtype, kind):
            said = "uint8, RGB" if self.is_uint8 else "floating, normalized"
            raise FinetuneError(
                f"{source} takes {shape} {said}, and was given {pixels.shape} {pixels.dtype}. Give it that; predict "
                "prepares an image by itself."
            )
        if not len(pixels):
            raise FinetuneError(f"{source} was given no image. Give it one.")
        if self.batch is not None and len(pixels) not in (1, self.batch):
            raise FinetuneError(
                f"{source} takes {count_noun(self.batch, 'image')} at a time, and was given {len(pixels)}. Give it as "
                "many, or one, which is repeated; or export it with --batch any."
            )
        self.require_size(pixels, source)

    def require_size(self, pixels: NDArray[Any], source: str) -> None:
        """
        Raises:
            FinetuneError: the graph is for images of another size.
        """
        size = pixels.shape[1:3] if self.is_uint8 else pixels.shape[2:4]
        expected = self.frame_size or self.input_size
        if expected is not None and tuple(size) != expected:
            becomes = "is" if self.frame_size else "becomes"
            raise FinetuneError(
                f"{source} accepts {expected[0]}x{expected[1]} (height x width) only, and the image {becomes} "
                f"{size[0]}x{size[1]}. Export it with --image of that shape, or with --dynamic."
            )
        if expected is None and any(side % PATCH for side in size):
            raise FinetuneError(
                f"{source} accepts multiples of {PATCH}, and was given {size[0]}x{size[1]}. Resize it; predict does so "
                "by itself."
            )

    def at_network_size(self, image: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
        """What is compared instead of an image: where it is resized before, and rounded, that is no longer the same."""
        if not self.rounds:
            return image
        return np.asarray(self.prepare(image, preprocessing)[0], np.uint8)
