"""What a network predicts: meters, inverse depth without a unit, or depth without a unit."""

from __future__ import annotations

from typing import Literal

# relative is the inverse depth of Depth Anything V1 and V2, which rises as things come nearer; relative_depth is the
# depth of Depth Anything 3, which rises with distance. Both are known up to a scale and a shift only.
Kind = Literal["metric", "relative", "relative_depth"]
# The same as an option, where auto means: take it from the weights file.
KindOption = Literal["auto", "relative", "metric", "relative_depth"]
# What the head does to the last layer's output.
Activation = Literal["relu", "sigmoid", "exp"]

IN_WORDS: dict[Kind, str] = {
    "metric": "depth in meters",
    "relative": "inverse depth",
    "relative_depth": "relative depth",
}


def unit_of(kind: Kind) -> str:
    """The unit of predictions: ``m``, or the name of a quantity that has none."""
    return "m" if kind == "metric" else IN_WORDS[kind]


def rises_with_distance(kind: Kind) -> bool:
    """Whether a larger number is farther; for inverse depth it is nearer."""
    return kind != "relative"
