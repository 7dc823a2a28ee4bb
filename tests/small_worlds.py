"""Worlds of a few gray bodies whose geometry and light are worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from finetune.data.synthetic.cameras import Cameras, draw_cameras, draw_intrinsics, look_along
from finetune.data.synthetic.rays import Bodies, Solids
from finetune.data.synthetic.rng import Rng
from finetune.data.synthetic.textures import PLAIN, Materials
from finetune.data.synthetic.worlds import FACES, LIGHTS, Lights, Worlds, draw_worlds

Triple = tuple[float, float, float]
Body = tuple[Triple, Triple, float]  # center, half sizes, turn in degrees


def bodies(*them: Body) -> Bodies:
    """One world's bodies of a shape."""
    turns = [math.radians(turn_deg) for _, _, turn_deg in them]
    return Bodies(
        center_m=torch.tensor([center for center, _, _ in them]).view(1, -1, 3),
        half_m=torch.tensor([half for _, half, _ in them]).view(1, -1, 3),
        turn=torch.tensor([(math.cos(turn), math.sin(turn)) for turn in turns]).view(1, -1, 2),
    )


def solids(
    *,
    boxes: Sequence[Body] = (),
    cylinders: Sequence[Body] = (),
    balls: Sequence[Body] = (),
    size_m: Triple = (10.0, 8.0, 4.0),
    outdoors: bool = False,
) -> Solids:
    """One world."""
    return Solids(
        size_m=torch.tensor([size_m]),
        outdoors=torch.tensor([outdoors]),
        boxes=bodies(*boxes),
        cylinders=bodies(*cylinders),
        balls=bodies(*balls),
    )


def gray_world(
    shapes: Solids,
    *,
    reflectance: float = 0.5,
    gloss: float = 0.0,
    glow: float = 0.0,
    ambient: float = 0.0,
    lamp_m: Triple = (5.0, 4.0, 3.0),
    lamp: float = 0.0,
    reach_m: float = 2.0,
    haze_m: float = 1e9,
) -> Worlds:
    """One world, all of it painted alike but that only bodies glow; one white lamp; a sky of 0.5."""
    count = len(shapes) + FACES

    def each(value: float) -> Tensor:
        return torch.full((1, count), value)

    paint = torch.full((1, count, 3), reflectance)
    glows = each(glow)
    glows[:, -FACES:] = 0.0
    return Worlds(
        solids=shapes,
        materials=Materials(
            pattern=torch.full((1, count), PLAIN),
            color=paint,
            other=paint,
            third=paint,
            period_m=each(1.0),
            swapped=torch.zeros(1, count, dtype=torch.bool),
            offset=each(0.0),
            stain=each(0.0),
            gloss=each(gloss),
            glow=glows,
        ),
        material=torch.arange(len(shapes))[None],
        target_m=torch.zeros(1, 1, 3),
        targets=torch.zeros(1, dtype=torch.int64),
        lights=Lights(
            place_m=torch.tensor([lamp_m]).expand(1, LIGHTS, 3),
            color=torch.tensor([lamp] + [0.0] * (LIGHTS - 1)).view(1, LIGHTS, 1).expand(1, LIGHTS, 3),
            reach_m=torch.full((1, LIGHTS), reach_m),
            ambient=torch.full((1, 3), ambient),
            sky=torch.full((1, 3), 0.5),
            haze_m=torch.tensor([haze_m]),
        ),
    )


def camera_at(
    place_m: Triple, towards: Triple, *, height: int, width: int, focal_px: float = 100.0, roll_rad: float = 0.0
) -> Cameras:
    """One camera; ``towards`` (0, 0, -1) is straight down, with x to the right."""
    right, down, forward = look_along(torch.tensor([towards]), torch.tensor([roll_rad]))
    if towards[:2] == (0.0, 0.0):
        right, down, forward = (torch.tensor([axis]) for axis in ((1.0, 0.0, 0.0), (0.0, -1.0, 0.0), towards))
    return Cameras(
        place_m=torch.tensor([place_m]),
        right=right,
        down=down,
        forward=forward,
        focal_px=torch.full((1, 2), focal_px),
        center_px=torch.tensor([[(width - 1) / 2, (height - 1) / 2]]),
    )


def drawn_worlds(seed: int, count: int, height: int, width: int, *, outdoors: float) -> tuple[Worlds, Cameras]:
    """Worlds and cameras as the reader ``scenes`` draws them."""
    rng = Rng(seed, range(count))
    worlds = draw_worlds(rng, objects=(4, 14), outdoors=outdoors)
    return worlds, draw_cameras(rng, worlds, *draw_intrinsics(rng, height, width, (45.0, 85.0)))
