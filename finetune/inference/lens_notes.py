"""What a lens means for the predictions of a model that was trained with others."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from finetune.data.lenses import MIXED
from finetune.models.training_camera import TrainingCamera

if TYPE_CHECKING:
    from finetune.evaluation.results import ScoredImage

# Two numbers that are nearer than this are called the same.
_ROUNDING = 1e-3


class LensModel(Protocol):
    """What of a network tells its lenses; an exported file has it too."""

    @property
    def camera(self) -> TrainingCamera | None:
        """The focal lengths of the training; None where they are not known."""
        ...

    @property
    def max_depth_m(self) -> float | None:
        """Of the head; None for a relative model."""
        ...

    @property
    def end_m(self) -> float | None:
        """The largest depth that it can predict, meters; None where there is no end."""
        ...


def explain_lens(network: LensModel, focal_px: float) -> Iterator[str]:
    """
    Args:
        network: of the model.
        focal_px: of an image at the network's size, pixels.

    Yields:
        Clauses about what to expect, for the lens as their subject, without a full stop: none where all is well.
    """
    camera = network.camera
    if camera is None or network.max_depth_m is None:
        return
    if camera.is_canonical:
        if camera.is_far(focal_px):
            yield (
                f"is {focal_px:.0f} px at the network's size, more than 25 % outside of the {camera.seen} of the "
                "training: expect larger errors"
            )
        end_m = math.inf if network.end_m is None else network.end_m * camera.meters_factor(focal_px)
        if camera.max_depth_m is not None and end_m < camera.max_depth_m * (1 - _ROUNDING):
            yield (
                f"is {focal_px:.0f} px at the network's size, where predictions end at {end_m:.3g} m, nearer than the "
                f"max_depth_m {camera.max_depth_m:g} of the recipe: what is farther comes out too near"
            )
        return
    if camera.seen_px is None:
        return
    least_px, most_px = camera.seen_px
    if least_px / MIXED <= focal_px <= most_px * MIXED:
        return
    ratio = focal_px / camera.focal_px
    zoom = "" if camera.zoom == (1.0, 1.0) else "; its zoom taught depth divided by the zoom, which is wrong for a lens"
    yield (
        f"is {focal_px:.0f} px at the network's size, and the model was trained for {camera.seen} with "
        f"data.camera.mode none: expect predictions of about {1 / ratio:.2f} times the true depth{zoom}. Calibrate it, "
        "or train with data.camera.mode: canonical"
    )


def lens_warnings(network: LensModel, images: Sequence[ScoredImage]) -> Iterator[str]:
    """One warning of each kind about the lenses of scored images, with the number of images."""
    found: dict[str, list[str]] = {}
    for image in images:
        for clause in explain_lens(network, image.focal_px) if image.focal_px else ():
            found.setdefault(kind_of_clause(clause), []).append(clause)
    for clauses in found.values():
        yield f"warning: {len(clauses)} of {len(images)} images: the focal length {clauses[0]}"


def kind_of_clause(clause: str) -> str:
    """A word that clauses share which differ in their numbers alone."""
    return clause.partition("size, ")[2].partition(" ")[0]
