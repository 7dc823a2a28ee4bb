"""What several samples add up to: by hand, and on real pairs of which it is known whether they are registered."""

import csv
import dataclasses
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from finetune.data.checks.entry import Entry
from finetune.data.checks.frame_stats import Facts, collect_facts
from finetune.data.checks.registration import find_edges, fit_edges
from finetune.data.checks.rules import find_problems, find_shared_scenes
from finetune.data.checks.units import suggest_max_depth_m
from finetune.data.readers.files import read_depth, read_image
from finetune.data.readers.pseudo import Pseudo
from finetune.data.sample import DepthSample, is_sparse
from tests.synthetic import reader_with, tilted_plane

SAMPLES = os.environ.get("DEPTH_SAMPLES")


def entry(facts: list[Facts], key: str = "data.train.0", max_depth_m: float = 10.0, **options: Any) -> Entry:
    limit = ("model.max_depth_m", max_depth_m)
    return Entry(key=key, where="x.yaml:3", reader=reader_with(**options), facts=facts, ceiling=False, limit=limit)


def plane(**changes: Any) -> Facts:
    return dataclasses.replace(collect_facts(tilted_plane()), **{"edges": None, "plane": None, **changes})


def named(found: Entry, name: str) -> list[str]:
    return [f"{one.severity} {one.sentence()}" for one in find_problems(found) if one.name == name]


@pytest.mark.parametrize(
    ("end_m", "suggested_m"), [(0.73, 0.8), (1.0, 1.0), (5.2, 5.5), (9.9, 10.0), (12.3, 13.0), (79.1, 80.0)]
)
def test_the_suggested_range_is_the_end_rounded_up(end_m: float, suggested_m: float) -> None:
    assert suggest_max_depth_m(end_m) == suggested_m


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
    (found,) = find_shared_scenes(train, val)
    assert (
        "1 of 2 frames looked at are nearly the same picture as one of data.train.0, such as b/2.png" in found.evidence
    )
    shared = entry([plane(look=other, source="a/9.png")], key="data.val.0")
    (note,) = find_shared_scenes(train, shared)
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


Pair = tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.bool_]]


def room_pairs() -> list[Pair]:
    """The frames of ``data/room``."""
    root = Path(__file__).resolve().parents[3] / "data" / "room"
    found = []
    for line in (root / "train.txt").read_text().splitlines():
        names = line.split()
        raw: Any = cv2.imread(str(root / names[1]), cv2.IMREAD_UNCHANGED)
        image: Any = cv2.imread(str(root / names[0]))
        found.append((image[..., ::-1].copy(), (raw / 1000.0).astype(np.float32), raw > 0))
    return found


def flipped(pair: Pair) -> Pair:
    return tuple(np.ascontiguousarray(part[:, ::-1]) for part in pair)  # type: ignore[return-value]


def cut(pair: Pair, draw: np.random.Generator) -> Pair:
    """A crop of 0.6 to 0.95 of the sides, mirrored every other time."""
    height, width = pair[1].shape
    share = draw.uniform(0.6, 0.95)
    rows, columns = int(height * share), int(width * share)
    top, left = draw.integers(height - rows + 1), draw.integers(width - columns + 1)
    found: Any = tuple(np.ascontiguousarray(part[top : top + rows, left : left + columns]) for part in pair)
    return flipped(found) if draw.random() < 0.5 else found


def moved(pair: Pair, across: float, down: float) -> Pair:
    """Depth moved by pixels of an image 320 wide; where it came from nothing is measured."""
    image, depth_m, valid = pair
    zoom = max(1.0, image.shape[1] / 320)
    shift = np.array([[1, 0, round(across * zoom)], [0, 1, round(down * zoom)]], dtype=np.float64)
    size = depth_m.shape[::-1]
    depth_m = np.asarray(cv2.warpAffine(depth_m, shift, size, flags=cv2.INTER_NEAREST), dtype=np.float32)
    valid = cv2.warpAffine(valid.astype(np.uint8), shift, size, flags=cv2.INTER_NEAREST) > 0
    return image, depth_m, valid


def each(change: Callable[[Pair], Any], pairs: list[Pair]) -> list[Any]:
    """What becomes of each pair; of one that stands there several times it is worked out once."""
    changed = {id(pair): change(pair) for pair in {id(pair): pair for pair in pairs}.values()}
    return [changed[id(pair)] for pair in pairs]


