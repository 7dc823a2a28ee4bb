"""Draw the 60 RGB-D frames of data/room in the form that a depth camera writes: python data/room/make.py"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from finetune.data.synthetic.cameras import Cameras
    from finetune.data.synthetic.rng import Rng

HEIGHT, WIDTH = 240, 320
INTRINSICS = {"width": WIDTH, "height": HEIGHT, "fx": 288.0, "fy": 288.0, "cx": 161.25, "cy": 118.5}
ROOM_SEED, VIEW_SEED, SENSOR_SEED = 7, 8, 9
OBJECTS = (7, 10)
JPEG_QUALITY = 92

# The camera is on a low robot: its height, and its tilt as meters down for each meter ahead. Each varies by up to the
# second number.
HEIGHT_M, HEIGHT_VARIES_M = 0.6, 0.05
DOWN, DOWN_VARIES = 0.25, 0.06
ROLL_VARIES_RAD = 0.02

# Room -> views. Only rooms that differ, and in each room the first views with nothing nearer than 0.4 m and something
# farther than 2.5 m: ten to train on, the next one to validate on.
TRAIN: dict[int, tuple[int, ...]] = {
    7: (1, 3, 4, 6, 7, 8, 9, 11, 12, 16),
    13: (0, 1, 2, 3, 4, 5, 6, 7, 9, 10),
    22: (0, 1, 2, 3, 5, 6, 7, 8, 9, 10),
    26: (1, 3, 4, 5, 6, 7, 8, 9, 10, 11),
    33: (2, 3, 4, 6, 7, 10, 13, 14, 15, 16),
}
VAL: dict[int, tuple[int, ...]] = {7: (18,), 13: (11,), 22: (11,), 26: (12,), 33: (18,), 10: (0, 1, 2, 4, 5)}


def list_views(rooms: dict[int, tuple[int, ...]]) -> list[tuple[int, int]]:
    """(room, view) of each frame, in the order of the files."""
    return [(room, view) for room, numbers in rooms.items() for view in numbers]


def draw_frame(room: int, view: int) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """
    Args:
        room: number of the room, under ROOM_SEED.
        view: number of the camera in it.

    Returns:
        (H, W, 3) uint8 RGB and (H, W) uint16 millimeters, 0 where nothing was measured.
    """
    import numpy as np
    import torch

    from finetune.data.synthetic.cameras import draw_cameras
    from finetune.data.synthetic.drawing import draw_frames
    from finetune.data.synthetic.rng import Rng
    from finetune.data.synthetic.sensor import ColorSensor, DepthSensor
    from finetune.data.synthetic.worlds import draw_worlds

    number = 1000 * room + view
    worlds = draw_worlds(Rng(ROOM_SEED, [room]), objects=OBJECTS, outdoors=0.0)
    focal_px = torch.tensor([[INTRINSICS["fx"], INTRINSICS["fy"]]])
    center_px = torch.tensor([[INTRINSICS["cx"], INTRINSICS["cy"]]])
    view_rng = Rng(VIEW_SEED, [number])
    cameras = put_on_robot(draw_cameras(view_rng, worlds, focal_px, center_px), view_rng)
    drawing = draw_frames(worlds, cameras, HEIGHT, WIDTH, smooth=True)
    noise = Rng(SENSOR_SEED, [number])
    counts = DepthSensor().measure(noise, drawing, worlds.solids, cameras)
    image = ColorSensor(noise=0.022, vignette=0.18, evenly=True)(noise, drawing.light)
    return image[0].numpy(), counts[0].numpy().astype(np.uint16)


def put_on_robot(cameras: Cameras, rng: Rng) -> Cameras:
    """Cameras with the position and heading that they have, and the height and tilt of the robot."""
    from dataclasses import replace

    from finetune.data.synthetic.cameras import look_along
    from finetune.data.synthetic.rng import square_root

    height_m = HEIGHT_M + rng.uniform(-HEIGHT_VARIES_M, HEIGHT_VARIES_M)
    down = DOWN + rng.uniform(-DOWN_VARIES, DOWN_VARIES)
    roll_rad = rng.uniform(-ROLL_VARIES_RAD, ROLL_VARIES_RAD)
    place_m, towards = cameras.place_m.clone(), cameras.forward.clone()
    place_m[:, 2] = height_m
    towards[:, 2] = -down * square_root(towards[:, 0] * towards[:, 0] + towards[:, 1] * towards[:, 1])
    right, below, forward = look_along(towards, roll_rad)
    return replace(cameras, place_m=place_m, right=right, down=below, forward=forward)


def write_frame(folder: Path, number: int, image: NDArray[np.uint8], counts: NDArray[np.uint16]) -> str:
    """Write ``color/NNNN.jpg`` and ``depth/NNNN.png`` below ``folder``, and return the frame's line for a list."""
    import cv2

    color, depth = f"color/{number:04d}.jpg", f"depth/{number:04d}.png"
    cv2.imwrite(str(folder / color), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    cv2.imwrite(str(folder / depth), counts, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    return f"{color} {depth}\n"


def main(argv: list[str] | None = None) -> int:
    """Write all frames, both lists and the intrinsics."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parent, help="default: data/room")
    folder: Path = parser.parse_args(argv).output
    for name in ("color", "depth"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    number = 0
    for name, rooms in (("train.txt", TRAIN), ("val.txt", VAL)):
        lines = []
        for room, view in list_views(rooms):
            lines.append(write_frame(folder, number, *draw_frame(room, view)))
            number += 1
        (folder / name).write_text("".join(lines), encoding="utf-8")
    (folder / "intrinsics.json").write_text(json.dumps(INTRINSICS, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
