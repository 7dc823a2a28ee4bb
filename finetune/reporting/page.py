"""Pages that open without a network: one file with its style, its script and its pictures in it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from finetune.reporting.charts import COLORS

if TYPE_CHECKING:
    from jinja2 import Environment

# WebP qualities, tried in turn until a picture is small enough. After the last one its sides shrink by a quarter.
_QUALITIES = (86, 65, 40)
_MIN_SIDE_PX = 16  # a picture is never made smaller than this


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: plain text.
        bold: for the best value of a column.
        code: for names that a user types or finds in a file.
        color: number of the page color of a run, shown as a small square before the text; None for no square.
    """

    text: str
    bold: bool = False
    code: bool = False
    color: int | None = None


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of a page.

    Attributes:
        heads: plain text, one for each column.
        rows: cells of each row; the first cell names the row.
        kind: CSS class of the table; "" for none.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    kind: str = ""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image inside the page.

    Attributes:
        uri: data URI, as ``encode_picture`` makes it.
        width, height: pixels of the picture before it was encoded; the page reserves a place of this shape.
        alt: what the picture shows, for readers who cannot see it.
    """

    uri: str
    width: int
    height: int
    alt: str


@cache
def get_template_engine() -> Environment:
    """
    Returns:
        The template engine of all pages. It escapes every value, so no template and no Python code has to. An unknown
        name in a template is an error.
    """
    # Imported here because only a page needs it: commands that print text start without it.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    engine = Environment(
        loader=PackageLoader("finetune.reporting", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    engine.filters["anchor"] = make_anchor
    engine.filters["px"] = format_px
    engine.filters["color"] = name_color
    return engine


def render_template(name: str, **values: object) -> str:
    """
    Args:
        name: file in ``templates/``.
        values: what the template shows; plain text and view models, never HTML.

    Returns:
        The rendered text.

    Raises:
        jinja2.UndefinedError: the template asks for a value that is missing.
    """
    return get_template_engine().get_template(name).render(values)


def make_anchor(title: str) -> str:
    """Id of the section with this title, for links within the page."""
    return "".join(letter if letter.isalnum() else "-" for letter in title.lower())


def format_px(value: float) -> str:
    """A coordinate of a drawing, with one decimal."""
    return f"{value:.1f}"


def name_color(number: int) -> str:
    """A page color as CSS; numbers beyond the last color begin again."""
    return f"var(--c{number % COLORS})"


def make_picture(pixels: NDArray[np.uint8], alt: str, *, max_bytes: int) -> Picture:
    """
    Args:
        pixels: (H, W, 3), RGB.
        alt: what the picture shows, for readers who cannot see it.
        max_bytes: size limit within the page; quality and then size shrink until the picture fits.
    """
    height, width = pixels.shape[:2]
    return Picture(uri=encode_picture(pixels, max_bytes), width=width, height=height, alt=alt)


def encode_picture(pixels: NDArray[np.uint8], max_bytes: int) -> str:
    """(H, W, 3) RGB as WebP in a data URI of about ``max_bytes`` characters at most."""
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    while True:
        for quality in _QUALITIES:
            done, data = cv2.imencode(".webp", bgr, [cv2.IMWRITE_WEBP_QUALITY, quality])
            assert done
            # Base64 writes three bytes as four characters.
            if len(data) * 4 <= max_bytes * 3:
                break
        if len(data) * 4 <= max_bytes * 3 or min(bgr.shape[:2]) * 3 < 4 * _MIN_SIDE_PX:
            return "data:image/webp;base64," + base64.b64encode(data.tobytes()).decode()
        bgr = cv2.resize(bgr, None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA)
