"""Images with the labels of a teacher: the folder that ``finetune label`` writes."""

from __future__ import annotations

import csv
import io
import json
import math
from array import array
from dataclasses import dataclass as plain_dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from finetune.data.label_files import DISAGREEMENT_UNITS, FORMAT, SUMMARY, TABLE
from finetune.data.reader import DepthIs
from finetune.data.readers.files import read_depth, read_image_file, require_depth_range, scale_from_1_to_10
from finetune.data.readers.intrinsics import Intrinsics, read_intrinsics
from finetune.data.readers.listing import ListedFrames, Listing, locate, require_file, require_folder
from finetune.data.sample import DepthSample
from finetune.utils.errors import DataError, ListError, RecipeError
from finetune.utils.paths import expand_path, is_file, path_exists, read_bytes
from finetune.utils.text import count_noun

_COLUMNS = ("image", "label", "confidence", "unit", "inlier_share", "refused")
_AGAIN = "Call finetune label again; it goes on where it stopped"


@plain_dataclass(frozen=True, kw_only=True)
class _Labels:
    """The frames of the table that are taken, and why others are not.

    Attributes:
        listing: image and label of each.
        confidences: the file of each, below the folder; empty where there is none.
        units: of each; a stored number times this is meters, or inverse depth of unknown scale and shift.
        refused: how many the teacher's labels were refused for.
        unsure: how many have fewer inliers than ``min_inliers``.
    """

    listing: Listing
    confidences: list[str]
    units: array[float]
    refused: int
    unsure: int


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Pseudo(ListedFrames):
    """The images that a teacher labeled, with its labels and how sure they are; ``finetune label`` wrote the folder.

    Labels are meters along the optical axis if the teacher is metric or its labels were anchored to meters. Otherwise
    they are inverse depth of unknown scale and shift, which become depth from 1 to 10 without a unit, for a relative
    head and a loss that ignores scale and shift. ``labels.json`` says which.

    The confidence of a pixel is the smaller of the teacher's predictions for the image and for its mirror image,
    divided by the larger one: 1 where both are the same, 0.9 where they differ by a tenth. Where points that a label
    was anchored to contradict each other by more than that, their disagreement counts. A pixel below
    ``min_confidence`` is not valid. A valid one counts as its confidence to the power of ``confidence_power`` in the
    losses silog, l1, l2, log_l1 and berhu; ssi and gradient count all valid pixels the same, and ssi has ``trim``.

    A frame whose label was refused, or whose anchoring has a smaller share of inliers than ``min_inliers``, is left
    out; the run says how many are. Images are read where they were when they were labeled, and are turned upright.
    Making the reader opens nothing.
    """

    root: str  # folder that finetune label wrote
    min_confidence: float = 0.0  # pixels of less confidence, 0 to 1, are not valid; 0.0: all labeled ones are
    confidence_power: float = 1.0  # a pixel counts as its confidence to this power in metric losses; 0.0: all the same
    min_inliers: float = 0.0  # frames with a smaller share of inliers in their anchoring, 0 to 1, are left out
    min_depth_m: float = 0.0  # depths up to this are not valid; for labels in meters
    max_depth_m: float | None = None  # depths beyond this are not valid; for labels in meters; null for no limit
    intrinsics: str | None = None  # JSON with width, height, fx, fy, cx, cy in pixels, below root or from here

    def __post_init__(self) -> None:
        require_depth_range(self.min_depth_m, self.max_depth_m)
        for key in ("min_confidence", "min_inliers"):
            if not 0.0 <= getattr(self, key) < 1.0:
                raise RecipeError(key, getattr(self, key), "a number from 0 to below 1, such as 0.8")
        if not 0.0 <= self.confidence_power < math.inf:
            raise RecipeError("confidence_power", self.confidence_power, "a number from 0 up; start with 1.0")

    def check_paths(self) -> None:
        """
        Raises:
            RecipeError: the folder is missing or not whole, or has labels for which an option makes no sense.
        """
        require_folder("root", self.root)
        if not is_file(self._root / SUMMARY):
            hint = f"a folder that finetune label has finished: this one has no {SUMMARY}"
            raise RecipeError("root", self.root, hint)
        if self.intrinsics is not None:
            require_file("intrinsics", self.root, self.intrinsics)
        if self._info["kind"] == "relative":
            for key, given in (("min_depth_m", self.min_depth_m > 0), ("max_depth_m", self.max_depth_m is not None)):
                if given:
                    nothing = "nothing, since these labels are inverse depth without a unit; leave it out"
                    raise RecipeError(key, getattr(self, key), nothing)
        if self.min_inliers > 0 and self._info.get("anchor", "none") == "none":
            raise RecipeError("min_inliers", self.min_inliers, "0.0, since these labels were not anchored")

    @property
    def depth_is(self) -> DepthIs:  # type: ignore[override]  # an attribute of other readers
        """``affine_inverse`` where the labels have no unit, else ``z``, also where there is no folder yet."""
        try:
            return "affine_inverse" if self._info["kind"] == "relative" else "z"
        except ListError:
            return "z"  # ``check_paths`` says what is wrong

    @property
    def has_pseudo_labels(self) -> bool:
        """True."""
        return True

    @property
    def notes(self) -> tuple[str, ...]:
        """How many frames are left out, and why."""
        labels = self._labels
        left_out = [
            f"{count} {why}"
            for count, why in (
                (labels.refused, "whose label was refused"),
                (labels.unsure, f"with fewer inliers than min_inliers {self.min_inliers:g}"),
            )
            if count
        ]
        if not left_out:
            return ()
        total = len(labels.listing) + labels.refused + labels.unsure
        return (f"{self.root}: {len(labels.listing)} of {count_noun(total, 'frame')}; without {', '.join(left_out)}",)

    def require_files(self, index: int) -> None:
        """
        Raises:
            ListError: the image, the label or the confidence map of a frame is missing. Only existence is looked at.
        """
        self.files(index)
        confidence = self._labels.confidences[index]
        if confidence and not path_exists(self._root / confidence):
            raise ListError(self._root / confidence, "does not exist", _AGAIN)

    def stored_number(self, depth_m: float) -> float | None:
        """None: each map has its own unit."""
        return None

    def __getitem__(self, index: int) -> DepthSample:
        """
        Raises:
            ListError: the folder is not one of labels, or a file of this frame is missing.
            DataError: a file of this frame cannot be decoded, or sizes differ.
        """
        image_path, label_path = self._listing.files(index)
        image = read_image_file(image_path, levels=self.image_levels, network=self.network).turned_upright()
        numbers = _read_map(label_path, image.size, image_path)
        valid = numbers != 0
        values = np.multiply(numbers, self._labels.units[index], dtype=np.float64)
        if self._info["kind"] == "relative":
            depth_m = scale_from_1_to_10(values, valid)
        else:
            depth_m = values.astype(np.float32)
            valid &= depth_m > self.min_depth_m
            if self.max_depth_m is not None:
                valid &= depth_m <= self.max_depth_m
        weight = None
        if self.min_confidence > 0 or self.confidence_power > 0:
            disagreement = self._read_disagreement(index, image_path, image.size)
            if self.min_confidence > 0:
                valid &= disagreement <= -DISAGREEMENT_UNITS * math.log(self.min_confidence)
            if self.confidence_power > 0:
                weight = _weights_of(self.confidence_power)[disagreement]
        camera = None if self._intrinsics is None else self._intrinsics.camera_of(image.size, image_path)
        return DepthSample(
            image=image.pixels,
            depth_m=depth_m,
            valid=valid,
            source=label_path,
            camera=camera,
            weight=weight,
            image_scale=image.scale,
        )

    def _read_disagreement(self, index: int, image_path: str, shape: tuple[int, ...]) -> NDArray[np.uint16]:
        name = self._labels.confidences[index]
        if not name:
            raise DataError(
                self._listing.place(index),
                "names no confidence map",
                "Label again, or set min_confidence: 0.0 and confidence_power: 0.0",
            )
        return _read_map(str(self._root / name), shape, image_path)

    @cached_property
    def _root(self) -> Path:
        return expand_path(self.root)

    @cached_property
    def _intrinsics(self) -> Intrinsics | None:
        return None if self.intrinsics is None else read_intrinsics(locate(self.root, self.intrinsics))

    @cached_property
    def _info(self) -> dict[str, Any]:
        path = self._root / SUMMARY
        try:
            found = json.loads(read_bytes(path))
            kind, version = found["kind"], found["format"]
        except OSError as error:
            raise ListError(path, f"cannot be read ({error.strerror})", _AGAIN) from None
        except (ValueError, KeyError, TypeError):
            raise ListError(path, "is damaged, or was not written by finetune label", "Label again") from None
        if version != FORMAT or kind not in ("relative", "metric"):
            found_format = f"has labels of format {version} and kind {kind}, and this program reads format {FORMAT}"
            raise ListError(path, found_format, "Update this program, or label again")
        return dict(found)

    @property
    def _listing(self) -> Listing:
        return self._labels.listing

    @cached_property
    def _labels(self) -> _Labels:
        path = self._root / TABLE
        rows: list[tuple[int, str, str]] = []
        confidences: list[str] = []
        units: array[float] = array("d")
        refused = unsure = 0
        anchored = self.min_inliers > 0
        for line, row in _read_table(path):
            try:
                if row["refused"]:
                    refused += 1
                elif anchored and not float(row["inlier_share"]) >= self.min_inliers:
                    unsure += 1
                else:
                    units.append(_read_unit(row["unit"]))
                    rows.append((line, row["image"], row["label"]))
                    confidences.append(row["confidence"])
            except ValueError as error:
                raise ListError(f"{path}:{line}", str(error), "Label again") from None
        if not rows:
            found = f"has no frame to train on: {refused} refused, {unsure} below min_inliers {self.min_inliers:g}"
            raise ListError(path, found, "Lower min_inliers, or label other images")
        root = str(self._root)
        listing = Listing.of_list(str(path), rows, root, root)
        return _Labels(listing=listing, confidences=confidences, units=units, refused=refused, unsure=unsure)


