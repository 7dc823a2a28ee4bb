"""What an export is asked for, beyond its format and its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from finetune.export.int8 import Int8Data

Precision = Literal["float32", "float16", "mixed", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
InputType = Literal["float32", "uint8"]
# As ``--batch`` takes it: any number of images at a time.
ANY_BATCH: Literal["any"] = "any"
MAX_BATCH = 1024
# The largest difference allowed of a file that does not store float32, as a share of the prediction's spread.
# float16 changes every weight by up to 5e-4 of its value, so only a broken export can be recognized.
HALF_LIMIT = 0.02
# By how much INT8 may raise AbsRel on a recipe's validation frames.
DEFAULT_TOLERANCE = 0.005
# Fields that only some formats take, as they are called on the command line.
OPTIONS_OF_FORMATS = {"dynamic": "--dynamic", "batch": "--batch", "input_type": "--input", "resize": "--resize"}


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Options of ``finetune export``. A format refuses those that are not for it: see ``Exporter.takes``.

    Attributes:
        image_size: height and width in pixels of the images that the export is made for, if the format needs one size.
        precision: of what is stored, and in formats that describe the computation, of that.
        dynamic: accept inputs of any size, in a format that otherwise accepts one.
        batch: how many images the network takes at a time, or ``any``.
        input_type: ``float32``, normalized, (B, 3, H, W); or ``uint8``, RGB, (B, H, W, 3), which the export normalizes.
        resize: the export resizes images itself, from ``image_size``, and the prediction back to it.
        int8: what precision ``int8`` is made and judged with.
        frames: images, (H, W, 3) uint8 RGB, over which float16 is measured; empty: over those of the check pack.
    """

    image_size: tuple[int, int] = (480, 640)
    precision: Precision = "float32"
    dynamic: bool = False
    batch: int | Literal["any"] = 1
    input_type: InputType = "float32"
    resize: bool = False
    int8: Int8Data | None = None
    frames: Sequence[NDArray[np.uint8]] = field(default=(), compare=False, repr=False)

    @property
    def half(self) -> bool:
        """Whether weights are stored as float16."""
        return self.precision == "float16"


DEFAULTS = ExportOptions()
