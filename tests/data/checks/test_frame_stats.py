import dataclasses

import numpy as np
import pytest

from finetune.data.checks.frame_stats import collect_facts, hash_image
from tests.synthetic import tilted_plane


def test_numbers_of_a_plane() -> None:
    facts = collect_facts(tilted_plane(near_m=1.0, far_m=4.0))
    assert facts.size == (48, 64)
    assert facts.focal_px == 60.0
    assert facts.valid_share == 1.0
    assert (facts.depth_m.min(), facts.depth_m.max()) == (1.0, 4.0)
    assert facts.most_share == pytest.approx(1 / 48)  # the top row
    assert not facts.constant and not facts.has_code


def test_a_value_far_from_all_others_is_a_code_and_no_surface() -> None:
    plane = tilted_plane(near_m=1.0, far_m=4.0)
    depth_m = plane.depth_m.copy()
    depth_m[:24, :32] = 65.535
    coded = collect_facts(dataclasses.replace(plane, depth_m=depth_m))
    assert coded.has_code
    assert (coded.most_m, coded.next_m) == (pytest.approx(65.535), 4.0)
    assert coded.edges is None  # the rim of the code is no edge of depth
    depth_m[:24, :32] = 5.9  # within half as far again
    assert not collect_facts(dataclasses.replace(plane, depth_m=depth_m)).has_code


def test_one_depth_everywhere_is_constant() -> None:
    plane = tilted_plane()
    assert collect_facts(dataclasses.replace(plane, depth_m=np.full_like(plane.depth_m, 2.0))).constant
    nothing = collect_facts(dataclasses.replace(plane, valid=np.zeros_like(plane.valid)))
    assert not nothing.constant
    assert (nothing.valid_share, nothing.depth_m.size) == (0.0, 0)


def test_images_that_look_alike_have_nearly_the_same_bits() -> None:
    generator = np.random.default_rng(0)
    coarse = generator.uniform(0, 255, (12, 16, 3))
    image = coarse.repeat(20, 0).repeat(20, 1)
    noisy = np.clip(image * 0.9 + generator.normal(0, 4, image.shape), 0, 255)
    other = generator.uniform(0, 255, (12, 16, 3)).repeat(20, 0).repeat(20, 1)
    bits = [hash_image(one.astype(np.uint8)) for one in (image, noisy, other)]
    assert bits[0].shape == (256,)
    assert np.count_nonzero(bits[0] != bits[1]) <= 12 < 60 < np.count_nonzero(bits[0] != bits[2])
