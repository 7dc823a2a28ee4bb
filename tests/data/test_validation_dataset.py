"""Every validation frame once, as the network sees it and as it was measured."""

import numpy as np
import pytest

from finetune.data.preprocessing import Preprocessing
from finetune.data.validation_dataset import ValidationSamples
from finetune.utils.errors import DataError
from tests.synthetic import Planes

SMALL = Preprocessing(input_size=(28, 42))


def test_frames_of_all_readers_follow_each_other() -> None:
    samples = ValidationSamples([Planes(3), Planes(2, "other")], SMALL)
    assert len(samples) == 5
    assert (samples.entries, samples.names) == (2, ["data.val.0", "data.val.1"])
    assert [samples.locate(index) for index in range(5)] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    assert [samples[index].sample.source for index in range(5)] == [
        "plane#0",
        "plane#1",
        "plane#2",
        "other#0",
        "other#1",
    ]
    assert [samples[index].number for index in range(5)] == list(range(5))


def test_a_frame_comes_as_the_network_sees_it_and_as_it_was_measured() -> None:
    reader = Planes(1)
    found = ValidationSamples([reader], SMALL)[0]
    assert list(found.views) == ["none"]
    np.testing.assert_array_equal(found.image[0].numpy(), SMALL(reader[0].image))
    np.testing.assert_array_equal(found.sample.depth_m, reader[0].depth_m)
    assert found.image.shape == (1, 3, *SMALL.network_size(48, 64))


def test_a_frame_too_small_for_a_crop_of_a_protocol_is_refused() -> None:
    with pytest.raises(DataError, match="plane#0: is 48x64; the KB crop of KITTI"):
        ValidationSamples([Planes(1)], SMALL, ["none", "kb"])[0]
