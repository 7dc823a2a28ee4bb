"""What several samples add up to: by hand, and on real pairs of which it is known whether they are registered."""

import csv
import dataclasses
import os
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from finetune.evidence.entries import apart, findings_of
from finetune.evidence.entry import Entry
from finetune.evidence.facts import Facts, facts_of
from finetune.evidence.units import suggested_max_depth_m
from finetune.sample import DepthSample
from tests.synthetic import tilted_plane

SAMPLES = os.environ.get("DEPTH_SAMPLES")


def entry(facts: list[Facts], key: str = "data.train.0", max_depth_m: float = 10.0, **options: Any) -> Entry:
    limit = ("model.max_depth_m", max_depth_m)
    return Entry(key=key, where="x.yaml:3", reader=SimpleNamespace(**options), facts=facts, ceiling=False, limit=limit)


def plane(**changes: Any) -> Facts:
    return dataclasses.replace(facts_of(tilted_plane()), **{"edges": None, "plane": None, **changes})


def named(found: Entry, name: str) -> list[str]:
    return [f"{one.severity} {one.sentence()}" for one in findings_of(found) if one.name == name]


@pytest.mark.parametrize(
    ("end_m", "suggested_m"), [(0.73, 0.8), (1.0, 1.0), (5.2, 5.5), (9.9, 10.0), (12.3, 13.0), (79.1, 80.0)]
)
def test_the_suggested_range_is_the_end_rounded_up(end_m: float, suggested_m: float) -> None:
    assert suggested_max_depth_m(end_m) == suggested_m


def test_a_range_that_loses_depth_or_wastes_itself_is_named() -> None:
    one = plane(depth_m=np.linspace(1, 8, 100, dtype=np.float32), most_m=8.0, next_m=7.9)
    (lost,) = named(entry([one], max_depth_m=6.0), "max_depth")
    assert lost.startswith("warn data.train.0: 29% of the measured depth is beyond model.max_depth_m 6 and lost.")
    assert "Set model.max_depth_m: 8, or more" in lost
    (wasted,) = named(entry([one], max_depth_m=80.0), "max_depth")
    assert wasted.startswith("warn ") and "10% of model.max_depth_m 80" in wasted
    (sound,) = named(entry([one], max_depth_m=10.0), "max_depth")
    assert sound.startswith("note ") and "at 10, 20% of the range is headroom" in sound


def test_a_code_needs_several_maps_and_its_raw_value_is_the_fix() -> None:
    coded = plane(most_m=np.float32(65.535).item(), most_share=0.02, next_m=4.0)
    plain = plane(most_m=4.0, most_share=0.001, next_m=3.9)
    options: dict[str, Any] = {"meters_per_unit": 0.001, "invalid": (0.0,)}
    (said,) = named(entry([coded, coded, plain], **options), "sentinel")
    assert "2 of 3 depth maps have 2% of their pixels at exactly 65535 (65.54 m)" in said
    assert "Set data.train.0.invalid: [0, 65535]" in said
    assert not named(entry([coded, plain, plain], **options), "sentinel")  # one strange map is no rule


def test_a_focal_length_below_a_tenth_of_the_width() -> None:
    (said,) = named(entry([plane(focal_px=4.6)]), "focal")
    assert "a focal length of 4.6 px for images 64 px wide looks like millimeters" in said
    assert not named(entry([plane(focal_px=6.5), plane(focal_px=None)]), "focal")


def test_another_reading_must_hold_clearly_more_in_most_frames() -> None:
    def read(z: float, other: float) -> Facts:
        return plane(plane={"z": z, "disparity": other})

    (said,) = named(entry([read(0.1, 0.4)] * 4), "depth_is")
    assert said.startswith("stop ") and "holds 40% of the pixels in the median of 4 frames, read as depth 10%" in said
    assert named(entry([read(0.1, 0.4)] * 3), "depth_is")[0].startswith("warn ")
    assert not named(entry([read(0.3, 0.4)] * 4), "depth_is")  # ln 4/3 is 0.29
    assert not named(entry([read(0.1, 0.4)] * 2 + [read(0.4, 0.1)] * 2), "depth_is")


def test_frames_that_look_like_training_frames_are_counted() -> None:
    look = np.zeros(256, dtype=np.bool_)
    alike, other = look.copy(), look.copy()
    alike[:12], other[:13] = True, True
    train = entry([plane(look=look, source="a/1.png")])
    val = entry([plane(look=alike, source="b/2.png"), plane(look=other, source="b/3.png")], key="data.val.0")
    (found,) = apart(train, val)
    assert (
        "1 of 2 frames looked at are nearly the same picture as one of data.train.0, such as b/2.png" in found.evidence
    )
    shared = entry([plane(look=other, source="a/9.png")], key="data.val.0")
    (note,) = apart(train, shared)
    assert (note.severity, note.name) == ("note", "one_recording")


def real_pairs() -> dict[tuple[str, bool], list[DepthSample]]:
    """Dense pairs of the samples by data set and by whether they are registered."""
    assert SAMPLES
    root = Path(SAMPLES)
    pairs: dict[tuple[str, bool], list[DepthSample]] = defaultdict(list)
    with (root / "manifest.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["density"] == "dense" and row["aligned"] in ("yes", "no")]
    for row in rows:
        image: Any = cv2.imread(str(root / row["rgb"]))
        path = root / row["depth"]
        if image is None or not path.is_file() or len(pairs[row["dataset"], row["aligned"] == "yes"]) >= 12:
            continue
        raw: Any = np.load(path) if path.suffix == ".npy" else cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if raw.ndim != 2 or raw.shape != image.shape[:2]:
            continue
        depth_m = raw.astype(np.float32) / np.float32(row["units_per_meter"] or 1)
        valid = np.isfinite(depth_m) & (raw > 0) & (raw < 65535)
        sample = DepthSample(image=image[..., ::-1].copy(), depth_m=depth_m, valid=valid, source=str(path))
        pairs[row["dataset"], row["aligned"] == "yes"].append(sample)
    return pairs


@pytest.mark.skipif(not SAMPLES, reason="set DEPTH_SAMPLES to the folder of real RGB-D samples to run this")
def test_real_pairs_are_told_to_be_registered_or_not() -> None:
    told: dict[bool, set[str]] = {True: set(), False: set()}
    for (name, registered), samples in real_pairs().items():
        if "raw" in name or not samples:  # disparity of another kind than any reader's
            continue
        found = {one.name for one in findings_of(entry([facts_of(sample) for sample in samples]))}
        assert ("registration" not in found) == registered, f"{name}: {found}"
        assert ("depth_is" in found) == (name == "middlebury2014"), f"{name}: {found}"  # which stores disparity
        assert not found & {"mirrored", "focal"}, f"{name}: {found}"
        told[registered].add(name)
    assert told[False] == {"sevenscenes_native", "realsense_lab_native"}
    assert len(told[True]) >= 10