def entry_of(pairs: list[Pair]) -> Entry:
    base = plane()
    return entry(
        each(lambda pair: dataclasses.replace(base, edges=find_edges(*pair), sparse=is_sparse(pair[2])), pairs)
    )


def judged(pairs: list[Pair]) -> list[str]:
    """``stop registration`` and the like, of what is no note."""
    found = [one for one in find_problems(entry_of(pairs)) if one.name in ("registration", "mirrored")]
    return [f"{one.severity} {one.name}" for one in found if one.severity != "note"]


def wrong_ways(pairs: list[Pair], draw: np.random.Generator) -> Iterator[list[Pair]]:
    """The pairs moved by 8, 16 and 40 px, across and in another direction, and mirrored in depth alone."""
    for pixels in (8, 16, 40):
        side, angle = draw.choice((-1, 1)), draw.uniform(0, 2 * np.pi)
        for across, down in ((side * pixels, 0.0), (pixels * np.cos(angle), min(pixels, 20) * np.sin(angle))):
            yield each(partial(moved, across=across, down=down), pairs)
    yield each(lambda pair: (pair[0], *flipped(pair)[1:]), pairs)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_room_cut_anew_is_told_to_be_in_place_moved_or_mirrored(seed: int) -> None:
    draw = np.random.default_rng(seed)
    pairs = [cut(pair, draw) for pair in room_pairs()[seed::5]]
    assert judged(pairs) == []
    *shifts, mirrored = wrong_ways(pairs, draw)
    assert all(judged(shift) == ["stop registration"] for shift in shifts[seed::2])
    assert judged(mirrored) == ["stop mirrored"]


def test_depth_of_another_frame_of_the_room_is_told() -> None:
    pairs = room_pairs()[::4]
    other = [(image, *pairs[(place + 6) % len(pairs)][1:]) for place, (image, _, _) in enumerate(pairs)]
    assert judged(other) == ["stop registration"]
    # A teacher makes labels from the images themselves, and a weak one has no edges where the color changes.
    labels = Pseudo(root="labels")
    (warning,) = named(dataclasses.replace(entry_of(other), reader=labels), "registration")
    assert warning.startswith("warn data.train.0: the edges of the teacher's labels are not where the color changes:")
    assert not named(dataclasses.replace(entry_of(pairs), reader=labels), "registration")


def test_sparse_depth_is_not_judged_and_that_is_said() -> None:
    draw = np.random.default_rng(0)
    pairs = [(image, depth_m, valid & (draw.random(valid.shape) < 0.3)) for image, depth_m, valid in room_pairs()[:8]]
    assert judged(pairs) == []
    assert judged([moved(pair, 16, 0) for pair in pairs]) == []
    (said,) = named(entry([plane(sparse=True, valid_share=0.27)]), "registration")
    assert said.startswith("note data.train.0: depth is sparse, 27% of the pixels in the median frame")
    assert not named(entry([plane(sparse=True), plane(sparse=False)]), "registration")


