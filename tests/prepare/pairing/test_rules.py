"""Names that tell which image and which depth map are a frame, by each rule."""

from __future__ import annotations

import pytest

from finetune.prepare.pairing.rules import natural_order, pair_names, plain_times, read_time_s
from finetune.utils.errors import ListError

T0 = 1305031102.0


def names_of(images: list[str], depths: list[str]) -> tuple[str, list[tuple[str, str]]]:
    found = pair_names(images, depths, None, "here")
    return found.rule.partition(",")[0], [(images[i], depths[k]) for i, k in found.pairs]


@pytest.mark.parametrize(
    ("image", "depth", "rule"),
    [
        ("{:04}.jpg", "{:04}.png", "equal stems"),
        ("rgb{:04}.png", "depth{:04}.png", "equal names but for a word for the kind"),
        ("frame-{:06}.color.png", "frame-{:06}.depth.png", "equal names but for a word for the kind"),
        ("{}_left.png", "{}_left_depth.npy", "equal names but for a word for the kind"),
        ("img_{}.png", "dep_{:05}.png", "equal numbers in their names"),
        ("IMG_{:04}_A.jpg", "{}_z.tiff", "equal numbers in their names"),
        ("{:07}-000000{:03}.jpg", "{:07}-0000{:03}.png", "equal numbers in their names"),  # SUN3D: frame, then time
    ],
)
def test_the_rule_is_the_first_that_pairs_all(image: str, depth: str, rule: str) -> None:
    numbers = (2, 10, 1)
    images, depths = ([form.format(number, 7 * number) for number in numbers] for form in (image, depth))
    found_rule, pairs = names_of(images, depths)
    assert found_rule == rule
    assert pairs == [(image.format(number, 7 * number), depth.format(number, 7 * number)) for number in (1, 2, 10)]


def test_times_in_the_names_are_paired_within_half_a_frame_interval() -> None:
    images = [f"{T0 + i / 10:.6f}.png" for i in range(10)]
    # The depth maps come 20 ms later, the third is missing, and the last is 60 ms late: more than half of 0.1 s.
    times = [T0 + i / 10 + (0.06 if i == 9 else 0.02) for i in range(10) if i != 2]
    found = pair_names(images, [f"{time:.6f}.png" for time in times], None, "here")
    assert found.rule == "the nearest time in their names, at most 0.02 s apart"
    assert [i for i, _ in found.pairs] == [0, 1, 3, 4, 5, 6, 7, 8]
    assert found.times_s == pytest.approx([T0 + i / 10 for i in (0, 1, 3, 4, 5, 6, 7, 8)])
    assert len(pair_names(images, [f"{time:.6f}.png" for time in times], 0.07, "here").pairs) == 9


@pytest.mark.parametrize(
    ("stem", "time_s"),
    [
        ("1305031102.175304", 1305031102.175304),
        ("color_1305031102175", 1305031102.175),
        ("1305031102175304_depth", 1305031102.175304),
        ("1305031102175304000", 1305031102.175304),
        ("1305031102_175304000", 1305031102.175304),
        ("0.033333", 0.033333),
        ("frame_000123", None),
        ("20240513", None),
    ],
)
def test_times_of_names(stem: str, time_s: float | None) -> None:
    assert read_time_s(stem) == pytest.approx(time_s)


def test_times_that_are_counts_of_frames_are_no_seconds() -> None:
    assert plain_times([0.0, 1.0, 2.0]) == []
    assert plain_times([0.0, None]) == []
    assert plain_times([0.5, 40.0, 80.5]) == []  # milliseconds, by their intervals
    assert plain_times([0.0, 0.1, 0.2]) == [0.0, 0.1, 0.2]


def test_a_few_stems_that_are_equal_by_chance_do_not_win_over_times() -> None:
    images = [f"{T0 + i / 30:.3f}.png" for i in range(60)]
    depths = [images[0], *(f"{T0 + i / 30 + 0.007:.3f}.png" for i in range(1, 60))]
    found = pair_names(images, depths, None, "here")
    assert found.rule.startswith("the nearest time") and len(found.pairs) == 60


def test_what_no_rule_pairs_is_refused() -> None:
    with pytest.raises(ListError, match=r"here: no rule pairs 2 images \(a\.jpg, \.\.\.\) with 3 depth maps \(x\.png"):
        pair_names(["a.jpg", "b.jpg"], ["x.png", "y.png", "z.png"], None, "here")
    with pytest.raises(ListError, match=r"the best, equal stems, pairs 1\. Give both files of a frame one stem"):
        pair_names(["a.jpg", "b.jpg", "c.jpg"], ["a.png", "y.png", "z.png"], None, "here")


def test_times_of_other_clocks_are_named_as_such() -> None:
    images, depths = [f"{T0 + i / 10:.6f}.png" for i in range(5)], [f"{i / 10 + 0.01:.6f}.png" for i in range(5)]
    with pytest.raises(ListError, match=r"here: times of images run from .* so they are of other clocks"):
        pair_names(images, depths, None, "here")


def test_one_of_each_needs_no_rule() -> None:
    assert names_of(["photo.jpg"], ["arkit_z.png"]) == (
        "being the only ones of their folder",
        [("photo.jpg", "arkit_z.png")],
    )


def test_frame_2_comes_before_frame_10() -> None:
    assert sorted(["f10", "f2", "f2b", "a"], key=natural_order) == ["a", "f2", "f2b", "f10"]
