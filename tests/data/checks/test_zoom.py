"""Sizes and focal lengths at the network, worked out by hand."""

import dataclasses

from finetune.data.checks.entry import Entry
from finetune.data.checks.frame_stats import Facts, collect_facts
from finetune.data.checks.zoom import find_differing_zoom, find_elongated, find_mixed_lenses
from finetune.data.preprocessing import Preprocessing
from tests.synthetic import reader_with, tilted_plane

ANY = collect_facts(tilted_plane())


def entry(part: str, *sizes: tuple[int, int, float | None]) -> Entry:
    facts: list[Facts] = [
        dataclasses.replace(ANY, size=(height, width), focal_px=focal_px) for height, width, focal_px in sizes
    ]
    limit = ("model.max_depth_m", 80.0)
    return Entry(key=f"data.{part}.0", where="x", reader=reader_with(), facts=facts, ceiling=False, limit=limit)


def test_whole_frames_of_kitti_beside_the_kb_crop_are_a_zoom() -> None:
    whole, kb = entry("train", (375, 1242, 721.5)), entry("train", (352, 1216, 721.5))
    val = entry("val", (375, 1242, 721.5))
    # (fx + fy) / 2 at 350x1162: whole 721.5 * (350 / 375 + 1162 / 1242) / 2 = 674.2, KB crop at 350x1204 715.9.
    (said,) = find_differing_zoom([whole], [val], Preprocessing(input_size=(350, 1162)), ["kb", "kb"])
    assert (said.severity, said.key) == ("warn", "data.val.0")
    assert "scored at a focal length of 716 px in the KB crop and trained at 674 px" in said.evidence
    assert "crop: kb in data.train" in said.fix
    assert not list(find_differing_zoom([kb], [val], Preprocessing(input_size=(350, 1204)), ["kb"]))


def test_another_camera_is_a_zoom_unless_training_has_cameras_on_both_sides() -> None:
    sizes = Preprocessing(input_size=(252, 336))
    val = entry("val", (480, 640, 600.0))  # at 336 wide 315 px
    (said,) = find_differing_zoom([entry("train", (480, 640, 500.0))], [val], sizes, ["none"])
    assert "scored at a focal length of 315 px and trained at 262 px" in said.evidence  # 262.5, to the even number
    both = entry("train", (480, 640, 500.0), (480, 640, 700.0))
    assert not list(find_differing_zoom([both], [val], sizes, ["none"]))
    assert not list(find_differing_zoom([entry("train", (480, 640, 590.0))], [val], sizes, ["none"]))  # 1.7 % apart
    assert not list(find_differing_zoom([entry("train", (480, 640, None))], [val], sizes, ["none"]))


def test_frames_that_fill_a_part_of_the_window_are_named_with_how_much() -> None:
    sizes = Preprocessing(input_size=(112, 154))
    (said,) = find_elongated(entry("train", (100, 400, None), (32, 800, None)), sizes)
    # 32x800 is 18.2 times as elongated: bounded to 4 * 154 = 616, times 32 / 800 = 24.6, two patches: 28 of 112 rows.
    assert "1 of 2 frames looked at" in said.evidence
    assert "the network sees them at 28x616, which fills 25% of a training window" in said.evidence
    assert not list(find_elongated(entry("train", (100, 400, None)), sizes))


def test_mixed_lenses_would_teach_one_object_at_two_distances() -> None:
    sizes = Preprocessing(input_size=(252, 336))
    short, long = entry("train", (480, 640, 500.0)), entry("train", (480, 640, 685.0))
    (said,) = find_mixed_lenses([short, dataclasses.replace(long, key="data.train.1")], sizes)
    # 262.5 and 359.6 px, 1.37 times apart: 3.0 m and 4.11 m.
    assert "from 262 px (data.train.0) to 360 px (data.train.1)" in said.evidence
    assert said.evidence.endswith("the same object would be taught at 3.0 m and 4.1 m")
    assert (said.severity, said.name, said.fix[:36]) == ("warn", "focal", "Write data.camera: {mode: canonical}")
    assert not list(find_mixed_lenses([short, entry("train", (480, 640, 549.0))], sizes))  # 9.8 % apart
    assert not list(find_mixed_lenses([entry("train", (480, 640, None))], sizes))