def sample_pairs() -> dict[tuple[str, bool], list[Pair]]:
    """Every pair of the samples that can be read as it is, sparse ones too, by data set and whether registered."""
    assert SAMPLES
    root = Path(SAMPLES)
    pairs: dict[tuple[str, bool], list[Pair]] = defaultdict(list)
    with (root / "manifest.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["aligned"] in ("yes", "no")]
    for row in rows:
        image: Any = cv2.imread(str(root / row["rgb"]))
        path = root / row["depth"]
        if row["encoding"] == "npz-float32":
            arrays = np.load(root / row["depth"].rpartition(":")[0])
            image, raw = arrays["rgb"][..., ::-1], np.nan_to_num(arrays["depth"])
        elif image is None or not path.is_file() or row["dataset"] in ("middlebury2014", "nyu_raw"):
            continue  # which store disparity
        else:
            raw = np.load(path) if path.suffix == ".npy" else cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if "rotated" in row["encoding"]:
            raw = (raw >> 3) | (raw << 13)
        if raw.shape != image.shape[:2]:
            image = cv2.resize(image, raw.shape[::-1], interpolation=cv2.INTER_AREA)  # ARKit's depth is smaller
        depth_m = raw.astype(np.float32) / np.float32(row["units_per_meter"] or 1)
        valid = np.isfinite(depth_m) & (raw > 0) & (raw < 65535)
        pairs[row["dataset"], row["aligned"] == "yes"].append((image[..., ::-1].copy(), depth_m, valid))
    return pairs


def repeated(pairs: list[Pair], count: int) -> list[Pair]:
    """Evenly spread where there are enough; else all of them again and again, mirrored every other time."""
    if len(pairs) >= count:
        return [pairs[int(place)] for place in np.linspace(0, len(pairs) - 1, count).round()]
    both = [*pairs, *each(flipped, pairs)]
    return [both[place % len(both)] for place in range(count)]


@pytest.mark.skipif(not SAMPLES, reason="set DEPTH_SAMPLES to the folder of real RGB-D samples to run this")
def test_a_clip_in_which_the_camera_hardly_moves_is_not_stopped() -> None:
    # Its frames are one frame, whose places repeat: depth moved by a sixth of the width meets other edges as well.
    assert SAMPLES
    root = Path(SAMPLES) / "realsense_lab_seq"
    pairs = list(zip(sorted((root / "rgb").iterdir()), sorted((root / "depth").iterdir()), strict=True))
    for first, count in ((20, 16), (25, 8), (35, 8)):
        frames = []
        for image_path, depth_path in pairs[first : first + count]:
            depth_m = (read_depth(depth_path) / 1000).astype(np.float32)
            frames.append(find_edges(read_image(image_path), depth_m, depth_m > 0))
        found = fit_edges([edges for edges in frames if edges is not None])
        assert found is not None and found.verdict == "unknown", first


@pytest.mark.slow
@pytest.mark.skipif(not SAMPLES, reason="set DEPTH_SAMPLES to the folder of real RGB-D samples to run this")
@pytest.mark.parametrize("count", [8, 50])
def test_no_sound_sample_is_stopped_and_wrong_ones_are_found(count: int) -> None:
    draw = np.random.default_rng(count)
    asked, found = 0, 0
    for (name, registered), pairs in sample_pairs().items():
        whole = repeated(pairs, count)
        cuts = [cut(pair, draw) for pair in whole]
        if not registered:
            assert judged(whole) == ["stop registration"] and judged(cuts) == ["stop registration"], name
            continue
        assert judged(whole) == judged(cuts) == [], name
        # The ARKit frame has 174 edges, its crops fewer: too little to find a shift in.
        if count == 50 or name == "arkit_lidar" or is_sparse(pairs[0][2]):
            continue
        found_here = [bool(judged(wrong)) for wrong in wrong_ways(whole, draw)]
        if len(pairs) >= 16:
            other = [pairs[(place * (len(pairs) - 1) // (count - 1) + 7) % len(pairs)] for place in range(count)]
            found_here.append(
                bool(judged([(image, *two[1:]) for (image, _, _), two in zip(whole, other, strict=True)]))
            )
        asked, found = asked + len(found_here), found + sum(found_here)
    assert found >= 0.95 * asked, f"{found} of {asked}"


@pytest.mark.skipif(not SAMPLES, reason="set DEPTH_SAMPLES to the folder of real RGB-D samples to run this")
def test_real_pairs_are_told_to_be_registered_or_not() -> None:
    warned: dict[bool, set[str]] = {True: set(), False: set()}
    for (name, registered), samples in real_pairs().items():
        if "raw" in name or not samples:  # disparity of another kind than any reader's
            continue
        # One pair or two say nothing: a verdict takes eight.
        facts = ([collect_facts(sample) for sample in samples] * 8)[: max(8, len(samples))]
        found = {one.name for one in find_problems(entry(facts)) if one.severity != "note"}
        assert ("registration" not in found) == registered, f"{name}: {found}"
        assert ("depth_is" in found) == (name == "middlebury2014"), f"{name}: {found}"  # which stores disparity
        assert not found & {"mirrored", "focal"}, f"{name}: {found}"
        warned[registered].add(name)
    assert warned[False] == {"sevenscenes_native", "realsense_lab_native"}
    assert len(warned[True]) >= 10
