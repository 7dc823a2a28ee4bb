"""The lenses of a recipe's data, the canonical camera of a run, and how far its head must reach."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from finetune.data.lenses import MIXED
from finetune.data.preprocessing import Preprocessing
from finetune.data.reader import Reader, try_read
from finetune.data.sample import DepthSample
from finetune.models.checkpoints.load import Checkpoint
from finetune.models.training_camera import TrainingCamera
from finetune.recipe.schema import DataEntry, Recipe
from finetune.training.head_init import resolve_decoder_init
from finetune.utils.errors import CheckpointError, FinetuneError
from finetune.utils.indices import evenly_spread

# Frames of an entry that are read for their cameras; without canonical labels a few will do.
_FRAMES, _FEW_FRAMES = 64, 8
# What is told apart from rounding.
_TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True)
class EntryLens:
    """The focal lengths of an entry, at the network's size, pixels.

    Attributes:
        focals_px: one a frame looked at.
        weight: of the entry.
        trains: it is one of ``data.train``.
        without: the first frame looked at that has no camera; None where all have one.
        least_zoom: the smallest zoom that a frame looked at allows.
    """

    focals_px: tuple[float, ...]
    weight: float
    trains: bool
    without: str | None
    least_zoom: float


@dataclass(frozen=True, kw_only=True)
class RunCamera:
    """What a run learns depth for.

    Attributes:
        camera: what the weights file says; None where no training frame has a camera.
        head_max_depth_m: the largest depth that the head predicts, meters, canonical where the camera is; None for a
            relative head.
        notes, warnings: sentences for whoever starts a run.
    """

    camera: TrainingCamera | None
    head_max_depth_m: float | None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def canonical(self) -> TrainingCamera | None:
        """The camera, if it is canonical."""
        return self.camera if self.camera is not None and self.camera.is_canonical else None


UNKNOWN = RunCamera(camera=None, head_max_depth_m=None)


def make_run_camera(
    recipe: Recipe, preprocessing: Preprocessing, checkpoint: Checkpoint | None, *, trains: bool = True
) -> RunCamera:
    """
    Look at the cameras of the data, and find the canonical one if the recipe asks for it.

    Args:
        recipe: as read.
        preprocessing: of the run.
        checkpoint: None if every weight is drawn.
        trains: False for an evaluation, whose ``data.val`` may go without cameras here.

    Raises:
        FinetuneError: labels are to be canonical and an entry has no intrinsics, or the head that is kept ends before
            the range of an entry.
        CheckpointError: weights that are all kept are of another mode or canonical camera than the recipe's.
    """
    kept = checkpoint if resolve_decoder_init(recipe.model, checkpoint) == "keep" else None
    if kept is not None:
        _require_camera_of_base(recipe, kept)
    if recipe.data.camera.mode == "canonical":
        lenses = survey_lenses(recipe, preprocessing, _FRAMES)
        _require_cameras(recipe, {key: lens for key, lens in lenses.items() if trains or lens.trains})
        return _make_canonical(recipe, {key: lens for key, lens in lenses.items() if lens.focals_px}, kept)
    head_max_depth_m = recipe.model.head_max_depth_m
    if head_max_depth_m is None:
        return RunCamera(camera=None, head_max_depth_m=None)
    lenses = survey_lenses(recipe, preprocessing, _FEW_FRAMES, parts=("train",))
    trained = [focal_px for lens in lenses.values() for focal_px in lens.focals_px]
    camera = None
    if trained:
        camera = TrainingCamera(
            mode="none",
            focal_px=_find_median_px(lenses.values()),
            seen_px=(min(trained), max(trained)),
            zoom=recipe.augment.zoom,
            max_depth_m=head_max_depth_m,
        )
    return RunCamera(
        camera=camera, head_max_depth_m=head_max_depth_m, warnings=tuple(_warn_of_zoom(recipe, lenses.values()))
    )


def survey_lenses(
    recipe: Recipe, preprocessing: Preprocessing, frames: int, parts: Sequence[str] = ("train", "val")
) -> dict[str, EntryLens]:
    """Key such as ``data.train.0`` -> the cameras of its frames. A frame that cannot be read is left out."""
    listed = {"train": recipe.data.train, "val": recipe.data.val}
    keyed = {f"data.{part}.{i}": entry for part in parts for i, entry in enumerate(listed[part])}
    return {key: _look_at_entry(key, entry, preprocessing, frames) for key, entry in keyed.items()}


def _look_at_entry(key: str, entry: DataEntry, preprocessing: Preprocessing, frames: int) -> EntryLens:
    focals_px, without, least_zoom = [], None, 1.0
    for index in evenly_spread(len(entry.source), frames):
        sample = try_read(entry.source, index)
        if not isinstance(sample, DepthSample):
            continue
        least_zoom = min(least_zoom, preprocessing.least_zoom(*sample.depth_m.shape))
        if sample.camera is None:
            without = without or sample.source
            continue
        focals_px.append(preprocessing.focal_px(sample.camera, *sample.depth_m.shape))
    return EntryLens(
        focals_px=tuple(focals_px),
        weight=entry.weight,
        trains=key.startswith("data.train."),
        without=without,
        least_zoom=least_zoom,
    )


def _require_cameras(recipe: Recipe, lenses: Mapping[str, EntryLens]) -> None:
    """
    Raises:
        FinetuneError: a frame of an entry has no camera; says how its reader takes one.
    """
    for key, lens in lenses.items():
        if lens.without is None and lens.focals_px:
            continue
        _, part, number = key.split(".")
        reader = (recipe.data.train if part == "train" else recipe.data.val)[int(number)].source
        raise FinetuneError(
            f"{recipe.where(key)}: {lens.without or key} has no intrinsics, and data.camera.mode is canonical "
            f"({recipe.where('data.camera.mode')}). {_ways_to_give(key, reader)}, or set data.camera.mode: none."
        )


def _ways_to_give(key: str, reader: Reader) -> str:
    if reader.has_option("intrinsics"):
        return (
            f"Give {key}.intrinsics: a JSON file with width, height, fx, fy, cx, cy in pixels, one such object for "
            "each image, or list for four columns fx, fy, cx, cy after the two paths"
        )
    return f"Read {key} by pairs with intrinsics: a JSON file with width, height, fx, fy, cx, cy in pixels"


def _require_camera_of_base(recipe: Recipe, base: Checkpoint) -> None:
    """
    Raises:
        CheckpointError: every weight is kept, and the recipe's labels are of another camera.
    """
    keys, where, camera = recipe.data.camera, recipe.where("data.camera"), base.camera
    if camera is None:
        return
    if camera.is_canonical and keys.mode == "none":
        raise CheckpointError(
            base.source,
            f"predicts meters of a canonical camera of {camera.focal_px:.4g} px, and data.camera.mode is none",
            f"Set data.camera.mode: canonical, or model.decoder_init: calibrated for the lens of your data ({where})",
        )
    if keys.mode == "canonical" and keys.focal_px != "auto" and abs(keys.focal_px / camera.focal_px - 1) > 1e-4:
        raise CheckpointError(
            base.source,
            f"predicts meters of a camera of {camera.focal_px:.6g} px, and data.camera.focal_px is {keys.focal_px:g}, "
            f"which would scale every prediction by {keys.focal_px / camera.focal_px:.3g}",
            f"Set data.camera.focal_px: auto, or model.decoder_init: calibrated ({where})",
        )


def _make_canonical(recipe: Recipe, lenses: Mapping[str, EntryLens], kept: Checkpoint | None) -> RunCamera:
    """
    Args:
        lenses: of the entries that have cameras.
        kept: the checkpoint, if every weight of it is kept.

    Raises:
        FinetuneError: the head is kept, and ends before the range of an entry.
    """
    wanted = recipe.data.camera.focal_px
    if wanted == "auto":
        known = kept.camera if kept else None
        wanted = known.focal_px if known else _find_median_px(lenses.values())
    max_depth_m = recipe.model.max_depth_m
    assert max_depth_m is not None, "a metric head has one"
    nearest_px = {
        key: min(lens.focals_px) * (_find_least_zoom(recipe, lens) if lens.trains else 1.0)
        for key, lens in lenses.items()
    }
    trained = [lens for lens in lenses.values() if lens.trains]
    seen_px = (
        min(min(lens.focals_px) * _find_least_zoom(recipe, lens) for lens in trained),
        max(max(lens.focals_px) for lens in trained) * max(1.0, recipe.augment.zoom[1]),
    )
    head_max_depth_m = max_depth_m * wanted / min(nearest_px.values())
    if kept is not None and kept.activation == "sigmoid" and recipe.model.on_max_depth != "rescale":
        head_max_depth_m = _keep_head(recipe, kept, wanted, nearest_px)
    camera = TrainingCamera(
        mode="canonical", focal_px=wanted, seen_px=seen_px, zoom=recipe.augment.zoom, max_depth_m=max_depth_m
    )
    ends = (
        f"the head ends at {head_max_depth_m:.4g} m of the canonical lens"
        if recipe.model.activation == "sigmoid"
        else f"which is {head_max_depth_m:.4g} m of the canonical lens"
    )
    note = (
        f"data.camera canonical: labels are scaled to one lens of {wanted:.0f} px at the network's size, and "
        f"{camera.seen} are seen; model.max_depth_m {max_depth_m:g} is in meters of your cameras, {ends}"
    )
    return RunCamera(
        camera=camera,
        head_max_depth_m=head_max_depth_m,
        notes=(note,),
        warnings=(*_warn_of_zoom(recipe, lenses.values()), *_warn_of_one_lens(recipe, camera)),
    )


def _keep_head(recipe: Recipe, kept: Checkpoint, focal_px: float, nearest_px: Mapping[str, float]) -> float:
    """
    The max depth of a head that is kept.

    Raises:
        FinetuneError: an entry reaches farther; says the number to write.
    """
    assert kept.max_depth_m is not None and recipe.model.max_depth_m is not None
    key = min(nearest_px, key=lambda key: nearest_px[key])
    needed_m = recipe.model.max_depth_m * focal_px / nearest_px[key]
    if needed_m > kept.max_depth_m * (1 + _TOLERANCE):
        fitting_m = math.floor(1000 * kept.max_depth_m * nearest_px[key] / focal_px) / 1000
        raise FinetuneError(
            f"{recipe.where('model.max_depth_m')}: model.max_depth_m {recipe.model.max_depth_m:g} is {needed_m:.4g} m "
            f"of the canonical lens for {key}, whose focal length at the network's size is {nearest_px[key]:.0f} px "
            f"against {focal_px:.0f}, and the head of {kept.source} ends at {kept.max_depth_m:g} m. Set "
            f"model.max_depth_m: {fitting_m:g}, or model.decoder_init: calibrated for a head that reaches farther."
        )
    return kept.max_depth_m


def _find_least_zoom(recipe: Recipe, lens: EntryLens) -> float:
    """The smallest zoom of a training frame: that of the recipe, as far as the frames fill the window."""
    return max(recipe.augment.zoom[0], lens.least_zoom)


def _find_median_px(lenses: Iterable[EntryLens]) -> float:
    """The median focal length of training, each entry counting by its weight."""
    counted = sorted(
        (focal_px, lens.weight / len(lens.focals_px)) for lens in lenses if lens.trains for focal_px in lens.focals_px
    )
    shares = list(accumulate(weight for _, weight in counted))
    # The mean of the two in the middle, as of an even count.
    low, high = (
        next(i for i, share in enumerate(shares) if share >= shares[-1] / 2 * (1 + off)) for off in (-1e-9, 1e-9)
    )
    return (counted[low][0] + counted[high][0]) / 2


def _warn_of_zoom(recipe: Recipe, lenses: Iterable[EntryLens]) -> Iterator[str]:
    least, most = recipe.augment.zoom
    trained = [lens for lens in lenses if lens.trains]
    if least < 1.0 and all(_find_least_zoom(recipe, lens) == 1.0 for lens in trained):
        yield (
            f"augment.zoom [{least:g}, {most:g}]: no frame is larger than data.input_size in both directions, so no "
            "zoom below 1 is drawn, and those below become 1"
        )
    if (least, most) != (1.0, 1.0) and recipe.data.camera.mode == "none" and recipe.model.head == "metric":
        yield (
            "augment.zoom without data.camera.mode canonical teaches that a zoomed frame shows a nearer scene (depth "
            "divided by the zoom): right for the lens of your data, wrong for another"
        )


def _warn_of_one_lens(recipe: Recipe, camera: TrainingCamera) -> Iterator[str]:
    if camera.seen_px is not None and camera.seen_px[1] < MIXED * camera.seen_px[0]:
        yield (
            f"data.camera canonical with one lens ({camera.seen}) and no zoom: one lens cannot teach how depth changes "
            "with it, and predictions for another get worse (a trial went from AbsRel .175 to .326). Set augment.zoom: "
            "[1.0, 1.6], add frames of other lenses, or set data.camera.mode: none"
        )
