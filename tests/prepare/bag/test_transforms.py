"""Chains of fixed transforms between frames of ROS."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from finetune.prepare.bag.open_bag import open_bag
from finetune.prepare.bag.transforms import read_transforms
from finetune.utils.errors import ListError
from tests.prepare.bag.written_bags import KINDS, START_NS, TF, Recording, transform, transforms, write_bag

# Half a turn about x, and a quarter turn about z.
HALF_X = (1.0, 0.0, 0.0, 0.0)
QUARTER_Z = (0.0, 0.0, np.sqrt(0.5), np.sqrt(0.5))


def test_the_chain_from_depth_to_color_by_hand(tmp_path: Path) -> None:
    """link -> color (1 m along x, a quarter turn about z) and link -> depth (0.5 m along y)."""
    recording = Recording()
    edges = (
        ("link", "color", transform((1.0, 0.0, 0.0), QUARTER_Z)),
        ("link", "depth", transform((0.0, 0.5, 0.0))),
        ("map", "link", transform((7.0, 7.0, 7.0), HALF_X)),
    )
    recording.add("/tf_static", TF, START_NS, transforms(*edges))
    for kind in KINDS:
        with open_bag(write_bag(tmp_path / ("a.bag" if kind == "ros1" else kind), kind, recording)) as bag:
            found = read_transforms(bag, "color", "/depth")
        # The origin of depth is (0, 0.5, 0) in link, (-1, 0.5, 0) from color; color's x axis is link's y, its y is -x.
        np.testing.assert_allclose(found[:3, 3], (0.5, 1.0, 0.0), atol=1e-12)
        # The x axis of depth, that of link, is -y of color.
        np.testing.assert_allclose(found[:3, 0], (0.0, -1.0, 0.0), atol=1e-12)
        np.testing.assert_allclose(found[3], (0, 0, 0, 1))


@pytest.mark.parametrize("msgtype", [TF, "tf/msg/tfMessage"])
def test_fixed_transforms_that_ros_1_publishes_again_and_again(tmp_path: Path, msgtype: str) -> None:
    recording = Recording()
    for k in range(5):
        fixed = ("/link", "/color", transform((1.0, 0.0, 0.0))), ("/link", "/depth", transform((0.0, 0.5, 0.0)))
        moving = ("/odom", "/link", transform((0.1 * k, 0.0, 0.0)))
        recording.add("/tf", msgtype, START_NS + k, transforms(*fixed, moving))
    path = write_bag(tmp_path / "a.bag", "ros1", recording, {msgtype: "geometry_msgs/TransformStamped[] transforms"})
    with open_bag(path) as bag:
        np.testing.assert_allclose(read_transforms(bag, "color", "depth")[:3, 3], (-1.0, 0.5, 0.0))
        with pytest.raises(ListError, match=r"from depth to odom changes over time \(moving: odom to link\)"):
            read_transforms(bag, "odom", "depth")


def test_a_frame_without_transform_is_named_with_the_others(tmp_path: Path) -> None:
    recording = Recording()
    recording.add("/tf_static", TF, START_NS, transforms(("link", "color", transform((1.0, 0.0, 0.0)))))
    with (
        open_bag(write_bag(tmp_path / "a", "mcap", recording)) as bag,
        pytest.raises(ListError, match=r"no transform from depth to color \(frames: color, link\)\. Record /tf_st"),
    ):
        read_transforms(bag, "color", "depth")
    with open_bag(write_bag(tmp_path / "b", "sqlite3", Recording([*recording.messages][:1]))) as bag:
        assert read_transforms(bag, "color", "link")[0, 3] == -1.0


@pytest.mark.parametrize(
    ("moved", "words"),
    [
        (transform((0.1, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0)), "has a quaternion of length 0, not 1"),
        (transform((50.0, 0.0, 0.0)), "50 m from the camera, as a translation in millimeters does"),
    ],
)
def test_a_transform_that_is_not_rigid(tmp_path: Path, moved: dict[str, object], words: str) -> None:
    recording = Recording()
    recording.add("/tf_static", TF, START_NS, transforms(("color", "depth", moved)))
    with open_bag(write_bag(tmp_path / "a.bag", "ros1", recording)) as bag, pytest.raises(ListError) as caught:
        read_transforms(bag, "color", "depth")
    assert words in str(caught.value)
