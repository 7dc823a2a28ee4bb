from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune.data.augmentation import Augmentation
from finetune.data.preprocessing import Preprocessing
from finetune.data.strong_augmentation import MAX_PASTED, MIN_PASTED, Box, StrongAugmentation, draw_box, paste_box
from finetune.data.training_dataset import DepthRangePolicy, StrongChanges, TrainingSamples
from finetune.recipe.load import load_recipe
from finetune.utils.errors import RecipeFaults
from tests.conftest import ROOT
from tests.synthetic import Planes, tilted_plane


def samples(cutmix: float = 0.0, color: float = 0.0, blur: float = 0.0, *, strong: bool = True) -> TrainingSamples:
    """Two entries of drawn planes, the second of them labeled by a teacher."""
    changes = StrongChanges(change=StrongAugmentation(color=color, blur=blur), cutmix=cutmix, entries=frozenset({1}))
    return TrainingSamples(
        [Planes(5), Planes(7)],
        [1.0, 1.0],
        preprocessing=Preprocessing(input_size=(28, 42)),
        augmentation=Augmentation(flip=0.5, color=0.5),
        ranges=[DepthRangePolicy(max_depth_m=10.0)] * 2,
        seed=3,
        strong=changes if strong else None,
    )


def test_only_what_a_teacher_labeled_changes_and_only_its_image() -> None:
    plain, changed = samples(strong=False), samples(color=1.0, blur=1.0)
    seen = set()
    for k in range(12):
        before, after = plain[k], changed[k]
        same = np.array_equal(before.sample.image, after.sample.image)
        seen.add((after.entry, same))
        np.testing.assert_array_equal(before.sample.depth_m, after.sample.depth_m)
        np.testing.assert_array_equal(before.sample.valid, after.sample.valid)
        assert after.pasted is None
    assert seen == {(0, True), (1, False)}


def test_off_is_as_without() -> None:
    for k in range(8):
        before, after = samples(strong=False)[k], samples()[k]
        np.testing.assert_array_equal(before.sample.image, after.sample.image)
        assert (before.sample.source, before.pasted) == (after.sample.source, after.pasted)


def test_a_cutmix_sample_is_two_frames_of_one_entry_with_the_depth_of_both() -> None:
    plain, mixed = samples(strong=False), samples(cutmix=1.0)
    others = set()
    for k in range(30):
        before, after = plain[k].sample, mixed[k]
        if after.entry == 0:
            assert after.pasted is None
            continue
        assert after.pasted is not None
        top, left, height, width = after.pasted
        inside = np.zeros(before.valid.shape, np.bool_)
        inside[top : top + height, left : left + width] = True
        assert MIN_PASTED - 0.05 <= inside.mean() <= MAX_PASTED + 0.05
        np.testing.assert_array_equal(after.sample.image[~inside], before.image[~inside])
        np.testing.assert_array_equal(after.sample.depth_m[~inside], before.depth_m[~inside])
        first, _, other = after.sample.source.partition(" with a part of ")
        assert first == before.source
        others.add((first, other))
    assert len(others) > 5


def test_a_sample_is_a_function_of_seed_and_k_alone() -> None:
    alone = samples(cutmix=0.5, color=0.8, blur=0.5)
    wanted = [k for k in range(20) if alone[k].pasted is not None]
    together = samples(cutmix=0.5, color=0.8, blur=0.5).__getitems__(list(range(20)))
    assert 2 < len(wanted) < 15
    for k in wanted:
        again = alone[k]
        np.testing.assert_array_equal(together[k].sample.image, again.sample.image)
        np.testing.assert_array_equal(together[k].sample.depth_m, again.sample.depth_m)
        assert together[k].pasted == again.pasted


def test_boxes_and_weights_by_hand() -> None:
    sample = tilted_plane()
    weight = np.full(sample.valid.shape, 0.25, np.float32)
    mixed = paste_box(sample, sample.changed(weight=weight), Box(2, 3, 4, 5))
    assert mixed.weight is not None
    assert (mixed.weight[2:6, 3:8] == 0.25).all()
    assert mixed.weight.sum() == pytest.approx(sample.valid.size - 20 * 0.75)
    assert sample.weight is None
    rng = np.random.default_rng(0)
    boxes = [draw_box(28, 42, rng) for _ in range(200)]
    assert all(box.top + box.height <= 28 and box.left + box.width <= 42 for box in boxes)
    shares = [box.height * box.width / (28 * 42) for box in boxes]
    assert min(shares) < 0.15 < 0.45 < max(shares)


def test_strong_without_a_teachers_labels_is_refused(tmp_path: Path) -> None:
    said = r"augment\.strong is .*; expected 0 for color, blur and cutmix, since no entry of data\.train has a teacher"
    recipe: Any = ROOT / "recipes/room_tiny.yaml"
    with pytest.raises(RecipeFaults, match=said):
        load_recipe(recipe, ("augment.strong.cutmix=0.5", f"output={tmp_path}"))
