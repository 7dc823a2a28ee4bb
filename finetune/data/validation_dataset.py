"""Validation data: each frame once, as the network sees it and as it was measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from finetune.data.camera import CameraOptions
from finetune.data.crops import crop_for_protocol, crop_middle
from finetune.data.preprocessing import Preprocessing
from finetune.data.reader import Reader
from finetune.data.sample import DepthSample


class ValidationSample(NamedTuple):
    """One image as the network sees it, and its measured depth as it is on disk or in the crop of a protocol.

    Attributes:
        number: among all validation frames.
        views: name of the image crop -> image (1, 3, h, w), and sample.
        focals_px: name of the image crop -> focal length at the network's size, pixels; empty without a camera.
    """

    number: int
    views: Mapping[str, tuple[Tensor, DepthSample]]
    focals_px: Mapping[str, float] = {}

    @property
    def image(self) -> Tensor:
        """(1, 3, h, w), normalized, of the first view."""
        return next(iter(self.views.values()))[0]

    @property
    def sample(self) -> DepthSample:
        """The sample of the first view, as it was measured."""
        return next(iter(self.views.values()))[1]

    @property
    def focal_px(self) -> float | None:
        """The focal length of the first view at the network's size, pixels; None without a camera."""
        return next(iter(self.focals_px.values()), None)


class ValidationSamples(Dataset[ValidationSample]):
    """The frames of all validation readers, one after the other."""

    def __init__(
        self,
        readers: Sequence[Reader],
        preprocessing: Preprocessing,
        image_crops: Iterable[str] = ("none",),
        names: Sequence[str] | None = None,
        *,
        cameras: CameraOptions | None = None,
        zoom: float = 1.0,
    ) -> None:
        """
        Args:
            readers: of the entries.
            preprocessing: what the network sees of an image.
            image_crops: those of the protocols, ``none`` or ``kb``.
            names: of the entries, as the recipe has them; None: ``data.val.0`` and so on.
            cameras: of frames whose reader gives no camera; None: they have none.
            zoom: show the middle of each frame alone, so that the focal length at the network's size is so many times
                as long; below 1 all of it, smaller. Measured meters stay.
        """
        self.names = names or [f"data.val.{i}" for i in range(len(readers))]
        # The middle of a frame alone has fewer pixels than the rule of reduced decoding counts on.
        self._readers = readers if zoom > 1.0 else [reader.decoded_for(preprocessing) for reader in readers]
        self._preprocessing = preprocessing
        self._image_crops = tuple(dict.fromkeys(image_crops))
        self._cameras = cameras or CameraOptions()
        self._zoom = zoom
        self._ends = np.cumsum([len(reader) for reader in readers])

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def entries(self) -> int:
        """How many readers there are."""
        return len(self._readers)

    def locate(self, index: int) -> tuple[int, int]:
        """(reader, frame): the reader that a frame belongs to, and its number there."""
        reader = int(np.searchsorted(self._ends, index, side="right"))
        return reader, index - (int(self._ends[reader - 1]) if reader else 0)

    def __getitem__(self, index: int) -> ValidationSample:
        reader, frame = self.locate(index)
        sample = self._readers[reader][frame]
        if sample.camera is None:
            sample = sample.changed(camera=self._cameras.camera(*sample.valid.shape))
        views, focals_px = {}, {}
        for crop in self._image_crops:
            view = crop_middle(crop_for_protocol(crop, sample), self._zoom)
            image = self._preprocessing(view.image, shrink=min(1.0, self._zoom), size=view.valid.shape)
            views[crop] = torch.from_numpy(image)[None], view
            if view.camera is not None:
                height, width = view.valid.shape
                scales = image.shape[1] / height, image.shape[2] / width
                focals_px[crop] = view.camera.resized(*scales).focal_px
        return ValidationSample(index, views, focals_px)
