"""The results of an evaluation: scored images, and tables by entry, by protocol and by distance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from finetune.evaluation.protocols import Protocol
from finetune.utils.text import count_noun

# A run is called overfit when its metric is this share worse than its best, over this many evaluations.
OVERFIT_SHARE, OVERFIT_EVALUATIONS = 0.05, 3


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """One evaluation: its step, the value of the metric, the mean training loss since the one before it."""

    step: int
    value: float
    loss: float | None


# Ends of the bins by measured distance, as shares of the protocol's max depth.
BIN_ENDS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
# Up to this max depth a user of the sensor thinks of errors in millimeters.
NEAR_RANGE_M = 10.0
UNALIGNED = "_unaligned"


class ScoredImage(NamedTuple):
    """One image under one protocol.

    Attributes:
        number: among all validation frames.
        pixels: how many count.
        rows: row of the table -> metric -> value.
        mean_logs: row -> mean of ln pred - ln target.
        errors_mm: row -> mean, median and 90th percentile of the absolute error, millimeters.
        bins: row -> (len(BIN_ENDS) - 1, 3): pixels, sum of the absolute error in meters, sum of it over depth.
        focal_px: at the network's size, pixels; None where the camera is not known.
    """

    number: int
    pixels: int
    rows: Mapping[str, Mapping[str, float]]
    mean_logs: Mapping[str, float]
    errors_mm: Mapping[str, tuple[float, float, float]]
    bins: Mapping[str, NDArray[np.float64]]
    focal_px: float | None = None


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """How the weights of ``best/`` were chosen.

    Attributes:
        evaluations: how many there were to choose from.
        step: of the chosen weights.
        on: the frames whose score decided, as the recipe names them: ``data.val``, or one of its entries.
        shown: whether these frames are those of the table.
    """

    evaluations: int
    step: int
    on: str
    shown: bool

    def __str__(self) -> str:
        chosen = f"finetuned is best/ (step {self.step}), the best of {count_noun(self.evaluations, 'evaluation')} on"
        if self.shown:
            return (
                f"{chosen} the very frames of this table, which flatters its row a little; last is the network after "
                "the last step. Set evaluation.choose_on to other frames for an honest row"
            )
        return f"{chosen} {self.on}, whose frames are not in this table; last is the network after the last step"


@dataclass(frozen=True, kw_only=True)
class EntryEvaluation:
    """The table over the images of one entry of ``data.val``, or of one lens, alone."""

    rows: Mapping[str, Mapping[str, float]]
    images_used: int
    images_skipped: int
    pixels_used: int

    def to_mapping(self) -> dict[str, Any]:
        """Its part of the object of ``evaluation.json``."""
        return {
            "rows": {name: dict(row) for name, row in self.rows.items()},
            "images_used": self.images_used,
            "images_skipped": self.images_skipped,
            "pixels_used": self.pixels_used,
        }


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One protocol's table.

    Attributes:
        protocol: all its settings.
        rows: model or baseline -> metric -> value.
        images_used, images_skipped: how many have a pixel that counts, and how many have none.
        pixels_used: over all images used.
        errors_mm: row -> ``mean``, ``median``, ``p90`` of the absolute error of an image, averaged over images,
            millimeters.
        bins: row -> a mapping for each bin of measured depth: its ends, its pixels, and over these ``abs_rel`` and the
            mean absolute error in meters, None where there is no pixel.
        entries: entry of ``data.val`` -> its table, where there are several.
        lenses: focal length at the network's size in words -> the table of its images, where there are several lenses.
        images: each image used.
        chosen: how the weights of the row ``finetuned`` were chosen; None where that is unknown or
            there was no choice.
    """

    protocol: Protocol
    rows: Mapping[str, Mapping[str, float]]
    images_used: int
    images_skipped: int
    pixels_used: int
    errors_mm: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    bins: Mapping[str, Sequence[Mapping[str, float | None]]] = field(default_factory=dict)
    entries: Mapping[str, EntryEvaluation] = field(default_factory=dict)
    lenses: Mapping[str, EntryEvaluation] = field(default_factory=dict)
    images: Sequence[ScoredImage] = field(default=(), compare=False)
    chosen: Chosen | None = None

    def to_mapping(self) -> dict[str, Any]:
        """The object of ``evaluation.json``."""
        found = {
            "protocol": self.protocol.to_mapping(),
            "rows": {name: dict(row) for name, row in self.rows.items()},
            "images_used": self.images_used,
            "images_skipped": self.images_skipped,
            "pixels_used": self.pixels_used,
            "errors_mm": {name: dict(errors) for name, errors in self.errors_mm.items()},
            "bins": {name: [dict(found) for found in bins] for name, bins in self.bins.items()},
        }
        if self.entries:
            found["entries"] = {name: entry.to_mapping() for name, entry in self.entries.items()}
        if self.lenses:
            found["focal_lengths"] = {name: lens.to_mapping() for name, lens in self.lenses.items()}
        if self.chosen:
            found["chosen"] = asdict(self.chosen)
        return found

    def only(self, row: str) -> Evaluation:
        """The same evaluation with one row."""
        return replace(
            self,
            rows={row: self.rows[row]},
            errors_mm={row: self.errors_mm[row]},
            bins={row: self.bins[row]},
            entries=_only(self.entries, row),
            lenses=_only(self.lenses, row),
        )


def _only(tables: Mapping[str, EntryEvaluation], row: str) -> dict[str, EntryEvaluation]:
    """The tables with one row, where they have it."""
    return {
        name: replace(table, rows={row: table.rows[row]}) if row in table.rows else table
        for name, table in tables.items()
    }
