"""Transforms between the frames of ROS that never change: those of a rig."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from numpy.typing import NDArray

from finetune.prepare.bag.messages import TF_MESSAGES, Transform, TransformsMessage, decode_message
from finetune.prepare.bag.open_bag import Bag
from finetune.prepare.calibration import require_rigid
from finetune.utils.errors import DataError, ListError

_STATIC = "tf_static"
# A fixed transform that is published again differs by rounding alone.
_MOVED = 1e-6
_FIX = "Record /tf_static with the images, or give a calibration: --calibration FILE"


@dataclass
class TransformTree:
    """
    Frames and the transforms between them.

    Attributes:
        source: the bag, named in errors.
        edges: (parent, child) -> (4, 4), meters: points of the child into the parent, as ROS' ``TransformStamped``.
        moving: (parent, child) whose transform changes over time.
    """

    source: str
    edges: dict[tuple[str, str], NDArray[np.float64]] = field(default_factory=dict)
    moving: set[tuple[str, str]] = field(default_factory=set)

    def add(self, parent: str, child: str, matrix: NDArray[np.float64], *, fixed: bool) -> None:
        """Add a transform; one that differs from what was added before moves, unless it is ``fixed``."""
        known = self.edges.get((parent, child))
        if known is not None and not fixed and np.abs(known - matrix).max() > _MOVED:
            self.moving.add((parent, child))
        self.edges[parent, child] = matrix

    def find(self, target: str, source: str) -> NDArray[np.float64]:
        """
        (4, 4) meters: points of the frame ``source`` into the frame ``target``, along a chain of fixed transforms.

        Raises:
            ListError: there is no such chain.
        """
        fixed = {edge: matrix for edge, matrix in self.edges.items() if edge not in self.moving}
        found = _walk(fixed, source).get(target)
        if found is not None:
            return found
        if target in _walk(self.edges, source):
            names = ", ".join(f"{parent} to {child}" for parent, child in sorted(self.moving)[:5])
            raise ListError(
                self.source,
                f"the transform from {source} to {target} changes over time (moving: {names})",
                "Take a color and a depth camera that are mounted together, or give --calibration FILE",
            )
        known = sorted({name for edge in self.edges for name in edge})
        listed = ", ".join(known[:12]) + (f" and {len(known) - 12} more" if len(known) > 12 else "") or "none"
        raise ListError(self.source, f"has no transform from {source} to {target} (frames: {listed})", _FIX)


def read_transforms(bag: Bag, target: str, source: str) -> NDArray[np.float64]:
    """
    Args:
        bag: with ``/tf_static``, or ``/tf``, on which ROS 1's older tools publish fixed transforms again and again.
        target, source: frames, as headers of images name them.

    Returns:
        (4, 4) meters: points of ``source`` into ``target``.

    Raises:
        ListError: no chain of fixed transforms leads there, or one is not rigid.
        DataError: a message is damaged.
    """
    topics = [topic for topic in bag.topics.values() if topic.msgtype in TF_MESSAGES and topic.count]
    static = [topic.name for topic in topics if topic.name.rpartition("/")[2] == _STATIC]
    others = [topic.name for topic in topics if topic.name not in static]
    tree = TransformTree(source=str(bag.path))
    target, source = target.lstrip("/"), source.lstrip("/")
    for names, fixed in ((static, True), (others, False)):
        for name in names:
            _read_topic(bag, name, tree, fixed=fixed)
        if target in _walk(tree.edges, source):
            break  # /tf has thousands of messages; they are read only where they are needed
    matrix = tree.find(target, source)
    require_rigid(matrix, bag.path, f"the transform from {source} to {target}")
    return matrix


def make_matrix(transform: Transform, source: str, key: str) -> NDArray[np.float64]:
    """
    (4, 4) of ROS' translation, meters, and quaternion.

    Raises:
        ListError: it is not rigid.
    """
    from scipy.spatial.transform import Rotation

    rotation, translation = transform.rotation, transform.translation
    matrix = np.eye(4)
    quaternion = (rotation.x, rotation.y, rotation.z, rotation.w)
    length = math.hypot(*quaternion)
    if not 0.99 < length < 1.01:
        raise ListError(source, f"{key} has a quaternion of length {length:.4g}, not 1", _FIX)
    matrix[:3, :3] = Rotation.from_quat(quaternion).as_matrix()
    matrix[:3, 3] = translation.x, translation.y, translation.z
    return matrix


def _read_topic(bag: Bag, name: str, tree: TransformTree, *, fixed: bool) -> None:
    msgtype = bag.topics[name].msgtype
    for time_ns, raw in bag.messages(name):
        try:
            message = cast(TransformsMessage, decode_message(raw, msgtype, ros1=bag.ros1))
        except ValueError as error:
            raise DataError(bag.path, f"has a damaged message of {name} at {time_ns} ns ({error})", _FIX) from None
        for stamped in message.transforms:
            parent, child = stamped.header.frame_id.lstrip("/"), stamped.child_frame_id.lstrip("/")
            matrix = make_matrix(stamped.transform, str(bag.path), f"{name} from {child} to {parent}")
            tree.add(parent, child, matrix, fixed=fixed)


def _walk(edges: Mapping[tuple[str, str], NDArray[np.float64]], start: str) -> dict[str, NDArray[np.float64]]:
    """For each frame that ``edges`` connect with ``start``: points of ``start`` into it."""
    found = {start: np.eye(4)}
    waiting = [start]
    while waiting:
        frame = waiting.pop()
        for other, matrix in _steps(edges, frame):
            if other not in found:
                found[other] = matrix @ found[frame]
                waiting.append(other)
    return found


def _steps(
    edges: Mapping[tuple[str, str], NDArray[np.float64]], frame: str
) -> Iterable[tuple[str, NDArray[np.float64]]]:
    for (parent, child), matrix in edges.items():
        if child == frame:
            yield parent, matrix
        elif parent == frame:
            yield child, np.asarray(np.linalg.inv(matrix), dtype=np.float64)
