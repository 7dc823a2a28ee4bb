"""How large things look to the network, in training and under each protocol of the evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from finetune.data.checks.entry import Entry
from finetune.data.checks.findings import Finding
from finetune.data.checks.frame_stats import Facts
from finetune.data.crops import KB_HEIGHT, KB_WIDTH
from finetune.data.preprocessing import MAX_ELONGATED, Preprocessing

_APART = 1.03  # a factor in the focal length is about the same factor in every prediction


def find_elongated(entry: Entry, preprocessing: Preprocessing) -> Iterator[Finding]:
    """Frames that fill only a part of a training window, because their longer side is bounded."""
    long = [frame for frame in entry.facts if preprocessing.elongation(*frame.size) > MAX_ELONGATED]
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
        fix="Set data.input_size to the shape of the frames, or crop them",
    )


def find_differing_zoom(
    trained: Sequence[Entry], scored: Sequence[Entry], preprocessing: Preprocessing, image_crops: Sequence[str]
) -> Iterator[Finding]:
    """
    Focal lengths, at the network's size, that the evaluation has and no training frame has.

    Args:
        trained, scored: entries; those without intrinsics are left out.
        preprocessing: of both.
        image_crops: of the protocols, ``none`` or ``kb``.
    """
    trained_px = [seen for entry in trained for seen in _seen_focals_px(entry.facts, preprocessing, "none")]
    if not trained_px:
        return
    least, most = min(trained_px), max(trained_px)
    for entry in scored:
        for crop in dict.fromkeys(image_crops):
            scored_px = _seen_focals_px(entry.facts, preprocessing, crop)
            if not scored_px or least / _APART <= (middle := float(np.median(scored_px))) <= most * _APART:
                continue
            span = f"{least:.0f}" if most < 1.01 * least else f"{least:.0f} to {most:.0f}"
            yield Finding(
                severity="warn",
                name="input_size",
                key=entry.key,
                evidence=f"the network is scored at a focal length of {middle:.0f} px"
                + (" in the KB crop" if crop == "kb" else "")
                + f" and trained at {span} px: such a zoom is about the same factor in every prediction",
                fix="Cut training frames as the protocol does, for KITTI by crop: kb in data.train"
                if crop == "kb"
                else "Give frames of one camera one size, or train on frames of this camera as well",
            )


def _seen_focals_px(facts: Sequence[Facts], preprocessing: Preprocessing, image_crop: str) -> list[float]:
    """Focal lengths at the network's size, pixels."""
    found = []
    for frame in facts:
        height, width = frame.size
        if image_crop == "kb":
            height, width = min(height, KB_HEIGHT), min(width, KB_WIDTH)
        if frame.focal_px is not None:
            found.append(frame.focal_px * preprocessing.network_size(height, width)[1] / width)
    return found
