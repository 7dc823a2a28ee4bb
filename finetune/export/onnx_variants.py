"""An exported graph at all that it accepts besides the image: other sizes, batches, lenses, and validation frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finetune.export.check_pack import (
    CheckCase,
    choose_check_images,
    make_case,
    make_check_cases,
    make_frame_cases,
)
from finetune.export.options import ANY_BATCH, ExportOptions
from finetune.models.encoder_specs import PATCH
from finetune.utils.errors import ResultError
from finetune.utils.text import count_noun

if TYPE_CHECKING:
    from finetune.inference.predictor import Predictor

# At a focal length so many times that of the canonical camera a canonical file is compared as well.
_OTHER_LENS = 1.5
# Sizes in patches at which a file for any size is compared as well as at that of the image.
_SIZES = ((8, 8), (6, 15), (13, 9))
_BATCHES = (1, 3)
# float16 may cost 0.3 % of depth at the 99.9th percentile of all pixels of the frames; of a relative model, whose
# inverse depth is 0 at the sky and means nothing without a scale and a shift, 0.3 % of the spread.
FRAME_LIMIT, _PERCENTILE = 0.003, 99.9

Run = Callable[[Mapping[str, NDArray[Any]]], NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class Variants:
    """
    Attributes:
        predictor: the model that was exported.
        run: the export, from inputs by their names to its prediction.
        options: of the export.
        allowed: the largest difference, as a share of the spread.
        name: of the export, for sentences.
    """

    predictor: Predictor
    run: Run
    options: ExportOptions
    allowed: float
    name: str

    def compare(self, image: NDArray[np.uint8]) -> list[str]:
        """
        Returns:
            Sentences: what it accepts, and the differences.

        Raises:
            ResultError: something that it accepts gives another prediction.
        """
        return [f"{self.name}: {sentence}" for sentence in self._compare(image)]

    def _compare(self, image: NDArray[np.uint8]) -> Iterator[str]:
        images = choose_check_images(image)
        size = self.predictor.preprocessing.network_size(*self.options.image_size)
        sizes = [(rows * PATCH, columns * PATCH) for rows, columns in _SIZES] if self.options.dynamic else [size]
        batches = _BATCHES if self.options.batch == ANY_BATCH else (self.options.batch,)
        differences = []
        for height, width in sizes:
            shares = [self._compare_case(images, (height, width), count) for count in batches]
            differences.append(f"{height}x{width} {max(shares):.1g}")
        yield self._describe_input(size, differences)
        if batches != (1,):
            number = "any number of" if self.options.batch == ANY_BATCH else str(self.options.batch)
            yield f"takes {number} images at a time; with {max(batches)} the largest difference is as above"
        if self.predictor.canonical is not None:
            focal_px = _OTHER_LENS * self.predictor.canonical.focal_px
            share = self._compare_case(images, size, batches[-1], focal_px)
            yield (
                "the input focal_px is (fx + fy) / 2 of the camera at the size of the input image, in pixels; with "
                f"{_OTHER_LENS:g} times that of the canonical camera it is at most {share:.1g} of the spread off"
            )

    def _describe_input(self, size: tuple[int, int], differences: list[str]) -> str:
        height, width = self.options.image_size if self.options.resize else size
        kind = "RGB images, 0 to 255," if self.options.input_type == "uint8" else "normalized images"
        accepts = f"accepts {kind} of {height}x{width} (height x width) only"
        if self.options.dynamic:
            accepts = f"accepts all multiples of {PATCH}" + (", RGB, 0 to 255" if "RGB" in kind else "")
        if self.options.resize:
            accepts += f", resizes them to {size[0]}x{size[1]} and the prediction back"
        return f"{accepts}; largest difference, as a share of the spread: {', '.join(differences)}"

    def _compare_case(
        self, images: list[NDArray[np.uint8]], size: tuple[int, int], count: int, focal_px: float | None = None
    ) -> float:
        """
        Raises:
            ResultError: the difference is beyond what is allowed.
        """
        canonical = self.predictor.canonical
        lens_px = focal_px or (canonical.focal_px if canonical else None)
        chosen = [images[i % len(images)] for i in range(count)]
        share = self._share(make_case(self.predictor, chosen, size, lens_px, self.options))
        if not share <= self.allowed:
            where, fix = f"at {size[0]}x{size[1]}", "export it for one size, without --dynamic"
            if focal_px is not None:
                where, fix = f"with focal_px {focal_px:.0f}", "export it for one camera, with --for-camera"
            elif count > 1:
                where, fix = f"{where} with {count} images at a time", "export it for one image, without --batch"
            raise ResultError(
                f"{self.name}: {where} it is {share:.2g} of the spread off, more than {self.allowed:g}. It was not "
                f"kept; {fix}."
            )
        return share

    def _share(self, case: CheckCase) -> float:
        spread = max(float(np.ptp(case.expected)), 1e-12)
        return float(np.abs(self.run(case.inputs) - case.expected).max()) / spread

    def compare_frames(self, image: NDArray[np.uint8], caution: str) -> list[str]:
        """
        Args:
            image: of ``options.image_size``; without frames the images of the check pack are compared.
            caution: what this comparison cannot show.

        Returns:
            A sentence: how far float16 is off on the frames, as a share of depth.

        Raises:
            ResultError: it is more than ``FRAME_LIMIT``.
        """
        frames = make_frame_cases(self.predictor, self.options)
        cases = frames or make_check_cases(self.predictor, image, self.options)
        compared = count_noun(len(cases), "frame" if frames else "image")
        is_metric = self.predictor.kind == "metric"
        shares = []
        for case in cases:
            whole = case.expected if is_metric else max(float(np.ptp(case.expected)), 1e-12)
            shares.append((np.abs(self.run(case.inputs) - case.expected) / whole).ravel())
        share = float(np.percentile(np.concatenate(shares), _PERCENTILE))
        said = (
            f"on {compared} {_PERCENTILE} % of pixels are at most {share:.2%} of "
            f"{'their depth' if is_metric else 'the spread'} off ({FRAME_LIMIT:.1%} allowed); {caution}"
        )
        if not share <= FRAME_LIMIT:
            others = "mixed or float32" if self.options.precision == "float16" else "float32"
            raise ResultError(f"{self.name}: {said}. It was not kept; export it with --precision {others}.")
        return [f"{self.name}: {said}"]
