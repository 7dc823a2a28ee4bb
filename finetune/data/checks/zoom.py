"""How large the network sees things: in training, and under each protocol that scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from finetune.data.checks.entry import Entry
from finetune.data.checks.findings import Finding
from finetune.data.checks.frame_stats import Facts
from finetune.data.crops import KB_HEIGHT, KB_WIDTH
from finetune.data.preprocessing import MAX_ELONGATED, Preprocessing

_APART = 1.03  # a factor in the focal length is about the same factor in every answer


def find_elongated(entry: Entry, preprocessing: Preprocessing) -> Iterator[Finding]:
    """Frames that fill only a part of a training window, since their longer side is bounded."""
    long = [one for one in entry.facts if preprocessing.elongation(*one.size) > MAX_ELONGATED]
    if not long:
        return
    (height, width), (rows, columns) = long[0].size, preprocessing.input_size
    seen = preprocessing.network_size(height, width)
    filled = min(1.0, seen[0] / rows) * min(1.0, seen[1] / columns)
    yield Finding(
        severity="warn",
        name="input_size",
        key=entry.key,
        evidence=f"{len(long)} of {len(entry.facts)} frames looked at, such as {long[0].source} of {height}x{width}, "
        f"are more than {MAX_ELONGATED:g} times as elongated as data.input_size [{rows}, {columns}]: the network sees "
        f"them at {seen[0]}x{seen[1]}, which fills {filled:.0%} of a training window",
        fix="Set data.input_size to the shape of the frames, or cut them",
    )


def find_differing_zoom(
    trained: Sequence[Entry], scored: Sequence[Entry], preprocessing: Preprocessing, image_crops: Sequence[str]
) -> Iterator[Finding]:
    """
    Focal lengths at the network's size under which is scored, and that no training frame looked at has.

    Args:
        trained, scored: entries; those without intrinsics say nothing.
        preprocessing: of both.
        image_crops: of the protocols, ``none`` or ``kb``.
    """
    ours = [seen for entry in trained for seen in _seen_focals_px(entry.facts, preprocessing, "none")]
    if not ours:
        return
    least, most = min(ours), max(ours)
    for entry in scored:
        for crop in dict.fromkeys(image_crops):
            theirs = _seen_focals_px(entry.facts, preprocessing, crop)
            if not theirs or least / _APART <= (middle := float(np.median(theirs))) <= most * _APART:
                continue
            span = f"{least:.0f}" if most < 1.01 * least else f"{least:.0f} to {most:.0f}"
            yield Finding(
                severity="warn",
                name="input_size",
                key=entry.key,
                evidence=f"the network is scored at a focal length of {middle:.0f} px"
                + (" in the KB crop" if crop == "kb" else "")
                + f" and trained at {span} px: such a zoom is about the same factor in every answer",
                fix="Cut training frames as the protocol does, for KITTI by crop: kb in data.train"
                if crop == "kb"
                else "Give frames of one camera one size, or train on frames of this camera as well",
            )


def _seen_focals_px(facts: Sequence[Facts], preprocessing: Preprocessing, image_crop: str) -> list[float]:
    """Focal lengths at the network's size, pixels."""
    found = []
    for one in facts:
        height, width = one.size
        if image_crop == "kb":
            height, width = min(height, KB_HEIGHT), min(width, KB_WIDTH)
        if one.focal_px is not None:
            found.append(one.focal_px * preprocessing.network_size(height, width)[1] / width)
    return found
