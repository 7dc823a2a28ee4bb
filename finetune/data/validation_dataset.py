"""Validation data: each frame once, as the network sees it and as it was measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from finetune.data.crops import crop_for_protocol
from finetune.data.preprocessing import Preprocessing
from finetune.data.reader import Reader
from finetune.data.sample import DepthSample


class ValidationSample(NamedTuple):
    """One image as the network sees it, and its measured depth as it is on disk or in the crop of a protocol.

    Attributes:
        number: among all validation frames.
        views: name of the image crop -> image (1, 3, h, w), and sample.
    """

    number: int
    views: Mapping[str, tuple[Tensor, DepthSample]]

    @property
    def image(self) -> Tensor:
        """(1, 3, h, w), normalized, of the first view."""
        return next(iter(self.views.values()))[0]

    @property
    def sample(self) -> DepthSample:
        """The sample of the first view, as it was measured."""
        return next(iter(self.views.values()))[1]


class ValidationSamples(Dataset[ValidationSample]):
    """The frames of all validation readers, one after the other."""

    def __init__(
        self,
        readers: Sequence[Reader],
        preprocessing: Preprocessing,
        image_crops: Iterable[str] = ("none",),
        names: Sequence[str] | None = None,
    ) -> None:
        """
        Args:
            readers: of the entries.
            preprocessing: what the network sees of an image.
            image_crops: those of the protocols, ``none`` or ``kb``.
            names: of the entries, as the recipe has them; None: ``data.val.0`` and so on.
        """
        self.names = names or [f"data.val.{i}" for i in range(len(readers))]
        self._readers = readers
        self._preprocessing = preprocessing
        self._image_crops = tuple(dict.fromkeys(image_crops))
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
        views = {}
        for crop in self._image_crops:
            view = crop_for_protocol(crop, sample)
            views[crop] = torch.from_numpy(self._preprocessing(view.image))[None], view
        return ValidationSample(index, views)
