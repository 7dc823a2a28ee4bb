"""What a network predicts: depth in meters, or inverse depth without a unit."""

from __future__ import annotations

from typing import Literal

Kind = Literal["metric", "relative"]
# The same as an option, where auto means: take it from the weights file.
KindOption = Literal["auto", "relative", "metric"]
