import random
from itertools import product

import cv2
import numpy as np
import pytest

from finetune.data.augmentation import Augmentation
from finetune.data.camera import Camera
from tests.synthetic import tilted_plane


def test_mirror_moves_image_depth_valid_and_camera_together() -> None:
    sample = tilted_plane()
    sample.valid[:, :10] = False
    sample.depth_m[:, 40:] = 7.0
    out = Augmentation(flip=1.0, color=0.0)(sample, (0, 1))
    assert np.array_equal(out.image, sample.image[:, ::-1])
    assert np.array_equal(out.depth_m, sample.depth_m[:, ::-1])
    assert np.array_equal(out.valid, sample.valid[:, ::-1])
    assert out.camera == Camera(fx_px=60.0, fy_px=60.0, cx_px=64 - 1 - 30.0, cy_px=25.0)


def test_color_changes_the_image_alone() -> None:
    sample = tilted_plane()
    out = Augmentation(flip=0.0, color=1.0)(sample, (0, 1))
    assert not np.array_equal(out.image, sample.image)
    assert np.array_equal(out.depth_m, sample.depth_m)
    assert np.array_equal(out.valid, sample.valid)
    assert out.camera == sample.camera


def test_the_seed_is_all_the_randomness_there_is() -> None:
    sample, augmentation = tilted_plane(), Augmentation(flip=0.5, color=0.5)
    alone = augmentation(sample, (0, 7)).image
    for k in range(5):
        augmentation(sample, (0, k))
    assert np.array_equal(augmentation(sample, (0, 7)).image, alone)


def test_mirror_and_color_are_drawn_apart() -> None:
    sample, augmentation = tilted_plane(), Augmentation(flip=0.5, color=0.5)
    seen = set()
    for k in range(40):
        out = augmentation(sample, (0, k))
        mirrored = out.camera != sample.camera
        image = out.image[:, ::-1] if mirrored else out.image
        seen.add((mirrored, not np.array_equal(image, sample.image)))
    assert seen == {(False, False), (False, True), (True, False), (True, True)}


def test_one_color_change_does_not_tell_another() -> None:
    # Its hue is 0 whatever brightness, contrast, gamma and saturation do to it, so the shift can be read off.
    sample = tilted_plane()
    sample.image[:] = (150, 90, 90)
    augmentation = Augmentation(flip=0.0, color=1.0)
    hues, values = [], []
    for k in range(200):
        hue, _, value = cv2.cvtColor(augmentation(sample, (0, k)).image, cv2.COLOR_RGB2HSV)[0, 0]
        hues.append((int(hue) + 90) % 180 - 90)
        values.append(int(value))
    assert np.std(hues) > 3
    assert np.std(values) > 15
    # With one seed for all of them it is 0.27; of 200 draws apart the standard deviation is 0.07.
    assert abs(np.corrcoef(hues, values)[0, 1]) < 0.15


def test_color_strength_widens_the_changes_and_an_image_stays_an_image() -> None:
    sample = tilted_plane()
    sample.image[:] = 128
    sample.image[:, 32:] = 100

    def changes(strength: float) -> list[int]:
        augmentation = Augmentation(flip=0.0, color=1.0, color_strength=strength)
        images = [augmentation(sample, (0, k)).image for k in range(60)]
        # Neither black nor white: one can still see where the halves meet.
        assert all(image[0, 0].mean() > image[0, 40].mean() for image in images)
        return [abs(int(image[0, 0].mean()) - 128) for image in images]

    assert max(changes(0.0)) <= 1
    assert np.mean(changes(0.5)) < np.mean(changes(1.0)) < np.mean(changes(2.0)) < np.mean(changes(4.0))


def test_degrade_spoils_the_image_alone() -> None:
    sample, augmentation = tilted_plane(), Augmentation(flip=0.0, color=0.0, degrade=1.0)
    spoiled = [augmentation(sample, (0, k)) for k in range(60)]
    for out in spoiled:
        assert out.image.shape == sample.image.shape
        assert out.image.dtype == np.uint8
        assert np.array_equal(out.depth_m, sample.depth_m)
        assert np.array_equal(out.valid, sample.valid)
        assert out.camera == sample.camera
    assert all(not np.array_equal(out.image, sample.image) for out in spoiled)
    assert len({out.image.tobytes() for out in spoiled}) == 60


def test_mirror_color_and_degrade_are_drawn_apart_and_none_changes_the_draw_of_another() -> None:
    sample = tilted_plane()
    whole = Augmentation(flip=0.5, color=0.5, degrade=0.5)
    without_degrade = Augmentation(flip=0.5, color=0.5)
    parts = [Augmentation(flip=0.5, color=0.0), Augmentation(flip=0.0, color=0.5)]
    parts.append(Augmentation(flip=0.0, color=0.0, degrade=0.5))
    seen = set()
    for k in range(80):
        changed = [not np.array_equal(part(sample, (0, k)).image, sample.image) for part in parts]
        seen.add(tuple(changed))
        out, undegraded = whole(sample, (0, k)), without_degrade(sample, (0, k))
        assert (out.camera != sample.camera) == changed[0]
        assert np.array_equal(out.image, undegraded.image) != changed[2]
    assert seen == set(product([False, True], repeat=3))


@pytest.mark.parametrize("strength", [1.0, 3.0])
def test_the_seed_is_all_the_randomness_there_is_for_strong_changes_too(strength: float) -> None:
    sample = tilted_plane()
    augmentation, again = (Augmentation(flip=0.5, color=1.0, color_strength=strength, degrade=0.8) for _ in range(2))
    forward = [augmentation(sample, (3, k)).image for k in range(30)]
    backward = [again(sample, (3, k)).image for k in reversed(range(30))]
    assert all(np.array_equal(one, other) for one, other in zip(forward, reversed(backward), strict=True))


def test_its_transforms_are_those_of_the_pipeline_called_as_a_whole() -> None:
    sample, augmentation = tilted_plane(), Augmentation(flip=0.5, color=0.7, degrade=0.5)
    pipeline = augmentation._pipeline
    for k in range(12):
        children = np.random.SeedSequence((3, k)).generate_state(len(pipeline.transforms))
        for transform, child in zip(pipeline.transforms, children, strict=True):
            transform.set_random_state(np.random.default_rng(int(child)), random.Random(int(child)))
        whole = pipeline(
            image=sample.image, depth_m=sample.depth_m, valid=sample.valid, keypoints=np.array([[30.0, 25.0]])
        )
        out = augmentation(sample, (3, k))
        assert np.array_equal(out.image, whole["image"]) and np.array_equal(out.depth_m, whole["depth_m"])
        assert out.camera is not None
        assert [out.camera.cx_px, out.camera.cy_px] == whole["keypoints"][0].tolist()


def test_weights_are_mirrored_and_change_no_draw() -> None:
    sample, augmentation = tilted_plane(), Augmentation(flip=1.0, color=1.0, degrade=1.0)
    weight = np.arange(sample.valid.size, dtype=np.float32).reshape(sample.valid.shape)
    plain, weighted = (augmentation(found, (0, 3)) for found in (sample, sample.changed(weight=weight)))
    assert weighted.weight is not None and plain.weight is None
    assert np.array_equal(weighted.weight, weight[:, ::-1])
    assert np.array_equal(weighted.image, plain.image) and np.array_equal(weighted.depth_m, plain.depth_m)
