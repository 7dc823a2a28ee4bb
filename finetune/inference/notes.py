"""Notes about a batch of images: which are unlike those of training, and what the colors of their previews mean."""

from __future__ import annotations

from pathlib import Path

from finetune.data.preprocessing import MAX_ELONGATED, Preprocessing
from finetune.inference.lens_notes import explain_lens, kind_of_clause
from finetune.models.depth_model import DepthModel

# A note is made of images this many times as elongated as those of training, or enlarged this many times.
FAR_ASPECT, FAR_ENLARGED = 2.0, 2.0
# A preview that uses a smaller share of its colors shows little.
FLAT_SHARE = 0.2


class BatchNotes:
    """Collects what is worth a note while images are predicted, and says it once, with a count."""

    def __init__(self, preprocessing: Preprocessing, max_depth_m: float | None, unit: str) -> None:
        """
        Args:
            preprocessing: of the model.
            max_depth_m: at the end of the preview's colors, meters; None for a relative model, or without such an end.
            unit: of predictions, as ``unit_of`` says it.
        """
        self._preprocessing = preprocessing
        self._max_depth_m = max_depth_m
        self._unit = "m" if unit == "m" else "relative"
        self._elongated: list[Path] = []
        self._far: list[tuple[Path, str]] = []
        self._flat: list[tuple[Path, tuple[float, float]]] = []
        self._auto: list[tuple[Path, tuple[float, float]]] = []
        self._guessed: list[tuple[Path, float]] = []
        self._lenses: dict[str, list[tuple[Path, str]]] = {}

    def check_size(self, path: Path, height: int, width: int) -> None:
        """Note an image of a shape or size far from that of training."""
        elongated = self._preprocessing.elongation(height, width)
        network = self._preprocessing.network_size(height, width)
        if elongated > MAX_ELONGATED:
            self._elongated.append(path)
        elif elongated > FAR_ASPECT or network[0] > FAR_ENLARGED * height:
            self._far.append((path, f"{width}x{height}"))

    def add_guess(self, path: Path, focal_px: float) -> None:
        """Note an image whose focal length, pixels, is taken from EXIF."""
        self._guessed.append((path, focal_px))

    def check_lens(self, path: Path, network: DepthModel, focal_px: float) -> None:
        """Note an image whose lens is unlike those of the training; ``focal_px`` at the network's size."""
        for clause in explain_lens(network, focal_px):
            self._lenses.setdefault(kind_of_clause(clause), []).append((path, clause))

    def add_auto_range(self, path: Path, color_range: tuple[float, float]) -> None:
        """Note the range of a preview with ``--range auto``."""
        self._auto.append((path, color_range))

    def check_contrast(self, path: Path, spread: tuple[float, float]) -> None:
        """Note a preview from 0 to the max depth that uses few of its colors; ``spread``: 2nd to 98th percentile."""
        assert self._max_depth_m is not None
        if spread[1] - spread[0] < FLAT_SHARE * self._max_depth_m:
            self._flat.append((path, spread))

    def add(self, other: BatchNotes) -> None:
        """Add what was collected about other images."""
        self._elongated += other._elongated
        self._far += other._far
        self._flat += other._flat
        self._auto += other._auto
        self._guessed += other._guessed
        for kind, noted in other._lenses.items():
            self._lenses.setdefault(kind, []).extend(noted)

    def sentences(self, inputs: int) -> list[str]:
        """
        Args:
            inputs: the number of images and videos in the batch.
        """
        height, width = self._preprocessing.input_size
        found = []
        if self._elongated:
            found.append(
                f"{len(self._elongated)} of {inputs}, {self._elongated[0]} first, are more than {MAX_ELONGATED:g} "
                f"times as elongated as the training size {width}x{height}: their longer side is limited"
            )
        if self._far:
            path, size = self._far[0]
            found.append(
                f"{len(self._far)} of {inputs}, {path} ({size}) first, are of a shape or size far from the training "
                f"size {width}x{height}: expect larger errors"
            )
        return found + self._sentences_on_lenses(inputs) + self._sentences_on_colors(inputs)

    def _sentences_on_lenses(self, inputs: int) -> list[str]:
        found = []
        if self._guessed:
            path, focal_px = self._guessed[0]
            found.append(
                f"{len(self._guessed)} of {inputs}, {path} first ({focal_px:.0f} px): the focal length is taken from "
                "EXIF, which is a guess; give --intrinsics to be sure"
            )
        for noted in self._lenses.values():
            path, clause = noted[0]
            found.append(f"warning: {len(noted)} of {inputs}, {path} first: the focal length {clause}")
        return found

    def _sentences_on_colors(self, inputs: int) -> list[str]:
        if self._auto:
            path, (low, high) = self._auto[0]
            others = "" if len(self._auto) == 1 else "; the others have their own legends, so colors do not compare"
            return [
                f"{path}: the preview's colors go from {low:.4g} to {high:.4g} {self._unit}, the 2nd to the 98th "
                f"percentile{others}"
            ]
        if self._flat:
            path, (low, high) = self._flat[0]
            return [
                f"{len(self._flat)} of {inputs}, {path} first, use less than a fifth of the preview's colors "
                f"({low:.4g} to {high:.4g} of 0 to {self._max_depth_m:g} m): see more with --range auto"
            ]
        return []
