"""How large things look to the network, in training and under each protocol of the evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from finetune.data.camera import Camera
from finetune.data.checks.entry import Entry
from finetune.data.checks.findings import Finding
from finetune.data.checks.frame_stats import Facts
from finetune.data.crops import KB_HEIGHT, KB_WIDTH
from finetune.data.lenses import MIXED
from finetune.data.preprocessing import MAX_ELONGATED, Preprocessing

_EXAMPLE_M = 3.0  # where an object is, to show what two lenses do to it
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
    trained_px = [seen for entry in trained for seen in seen_focals_px(entry.facts, preprocessing, "none")]
    if not trained_px:
        return
    least, most = min(trained_px), max(trained_px)
    for entry in scored:
        for crop in dict.fromkeys(image_crops):
            scored_px = seen_focals_px(entry.facts, preprocessing, crop)
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


def find_mixed_lenses(trained: Sequence[Entry], preprocessing: Preprocessing) -> Iterator[Finding]:
    """
    Lenses of training frames that are more than 10 % apart, which without canonical labels teach a compromise.

    Args:
        trained: entries; those without intrinsics are left out.
        preprocessing: of the run.
    """
    seen = [(focal_px, entry.key) for entry in trained for focal_px in seen_focals_px(entry.facts, preprocessing)]
    if not seen:
        return
    (least_px, shortest), (most_px, longest) = min(seen), max(seen)
    if most_px <= MIXED * least_px:
        return
    yield Finding(
        severity="warn",
        name="focal",
        key="data.train",
        evidence=f"the network sees focal lengths from {least_px:.0f} px ({shortest}) to {most_px:.0f} px ({longest}), "
        "and data.camera.mode is none: the same object would be taught at "
        f"{_EXAMPLE_M:.1f} m and {_EXAMPLE_M * most_px / least_px:.1f} m",
        fix="Write data.camera: {mode: canonical}, for which every entry gives intrinsics",
    )


def seen_focals_px(facts: Sequence[Facts], preprocessing: Preprocessing, image_crop: str = "none") -> list[float]:
    """Focal lengths at the network's size, pixels, of the frames whose camera is known."""
    found = []
    for frame in facts:
        height, width = frame.size
        if image_crop == "kb":
            height, width = min(height, KB_HEIGHT), min(width, KB_WIDTH)
        if frame.focal_px is not None:
            camera = Camera(fx_px=frame.focal_px, fy_px=frame.focal_px, cx_px=width / 2, cy_px=height / 2)
            found.append(preprocessing.focal_px(camera, height, width))
    return found
