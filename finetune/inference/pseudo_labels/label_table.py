"""The table of a folder of labels: a line an image, with how its label came about or why it has none."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

COLUMNS = (
    *("image", "label", "confidence", "unit", "teacher", "anchor"),
    *("scale", "shift", "inlier_share", "residual", "refused"),
)


@dataclass(frozen=True, kw_only=True)
class LabelRow:
    """What is known of one label.

    Attributes:
        image: the absolute path of the image; of a frame of a video, its path in the folder of the labels.
        label, confidence: paths in the folder; empty where the image was refused.
        unit: what a stored number is multiplied by: meters, or inverse depth of unknown scale and shift.
        scale, shift: from the teacher's inverse depth to 1 / meters; None where nothing was anchored.
        inlier_share: share of what it was anchored to that agrees, 0 to 1.
        residual: median of |ln(anchored depth / depth it was anchored to)|.
        refused: why there is no label; empty where there is one.
    """

    image: str
    label: str = ""
    confidence: str = ""
    unit: float | None = None
    scale: float | None = None
    shift: float | None = None
    inlier_share: float | None = None
    residual: float | None = None
    refused: str = ""

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_json(cls, text: str) -> LabelRow:
        """
        Raises:
            ValueError, TypeError: it is no line that ``to_json`` wrote.
        """
        return cls(**json.loads(text))


def format_table(rows: Iterable[LabelRow], *, teacher: str, anchor: str) -> Iterator[str]:
    """
    Args:
        rows: in the order of the images.
        teacher: the digest of the teacher.
        anchor: what the labels were anchored to.

    Yields:
        The lines of the table, with their ends; numbers at full precision.
    """
    yield ",".join(COLUMNS) + "\n"
    for row in rows:
        values = {**asdict(row), "teacher": teacher, "anchor": anchor}
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(
            ["" if values[name] is None else values[name] for name in COLUMNS]
        )
        yield line.getvalue()
