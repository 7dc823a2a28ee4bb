"""Which way surfaces face, where on them a point is, and how they are painted."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from finetune.data.synthetic.cameras import Cameras
from finetune.data.synthetic.drawing import draw_frames
from finetune.data.synthetic.rays import nearest_hit
from finetune.data.synthetic.surfaces import BASEBOARD_M, BASEBOARD_SHADE, Surface, describe_surfaces
from finetune.data.synthetic.worlds import Worlds
from tests.small_worlds import Body, Triple, camera_at, gray_world, solids


def met(world: Worlds, camera: Cameras) -> Surface:
    """What the ray through the middle of the picture meets."""
    frame, nothing = torch.tensor([0]), torch.zeros(1, 1)
    direction = camera.directions(frame, nothing, nothing)
    depth_m, hit = nearest_hit(world.solids, frame, camera.place_m, direction)
    return describe_surfaces(world, camera, frame, direction, depth_m, hit)


def normal_at(shape: str, body: Body, place_m: Triple, towards: Triple) -> list[float]:
    world = gray_world(solids(**{shape: [body]}))  # type: ignore[arg-type]
    return [part.item() for part in met(world, camera_at(place_m, towards, height=1, width=1)).normal]


@pytest.mark.parametrize(
    ("shape", "turn_deg", "place_m", "towards", "normal"),
    [
        ("boxes", 0.0, (1.0, 4.0, 1.0), (1.0, 0.0, 0.0), (-1.0, 0.0, 0.0)),
        ("boxes", 0.0, (5.0, 7.0, 1.0), (0.0, -1.0, 0.0), (0.0, 1.0, 0.0)),
        ("boxes", 0.0, (5.0, 4.0, 3.0), (0.0, 0.0, -1.0), (0.0, 0.0, 1.0)),
        ("boxes", 30.0, (5.0, 1.0, 1.0), (0.0, 1.0, 0.0), (0.5, -(0.75**0.5), 0.0)),  # its side -y, turned
        ("cylinders", 0.0, (1.0, 4.0, 1.0), (1.0, 0.0, 0.0), (-1.0, 0.0, 0.0)),
        ("cylinders", 0.0, (5.0, 4.0, 3.0), (0.0, 0.0, -1.0), (0.0, 0.0, 1.0)),  # its cap
        ("balls", 0.0, (1.0, 4.0, 1.0), (1.0, 0.0, 0.0), (-1.0, 0.0, 0.0)),
        ("balls", 0.0, (5.0, 4.0, 3.0), (0.0, 0.0, -1.0), (0.0, 0.0, 1.0)),
    ],
)
def test_surfaces_face_the_open_side(
    shape: str, turn_deg: float, place_m: Triple, towards: Triple, normal: Triple
) -> None:
    body: Body = ((5.0, 4.0, 1.0), (1.0, 0.6, 0.8), turn_deg)
    assert normal_at(shape, body, place_m, towards) == pytest.approx(normal, abs=1e-5)


def test_the_room_faces_inwards() -> None:
    for towards in ((1.0, 0.0, 0.0), (-1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, -1.0)):
        surface = met(gray_world(solids()), camera_at((5.0, 4.0, 2.0), towards, height=1, width=1))
        assert [part.item() for part in surface.normal] == pytest.approx([-part for part in towards])
        assert surface.incidence.item() == pytest.approx(1.0)


def test_normals_of_an_ellipsoid_and_of_an_elliptic_cylinder() -> None:
    # From above at 0.6 of the half axis along x: of the ball, z is 0.8 of its; the gradient is (0.6 / 2, 0, 0.8 / 0.5).
    flat: Body = ((5.0, 4.0, 1.0), (2.0, 1.0, 0.5), 0.0)
    length = math.hypot(0.3, 1.6)
    assert normal_at("balls", flat, (6.2, 4.0, 3.0), (0.0, 0.0, -1.0)) == pytest.approx(
        (0.3 / length, 0.0, 1.6 / length), abs=1e-5
    )
    # Along y at the same place, of the cylinder: y = -0.8; the gradient is (0.6 / 2, -0.8 / 1, 0).
    length = math.hypot(0.3, 0.8)
    assert normal_at("cylinders", flat, (6.2, 0.5, 1.0), (0.0, 1.0, 0.0)) == pytest.approx(
        (0.3 / length, -0.8 / length, 0.0), abs=1e-5
    )


def test_a_body_is_painted_as_itself_whatever_else_is_seen() -> None:
    behind: Body = ((1.0, 4.0, 1.0), (0.2, 0.2, 0.2), 0.0)
    ball: Body = ((6.0, 4.0, 1.0), (0.5, 0.5, 0.5), 0.0)
    camera = camera_at((3.0, 4.0, 1.0), (1.0, 0.0, 0.0), height=28, width=28)
    alone = draw_frames(gray_world(solids(balls=[ball]), ambient=1.0), camera, 28, 28)
    with_others = draw_frames(gray_world(solids(boxes=[behind], balls=[ball]), ambient=1.0), camera, 28, 28)
    assert torch.equal(alone.depth_m, with_others.depth_m)
    assert torch.equal(alone.incidence, with_others.incidence)


def test_walls_have_a_baseboard_and_colors_are_mixed() -> None:
    world = gray_world(solids(), reflectance=0.5)
    low, high = (
        met(world, camera_at((5.0, 4.0, z), (1.0, 0.0, 0.0), height=1, width=1)).color[0].item()
        for z in (BASEBOARD_M - 0.01, BASEBOARD_M + 0.01)
    )
    assert (low, high) == (pytest.approx(0.5 * BASEBOARD_SHADE), pytest.approx(0.5))
    # Plain paint is a tenth of the other color where no noise is left, as seen from afar.
    materials = replace(
        world.materials, other=torch.ones_like(world.materials.other), period_m=torch.full((1, 6), 1e-3)
    )
    far = met(replace(world, materials=materials), camera_at((1.0, 4.0, 1.0), (1.0, 0.0, 0.0), height=1, width=1))
    assert far.color[1].item() == pytest.approx(0.9 * 0.5 + 0.1, abs=1e-3)


def test_a_body_that_is_painted_as_the_room_has_its_baseboard_and_another_has_none() -> None:
    block: Body = ((7.0, 4.0, 1.0), (0.5, 0.5, 1.0), 0.0)
    world = gray_world(solids(boxes=[block]), reflectance=0.5)
    for number, low in ((1, 0.5 * BASEBOARD_SHADE), (0, 0.5)):  # number 0 is its own, the next six are of the room
        painted = replace(world, material=torch.tensor([[number]]))
        seen = [
            met(painted, camera_at((5.0, 4.0, z), (1.0, 0.0, 0.0), height=1, width=1)).color[0].item()
            for z in (BASEBOARD_M - 0.01, BASEBOARD_M + 0.01)
        ]
        assert seen == [pytest.approx(low), pytest.approx(0.5)]


def test_the_sky_is_a_million_meters_away_and_its_numbers_are_finite() -> None:
    world = gray_world(solids(outdoors=True))
    surface = met(world, camera_at((5.0, 4.0, 1.0), (1.0, 0.0, 0.5), height=1, width=1))
    parts = (*surface.point_m, *surface.normal, *surface.color, surface.incidence)
    assert all(part.isfinite().all() for part in parts)
    assert surface.point_m[0].item() > 5e5
