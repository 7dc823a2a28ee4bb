"""Which of two points is nearer: annotated pairs in the layout of DA-2K, and how predictions are scored on them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.utils.errors import DataError, ListError, first_line, shown
from finetune.utils.kinds import Kind, rises_with_distance
from finetune.utils.paths import read_bytes
from finetune.utils.text import count_noun

POINTS = ("point1", "point2")
# What the pairs of an image are counted under if no folder says its scene.
NO_SCENE = "all"
_EXAMPLE = '"point1": [row, column], "point2": [row, column], "closer_point": "point1"'
_NAME_A_FILE = "Name DA-2K's annotations.json, or a file like it"
# The quantile of the normal distribution of a 95 % interval.
_Z = 1.959964


@dataclass(frozen=True, kw_only=True)
class Pair:
    """
    Two points of an image.

    Attributes:
        near, far: (row, column) in pixels, of the upright image.
        place: the position of the pair in the image's list, from 0.
    """

    near: tuple[float, float]
    far: tuple[float, float]
    place: int


@dataclass(frozen=True, kw_only=True)
class AnnotatedImage:
    """
    The pairs of an image.

    Attributes:
        name: the path of the image as the file of annotations has it.
        pairs: at least one.
        source: the file of annotations, for errors.
    """

    name: str
    pairs: tuple[Pair, ...]
    source: Path

    @property
    def scene(self) -> str:
        """The name of the folder that the image is in, which in DA-2K is the kind of scene."""
        return PurePosixPath(self.name).parent.name or NO_SCENE

    def require_inside(self, height: int, width: int) -> None:
        """
        Raises:
            DataError: a point is outside the image. If it would be inside with row and column exchanged, the error says
                so.
        """
        for pair in self.pairs:
            for row, column in (pair.near, pair.far):
                if row < height and column < width:
                    continue
                exchanged = row < width and column < height
                found = f"{self.name}: a point of pair {pair.place} is at row {row:g}, column {column:g}"
                fix = (
                    "Row and column seem to be exchanged: write [row, column]"
                    if exchanged
                    else "Take the images that the pairs were annotated on, at their size"
                )
                raise DataError(self.source, f"{found}, outside the image of {height}x{width}", fix)


@dataclass(frozen=True, kw_only=True)
class PairResult:
    """
    One pair and what was predicted there.

    Attributes:
        image: the path of the image as the file of annotations has it.
        scene: see ``AnnotatedImage``.
        pair: its points.
        near_value, far_value: predicted at the two points.
        is_right: whether the near point was predicted to be nearer; False for a tie.
    """

    image: str
    scene: str
    pair: Pair
    near_value: float
    far_value: float
    is_right: bool

    @property
    def is_tie(self) -> bool:
        """Whether both points have the same prediction."""
        return self.near_value == self.far_value


@dataclass(kw_only=True)
class PairScore:
    """Counts over pairs. ``accuracy`` is right / all, over pairs and not over images."""

    pairs: int = 0
    right: int = 0
    ties: int = 0
    images: set[str] = field(default_factory=set)

    def add(self, result: PairResult) -> None:
        """Count a pair."""
        self.pairs += 1
        self.right += result.is_right
        self.ties += result.is_tie
        self.images.add(result.image)

    @property
    def accuracy(self) -> float:
        """Share of the pairs that are right."""
        return self.right / self.pairs

    @property
    def interval(self) -> tuple[float, float]:
        """
        The 95 % interval of the accuracy by the number of pairs.

        Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference, 1927.
        """
        share, count = self.accuracy, self.pairs
        center = share + _Z * _Z / (2 * count)
        half = _Z * math.sqrt(share * (1 - share) / count + _Z * _Z / (4 * count * count))
        scale = 1 + _Z * _Z / count
        return (center - half) / scale, (center + half) / scale

    def to_mapping(self) -> dict[str, object]:
        """For JSON."""
        counts = {"images": len(self.images), "pairs": self.pairs, "right": self.right, "ties": self.ties}
        return {**counts, "accuracy": self.accuracy, "interval_95": list(self.interval)}


def read_annotations(path: Path) -> list[AnnotatedImage]:
    """
    Args:
        path: JSON, as DA-2K's ``annotations.json``: path of an image -> list of ``{"point1": [row, column], "point2":
            [row, column], "closer_point": "point1"}``.

    Returns:
        The images that have pairs, in the order of the file.

    Raises:
        ListError: it cannot be read, or is not such a file.
    """
    try:
        found = json.loads(read_bytes(path), object_pairs_hook=lambda items: _without_duplicates(path, items))
    except OSError as error:
        raise ListError(path, f"cannot be read ({error.strerror})", _NAME_A_FILE) from error
    except (ValueError, RecursionError) as error:
        raise ListError(path, f"is not JSON ({first_line(error)})", _NAME_A_FILE) from error
    if not isinstance(found, dict):
        raise ListError(path, "is not a mapping of images to pairs", _NAME_A_FILE)
    images = [
        AnnotatedImage(name=name, pairs=_read_pairs(path, name, pairs), source=path)
        for name, pairs in found.items()
        if pairs != []
    ]
    if not images:
        raise ListError(path, "has no pairs", _NAME_A_FILE)
    return images


def score_pairs(image: AnnotatedImage, prediction: NDArray[np.floating], kind: Kind) -> list[PairResult]:
    """
    Args:
        image: its pairs.
        prediction: (height, width) of the image: meters, inverse depth or relative depth.
        kind: which of them; the other direction is never tried.

    Returns:
        One result a pair. The nearer point has the smaller depth, or the larger inverse depth; a tie is wrong.

    Raises:
        DataError: a point is outside, or the prediction there is not finite.
    """
    image.require_inside(*prediction.shape)
    results = []
    for pair in image.pairs:
        near, far = (float(prediction[int(row), int(column)]) for row, column in (pair.near, pair.far))
        if not (math.isfinite(near) and math.isfinite(far)):
            found = f"{image.name}: the prediction at pair {pair.place} is no finite number"
            raise DataError(image.source, found, "Take other weights, or write finite predictions")
        is_right = near < far if rises_with_distance(kind) else near > far
        results.append(
            PairResult(
                image=image.name, scene=image.scene, pair=pair, near_value=near, far_value=far, is_right=is_right
            )
        )
    return results


def summarize_pairs(results: Iterable[PairResult]) -> tuple[PairScore, dict[str, PairScore]]:
    """The score over all pairs, and that of each scene, by name."""
    overall = PairScore()
    scenes: dict[str, PairScore] = {}
    for result in results:
        overall.add(result)
        scenes.setdefault(result.scene, PairScore()).add(result)
    return overall, dict(sorted(scenes.items()))


def format_pair_scores(overall: PairScore, scenes: Mapping[str, PairScore]) -> str:
    """A table for a terminal."""
    rows: list[tuple[str, ...]] = [("scene", "images", "pairs", "right", "ties", "accuracy", "95 % interval")]
    named = [*scenes.items()] if len(scenes) > 1 else []
    for name, score in (*named, ("overall", overall)):
        low, high = score.interval
        counts = (len(score.images), score.pairs, score.right, score.ties)
        shares = (f"{100 * score.accuracy:.1f} %", f"{100 * low:.1f} to {100 * high:.1f}")
        rows.append((name, *map(str, counts), *shares))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for name, *cells in rows:
        padded = [f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([f"{name:{widths[0]}}", *padded]))
    return "\n".join(lines)


def _without_duplicates(path: Path, items: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """
    Raises:
        ListError: a name appears twice, of which JSON would keep the last.
    """
    found = dict(items)
    if len(found) < len(items):
        names = [name for name, _ in items]
        twice = next(name for name in names if names.count(name) > 1)
        raise ListError(path, f"has {shown(twice)} twice in one mapping", "Keep one of them")
    return found


def _read_pairs(path: Path, name: str, pairs: object) -> tuple[Pair, ...]:
    if not isinstance(pairs, list):
        raise ListError(path, f"{shown(name)} has no list of pairs", f"Write [{{{_EXAMPLE}}}]")
    return tuple(_read_pair(path, name, place, pair) for place, pair in enumerate(pairs))


def _read_pair(path: Path, name: str, place: int, pair: object) -> Pair:
    """
    Raises:
        ListError: it is no pair of two points, of which one is said to be nearer.
    """
    where = f"pair {place} of {shown(name)}"
    if not isinstance(pair, dict) or not all(point in pair for point in (*POINTS, "closer_point")):
        raise ListError(path, f"{where} lacks one of {', '.join(POINTS)}, closer_point", f"Write {{{_EXAMPLE}}}")
    closer = pair["closer_point"]
    if closer not in POINTS:
        raise ListError(path, f"{where} has the closer_point {shown(closer)}", f"Write {' or '.join(POINTS)}")
    points = {point: _read_point(path, where, point, pair[point]) for point in POINTS}
    if points["point1"] == points["point2"]:
        raise ListError(path, f"{where} has the same point twice", "Write two points, or leave the pair out")
    (other,) = (point for point in POINTS if point != closer)
    return Pair(near=points[closer], far=points[other], place=place)


def _read_point(path: Path, where: str, point: str, value: object) -> tuple[float, float]:
    if (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(number, int | float) and not isinstance(number, bool) for number in value)
        and all(math.isfinite(number) and number >= 0 for number in value)
    ):
        return float(value[0]), float(value[1])
    raise ListError(path, f"{where} has the {point} {shown(value)}", "Write [row, column] in pixels, from 0")


def explain_counts(images: Sequence[AnnotatedImage]) -> str:
    """What a file of annotations holds, as a clause."""
    pairs = sum(len(image.pairs) for image in images)
    return f"{count_noun(pairs, 'pair')} on {count_noun(len(images), 'image')}"
