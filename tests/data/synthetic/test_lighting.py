"""Lamps, shadows, highlights, windows and haze against their formulas."""

from __future__ import annotations

import math

import pytest
import torch

from finetune.data.synthetic.drawing import draw_frames
from finetune.data.synthetic.lighting import CONTACT_M, CORNER_M
from finetune.data.synthetic.worlds import Worlds
from tests.small_worlds import Triple, camera_at, gray_world, solids

SIZE = 29  # pixels; the one in the middle is 14, 14


def light_at(world: Worlds, x: float, y: float, *, height_m: float = 3.0) -> float:
    """Light from the point that a camera sees straight below it."""
    camera = camera_at((x, y, height_m), (0.0, 0.0, -1.0), height=SIZE, width=SIZE)
    return draw_frames(world, camera, SIZE, SIZE).light[0, SIZE // 2, SIZE // 2].mean().item()


def test_a_lamp_falls_off_with_distance_and_angle() -> None:
    # A lamp of 2 that is half as bright 3 m away, 3 m above the ground.
    world = gray_world(solids(outdoors=True), lamp=2.0, reach_m=3.0, lamp_m=(5.0, 4.0, 3.0))
    assert light_at(world, 5.0, 4.0) == pytest.approx(0.5 * 2.0 / 2.0, rel=1e-4)
    # 4 m aside it is 5 m away and its cosine is 0.6.
    assert light_at(world, 9.0, 4.0) == pytest.approx(0.5 * 2.0 * 0.6 / (1 + 25 / 9), rel=1e-4)


def test_no_light_falls_on_what_faces_away() -> None:
    # The lamp is below the top of the box, which only the ambient light reaches.
    table = solids(boxes=[((5.0, 4.0, 0.5), (0.5, 0.5, 0.5), 0.0)], outdoors=True)
    world = gray_world(table, lamp=2.0, lamp_m=(7.0, 4.0, 0.5), ambient=0.25)
    assert light_at(world, 5.0, 4.0) == pytest.approx(0.125, rel=1e-4)


def test_a_body_casts_the_shadow_of_its_outline() -> None:
    # A lamp 3 m high over x = 5; a plate from x = 5.9 to 6.1 at 1.5 m: its shadow is from 6.8 to 7.2, twice as far.
    plate = solids(boxes=[((6.0, 4.0, 1.5), (0.1, 0.3, 0.01), 0.0)], outdoors=True)
    world = gray_world(plate, lamp=1.0, lamp_m=(5.0, 4.0, 3.0), ambient=0.1)
    lit = gray_world(solids(outdoors=True), lamp=1.0, lamp_m=(5.0, 4.0, 3.0), ambient=0.1)
    for x in (6.6, 7.4):
        assert light_at(world, x, 4.0) == pytest.approx(light_at(lit, x, 4.0), rel=1e-5)
    for x in (6.85, 7.0, 7.15):
        assert light_at(world, x, 4.0) == pytest.approx(0.05, rel=1e-4)
    # And no lamp but the first casts one.
    lights = world.lights
    second = lights.color.roll(1, dims=1)
    world = Worlds(**{**vars(world), "lights": type(lights)(**{**vars(lights), "color": second})})
    assert light_at(world, 7.0, 4.0) == pytest.approx(light_at(lit, 7.0, 4.0), rel=1e-5)


@pytest.mark.parametrize("shape", ["boxes", "cylinders", "balls"])
def test_the_floor_is_darker_beside_a_body_and_not_far_from_it(shape: str) -> None:
    # A cube of 0.4 m around (5, 4), or what fits into it: it dims by the distance to the box around it.
    body = ((5.0, 4.0, 0.2), (0.2, 0.2, 0.2), 0.0)
    world = gray_world(solids(**{shape: [body]}, outdoors=True), ambient=1.0)  # type: ignore[arg-type]
    for gap_m, left in ((0.5 * CONTACT_M, 1 - 0.5 * 0.75**2), (0.2 * CONTACT_M, 1 - 0.5 * 0.96**2)):
        assert light_at(world, 5.2 + gap_m, 4.0) == pytest.approx(0.5 * left, rel=1e-3)
    assert light_at(world, 5.2 + 1.01 * CONTACT_M, 4.0) == pytest.approx(0.5)
    assert light_at(world, 8.0, 4.0) == pytest.approx(0.5)
    # It does not dim itself.
    assert light_at(world, 5.0, 4.0) == pytest.approx(0.5)


def test_a_polished_floor_mirrors_the_lamp_and_a_dull_one_does_not() -> None:
    # Camera and lamp straight above: halfway between them is the normal. 3 * gloss * lamp / (1 + 9 / 4) more.
    def seen(gloss: float, x: float) -> float:
        world = gray_world(solids(outdoors=True), gloss=gloss, lamp=1.0, lamp_m=(5.0, 4.0, 3.0), reach_m=2.0)
        return light_at(world, x, 4.0, height_m=2.0)

    assert seen(0.5, 5.0) - seen(0.0, 5.0) == pytest.approx(3 * 0.5 / (1 + 9 / 4), rel=1e-4)
    # 3 m aside, halfway between straight up and 45 degrees is 22.5: cosine^32, times 3 * 0.5 * cos 45 / (1 + 18 / 4).
    expected = 1.5 * math.cos(math.pi / 8) ** 32 * math.cos(math.pi / 4) / (1 + 18 / 4)
    assert seen(0.5, 8.0) - seen(0.0, 8.0) == pytest.approx(expected, rel=1e-3)


def test_a_window_glows_without_a_lamp() -> None:
    pane = solids(boxes=[((5.0, 4.0, 1.0), (0.5, 0.5, 0.01), 0.0)], outdoors=True)
    assert light_at(gray_world(pane, glow=3.0), 5.0, 4.0) == pytest.approx(0.5 * 3.0)
    assert light_at(gray_world(pane, glow=0.0), 5.0, 4.0) == pytest.approx(0.0, abs=1e-6)
    assert light_at(gray_world(pane, glow=3.0), 8.0, 4.0) == pytest.approx(0.0, abs=1e-6)  # the ground


def test_corners_of_a_room_are_dim() -> None:
    # The floor 0.35 m from one wall: a third of half. The other walls are 4 m and more away, the ceiling 4 m.
    world = gray_world(solids(size_m=(10.0, 8.0, 4.0)), ambient=1.0)
    expected = 0.5 * (1 - 0.33 / 2) * (1 - 0.33 / (1 + (4.0 / CORNER_M) ** 2))
    assert light_at(world, CORNER_M, 4.0) == pytest.approx(expected, rel=1e-4)


def forward_light(world: Worlds, towards: Triple) -> torch.Tensor:
    camera = camera_at((5.0, 4.0, 1.0), towards, height=SIZE, width=SIZE)
    return draw_frames(world, camera, SIZE, SIZE).light[0, SIZE // 2, SIZE // 2]


def test_haze_is_half_of_what_is_seen_at_its_distance() -> None:
    wall = solids(boxes=[((45.0, 4.0, 5.0), (0.1, 50.0, 50.0), 0.0)], outdoors=True)
    world = gray_world(wall, reflectance=0.1, ambient=1.0, haze_m=39.9)
    assert forward_light(world, (1.0, 0.0, 0.0))[0].item() == pytest.approx(0.5 * 0.1 + 0.5 * 0.5, rel=1e-4)


def test_the_sky_is_its_color_or_that_of_clouds() -> None:
    world = gray_world(solids(outdoors=True), ambient=1.0)
    for height in (0.3, 1.0):
        light = forward_light(world, (1.0, 0.0, height))
        # The sky's color, 0.5, moved to that of clouds, 0.9, by at most 0.7, and by less overhead.
        sine = height / math.hypot(1.0, height)
        assert (light >= 0.5).all() and (light <= 0.5 + 0.4 * 0.7 * (1 - sine) + 1e-6).all()
