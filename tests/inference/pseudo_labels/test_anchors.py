"""Anchoring of labels: a drawn teacher's known error comes back, from measured points and from a metric map."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from finetune.data.reader import Reader
from finetune.data.readers.scenes import Scenes
from finetune.data.sample import DepthSample
from finetune.inference.anchoring import AnchoringOptions, AnchoringRefused
from finetune.inference.inputs import Input
from finetune.inference.pseudo_labels.anchors import (
    MAX_POINTS,
    MeasuredFrames,
    SparseAnchor,
    anchor_to_map,
)
from finetune.inference.pseudo_labels.teacher import Anchored
from finetune.utils.errors import FinetuneError

SCALE, SHIFT = 0.02, 0.05
FRAMES = range(3)


@lru_cache
def draw_scene(index: int) -> DepthSample:
    """A room with furniture, and its exact depth."""
    return Scenes(seed=3, size=(96, 128), objects=(3, 6))[index]


def smooth_field(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """A factor on inverse depth from 0.8 to 1.25."""
    row, column = np.indices(shape)
    return np.asarray(np.exp(0.22 * np.sin(np.pi * row / shape[0]) * np.cos(np.pi * column / shape[1])))


def teach(depth_m: NDArray[np.floating], field: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """What a teacher sees whose error is this scale, this shift and this field."""
    return np.asarray((field / depth_m.astype(np.float64) - SHIFT) / SCALE)


class Frames(Reader):
    """Frames with given depth at some pixels."""

    def __init__(self, samples: Sequence[DepthSample], *, with_files: bool = True) -> None:
        self.samples = samples
        self.with_files = with_files

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> DepthSample:
        return self.samples[index]

    def files(self, index: int) -> tuple[str, str] | None:
        return (f"/in/{index}.png", f"/depth/{index}.png") if self.with_files else None


def measure(sample: DepthSample, count: int, wrong_share: float, seed: int = 0) -> DepthSample:
    """The sample with this many measured pixels, some of them wrong by a third and more."""
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(sample.depth_m.size)[:count]
    depth_m = sample.depth_m.copy().ravel()
    wrong = chosen[: round(wrong_share * count)]
    depth_m[wrong] *= np.exp(rng.choice([-1, 1], len(wrong)) * rng.uniform(0.3, 1.5, len(wrong)))
    valid = np.zeros(depth_m.size, bool)
    valid[chosen] = True
    return sample.changed(depth_m=depth_m.reshape(sample.depth_m.shape), valid=valid.reshape(sample.depth_m.shape))


def anchor_first(sample: DepthSample, inverse: NDArray[np.float64]) -> Anchored:
    frames = MeasuredFrames.index([Frames([sample])], "data.train")
    anchor = SparseAnchor(frames=frames, options=AnchoringOptions())
    return anchor.anchor(Input(path=Path("/in/0.png")), sample.image, inverse)


@pytest.mark.parametrize("index", FRAMES)
@pytest.mark.parametrize("count", [200, 1200])
def test_scale_shift_field_and_wrong_points_of_a_drawn_scene_come_back(index: int, count: int) -> None:
    scene = draw_scene(index)
    inverse = teach(scene.depth_m, smooth_field(scene.depth_m.shape))
    found = anchor_first(measure(scene, count, 0.1), inverse)
    error = np.abs(found.depth_m / scene.depth_m - 1)
    unanchored = np.abs(scene.depth_m * np.median(1 / scene.depth_m / inverse) * inverse - 1)
    assert unanchored.mean() > 0.05
    sure = found.valid & (found.doubt == 0)
    assert sure.mean() > 0.5
    assert error[sure].mean() < 0.01
    # Elsewhere the label is a guess, and is no farther off than it says.
    guessed = found.valid & ~sure
    assert guessed.any() and (found.doubt[guessed] >= 0.1).all()
    assert error[guessed].mean() < found.doubt[guessed].mean()
    assert found.inlier_share == pytest.approx(0.9, abs=0.03) and found.residual < 0.01


@pytest.mark.parametrize("index", FRAMES)
def test_scale_and_shift_of_a_drawn_scene_come_back_from_a_metric_map_that_is_wrong_in_places(index: int) -> None:
    scene = draw_scene(index)
    depths_m = scene.depth_m.astype(np.float64).ravel()
    rng = np.random.default_rng(index)
    wrong = rng.permutation(depths_m.size)[: depths_m.size // 10]
    depths_m[wrong] *= np.exp(rng.uniform(0.3, 1.5, len(wrong)))
    target_m = depths_m.reshape(scene.depth_m.shape)
    found = anchor_to_map(teach(scene.depth_m, 1.0), target_m, np.ones(target_m.shape, bool), AnchoringOptions())
    assert found.fit.scale == pytest.approx(SCALE, rel=0.01) and found.fit.shift == pytest.approx(SHIFT, rel=0.01)
    assert found.valid.all() and np.abs(found.depth_m / scene.depth_m - 1).max() < 0.01
    assert found.inlier_share == pytest.approx(0.9, abs=0.001) and found.residual < 1e-3


def test_degenerate_frames_are_refused_by_measured_points() -> None:
    scene = draw_scene(0)
    inverse = teach(scene.depth_m, 1.0)
    flat = scene.changed(depth_m=np.full_like(scene.depth_m, 3.0))
    noise = np.exp(np.random.default_rng(0).uniform(0, 3, scene.depth_m.shape)).astype(np.float32)
    for sample, teacher, reason in (
        (measure(scene, 0, 0.0), inverse, "it has no point, and 30 are the least"),
        (measure(scene, 29, 0.0), inverse, "it has 29 points"),
        (measure(flat, 300, 0.0), inverse, "its points have one depth"),
        (measure(scene.changed(depth_m=noise), 400, 0.0), inverse, "agree with|not nearer"),
        (measure(scene, 400, 0.0), -inverse, "its points are not nearer where the model sees something nearer"),
        (measure(scene, 400, 0.0), np.ones_like(inverse), "its points are not nearer"),
    ):
        with pytest.raises(AnchoringRefused, match=reason):
            anchor_first(sample, teacher)


def test_degenerate_frames_are_refused_by_a_metric_map() -> None:
    scene = draw_scene(0)
    inverse, everywhere = teach(scene.depth_m, 1.0), np.ones(scene.depth_m.shape, bool)
    noise = np.exp(np.random.default_rng(0).uniform(0, 3, scene.depth_m.shape))
    for teacher, target_m, usable, reason in (
        (inverse, scene.depth_m, ~everywhere, "it has no point"),
        (inverse, np.full_like(scene.depth_m, 3.0), everywhere, "one depth"),
        (-inverse, scene.depth_m, everywhere, "does not see nearer what the teacher sees nearer"),
        (inverse, noise, everywhere, "agree in .*% of its pixels|does not see nearer"),
    ):
        with pytest.raises(AnchoringRefused, match=reason):
            anchor_to_map(teacher, target_m, usable, AnchoringOptions())


def test_what_is_far_beyond_the_metric_map_has_no_label() -> None:
    depth_m = np.geomspace(1.0, 100.0, 400).reshape(20, 20)
    usable = depth_m < 10.0  # the metric model ends there
    found = anchor_to_map(teach(depth_m, 1.0), np.minimum(depth_m, 10.0), usable, AnchoringOptions())
    # exp(0.3) = 1.35 times the farthest usable depth, which is the 200th: 9.942 m.
    assert found.valid[depth_m < 13.4].all() and not found.valid[depth_m > 13.5].any()
    assert np.abs(found.depth_m / depth_m - 1)[found.valid].max() < 1e-4


def test_points_are_those_of_the_image_at_its_size() -> None:
    scene = draw_scene(0)
    sky = scene.depth_m.copy()
    sky[:3] = np.inf
    frames = MeasuredFrames.index([Frames([scene.changed(depth_m=sky)])], "data.train of recipe.yaml")
    rows, columns, points_m = frames.points(Path("/in/../in/0.png"), scene.depth_m.shape)
    assert len(rows) == 93 * 128 and rows.min() == 3
    assert (points_m == scene.depth_m[rows, columns]).all()
    with pytest.raises(AnchoringRefused, match=r"no frame of data\.train of recipe\.yaml has this image"):
        frames.points(Path("/in/1.png"), scene.depth_m.shape)
    with pytest.raises(AnchoringRefused, match="its measured depth is 96x128, and the image is 96x129"):
        frames.points(Path("/in/0.png"), (96, 129))
    with pytest.raises(FinetuneError, match="frames of its entry 1 have no image files"):
        MeasuredFrames.index([Frames([scene]), Frames([scene], with_files=False)], "data.train")


def test_more_points_than_are_needed_are_thinned_evenly() -> None:
    scene = draw_scene(0)
    large = scene.changed(
        image=np.tile(scene.image, (2, 2, 1)), depth_m=np.tile(scene.depth_m, (2, 2)), valid=np.ones((192, 256), bool)
    )
    rows, columns, _ = MeasuredFrames.index([Frames([large])], "x").points(Path("/in/0.png"), (192, 256))
    assert len(rows) == MAX_POINTS and (rows[0], columns[0]) == (0, 0) and (rows[-1], columns[-1]) == (191, 255)
    assert np.diff(rows * 256 + columns).max() <= 3
