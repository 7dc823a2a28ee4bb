import numpy as np

from finetune.augment import Augmentation
from finetune.camera import Camera
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
