"""Weights out of this program: written aside, reloaded, compared, and only then given their name."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from finetune import registry
from finetune.errors import FinetuneError, ResultError
from finetune.exporters.comparison import Comparison
from finetune.exporters.exporter import Answer, Exporter
from finetune.paths import is_file, is_folder, make_folder, path_exists
from finetune.readers.files import read_image
from finetune.written_files import disk_faults, finish

if TYPE_CHECKING:
    from finetune.predictor import Predictor

HALF_LIMIT = 0.02  # share of the spread


def export_model(
    predictor: Predictor,
    to: str,
    output: Path,
    image: NDArray[np.uint8] | None = None,
    force: bool = False,
    half: bool = False,
    dynamic: bool = False,
) -> Comparison:
    """
    Write a model in another format, and hold what comes back from the disk against it.

    Args:
        predictor: the model.
        to: a key of ``registry.EXPORTERS``.
        output: the file, or the folder where the format is one; its folder is made.
        image: (H, W, 3) uint8 RGB to compare on, of the size that the format is made for, where it is made for one;
            without it ``usual_image()``.
        force: replace what is there.
        half: store float16; the comparison then says what that costs.
        dynamic: for inputs of any size; ``onnx`` alone.

    Returns:
        The comparison, which is within the limit.

    Raises:
        ResultError: the answers differ, or cannot be compared; nothing was written.
        FinetuneError: there is no such format, it cannot hold this model, or the output cannot be written there.
    """
    image = usual_image() if image is None else image
    exporter = exporter_for(to, output, force, image_size=(image.shape[0], image.shape[1]), half=half, dynamic=dynamic)
    exporter.require_writable(predictor.max_depth_m)
    with disk_faults(output), tempfile.TemporaryDirectory(dir=_nearest_folder(output), prefix=".export-") as aside:
        written = Path(aside, "written", output.name)
        written.parent.mkdir()
        exporter.write(predictor, written)
        comparison = _compared(predictor, exporter.read(written, str(predictor.device)), image, output, to, exporter)
        comparison = replace(comparison, notes=tuple(exporter.conclude(predictor, written, image, comparison)))
        make_folder(output.parent)
        # Set aside before, not replaced one by one: old weights must not stand beside a new description.
        for target in exporter.targets(output):
            if path_exists(target):
                target.replace(Path(aside, target.name))
        for source, target in zip(exporter.targets(written), exporter.targets(output), strict=True):
            finish(source, target)
    return comparison


def exporter_for(
    to: str,
    output: Path,
    force: bool,
    *,
    image_size: tuple[int, int] = (480, 640),
    half: bool = False,
    dynamic: bool = False,
) -> Exporter:
    """
    Returns:
        The exporter of a format, when it may write there.

    Raises:
        FinetuneError: there is no such format, the name is not one of its files, or something is there already.
    """
    if to not in registry.EXPORTERS:
        raise FinetuneError(f"{to} is not a format to export to; expected one of {', '.join(registry.EXPORTERS)}.")
    if dynamic and to != "onnx":
        raise FinetuneError(f"format {to} takes images of any size as it is; --dynamic is for onnx. Leave it out.")
    exporter: Exporter = registry.find(registry.EXPORTERS, to)(image_size=image_size, half=half, dynamic=dynamic)
    if exporter.suffix and (output.suffix != exporter.suffix or is_folder(output)):
        example = output / f"model{exporter.suffix}" if is_folder(output) else Path(f"{output}{exporter.suffix}")
        raise FinetuneError(
            f"{output}: format {to} is a file whose name ends in {exporter.suffix}. Write --output {example}."
        )
    standing = [str(target) for target in exporter.targets(output) if path_exists(target)]
    if standing and not force:
        raise FinetuneError(f"{' and '.join(standing)}: already there. Name another --output, or replace with --force.")
    return exporter


def usual_image() -> NDArray[np.uint8]:
    """(H, W, 3) uint8, RGB: a frame of ``data/room`` where it is there, as in a clone, else ``dead_leaves()``."""
    path = Path(__file__).resolve().parents[1] / "data" / "room" / "color" / "0000.jpg"
    return read_image(path) if is_file(path) else dead_leaves()


def dead_leaves(height: int = 480, width: int = 640, seed: int = 0) -> NDArray[np.uint8]:
    """
    Returns:
        (height, width, 3) uint8, RGB: opaque shaded disks, the number of those larger than r falling with 1 / r^2, so
        that there are edges at every scale, as in photographs. Source: Lee, Mumford, Huang 2001, IJCV 41 (dead leaves).
    """
    generator = np.random.default_rng(seed)
    picture = np.full((height, width, 3), 128, np.uint8)
    smallest, largest = 4.0, 200.0
    for share in generator.uniform(size=4000):
        # The inverse of the distribution function of density r^-3 between the two radii.
        radius = (smallest**-2 - share * (smallest**-2 - largest**-2)) ** -0.5
        center = generator.integers((0, 0), (width, height))
        color = generator.integers(20, 236) + generator.integers(-20, 20, 3)
        cv2.circle(picture, center.tolist(), round(radius), np.clip(color, 0, 255).tolist(), cv2.FILLED, cv2.LINE_AA)
    shading = np.linspace(0.6, 1.0, height)[:, None, None]
    return np.asarray(picture * shading, dtype=np.uint8)


def _compared(
    predictor: Predictor, reloaded: Answer, image: NDArray[np.uint8], output: Path, to: str, exporter: Exporter
) -> Comparison:
    """
    Raises:
        ResultError: beyond the limit, or an answer that says nothing.
    """
    own = predictor.predict(image).astype(np.float64)
    spread = float(own.max() - own.min())
    if not spread > 0:
        raise ResultError(
            f"{predictor.source}: it answers {own.flat[0]:g} at every pixel of the image, so a comparison would prove "
            "nothing and nothing was exported. Compare on another --image, or train it."
        )
    other = reloaded(image)
    assert other.shape == own.shape
    difference = np.abs(other - own)
    toward = own if predictor.kind == "metric" else -own
    near = toward <= np.median(toward)
    comparison = Comparison(
        output=output,
        to=to,
        image_size=own.shape[:2],
        largest=float(difference.max()),
        mean=float(difference.mean()),
        near=_largest_and_mean(difference[near]),
        far=_largest_and_mean(difference[~near]),
        spread=spread,
        # In half precision every weight is off by up to 5e-4 of itself, so only what is broken can be told from it.
        limit=max(exporter.limit, HALF_LIMIT) if exporter.half else exporter.limit,
        unit="m" if predictor.kind == "metric" else "inverse depth",
        stored_as="float16" if exporter.half else "float32",
    )
    if not comparison.acceptable:
        raise ResultError(
            f"{comparison}. It was not kept: what comes out is not what went in. Report it with this line."
        )
    return comparison


def _largest_and_mean(difference: NDArray[np.float64]) -> tuple[float, float]:
    """0 of no pixel: where half of the image or more has one depth, nothing is farther than the median."""
    return (float(difference.max()), float(difference.mean())) if difference.size else (0.0, 0.0)


def _nearest_folder(output: Path) -> Path:
    """Where the output's folder is or will be: a rename is whole or nothing only within one file system."""
    return next(parent for parent in output.absolute().parents if path_exists(parent))