def _read_table(path: Path) -> list[tuple[int, dict[str, str]]]:
    """(line, columns) of each row.

    Raises:
        ListError: it cannot be read, or is another table.
    """
    try:
        text = read_bytes(path).decode("utf-8", "surrogateescape")
    except OSError as error:
        raise ListError(path, f"cannot be read ({error.strerror})", _AGAIN) from None
    reader = csv.DictReader(io.StringIO(text, newline=""), restval="")
    try:
        lacking = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
        if lacking:
            raise ListError(path, f"has no column {', '.join(lacking)}", "Label again")
        return [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise ListError(f"{path}:{reader.line_num}", f"is no CSV ({error})", "Label again") from None


def _read_unit(text: str) -> float:
    """
    Raises:
        ValueError: it is not a number above 0.
    """
    unit = float(text)
    if not 0.0 < unit < math.inf:
        raise ValueError(f"its unit is {text}, and not a number above 0")
    return unit


def _read_map(path: str, shape: tuple[int, ...], image_path: str) -> NDArray[np.uint16]:
    """
    (H, W), as stored.

    Raises:
        DataError: it has other bits, or another size than the image.
    """
    numbers = read_depth(path)
    if numbers.dtype != np.uint16:
        raise DataError(path, f"holds {numbers.dtype}, and finetune label writes 16 bits", "Label again")
    if numbers.shape != shape:
        sizes = f"is {numbers.shape[0]}x{numbers.shape[1]}, its image {image_path} is {shape[0]}x{shape[1]}"
        raise DataError(path, sizes, "Restore the image that was labeled, or label again")
    return np.asarray(numbers, dtype=np.uint16)


@lru_cache(maxsize=4)
def _weights_of(power: float) -> NDArray[np.float32]:
    """The weight for each number of a confidence map."""
    return np.exp(np.arange(1 << 16) * (-power / DISAGREEMENT_UNITS)).astype(np.float32)
