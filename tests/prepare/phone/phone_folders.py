"""Export folders of phone apps, written as their formats are described, of frames whose truth is a formula."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from finetune.inference.video import open_video_writer

# Height and width of images and depth maps: 4:3, and depth a fourth as wide.
IMAGE, DEPTH = (48, 64), (12, 16)
FOCAL, CENTER = (50.0, 51.0), (31.0, 24.0)
# A camera turned by 90 degrees about y, at (1, 2, 3).
QUARTER = (0.0, 0.5**0.5, 0.0, 0.5**0.5)
POSITION = (1.0, 2.0, 3.0)


def millimeters(number: int) -> NDArray[np.uint16]:
    """(12, 16) depth of a frame: 1 mm more in each pixel, 100 mm more in each frame, 0 in the first pixel."""
    counts = (1000 + 100 * number + np.arange(DEPTH[0] * DEPTH[1])).reshape(DEPTH).astype(np.uint16)
    counts[0, 0] = 0
    return counts


def levels(values: tuple[int, int, int]) -> NDArray[np.uint8]:
    """(12, 16) confidence: the first four rows low, the next four medium, the last four high."""
    return np.repeat(np.array(values, np.uint8), 4)[:, None].repeat(DEPTH[1], axis=1)


def image(number: int) -> NDArray[np.uint8]:
    """(48, 64, 3): one gray, lighter in each frame; codecs keep it."""
    return np.full((*IMAGE, 3), 40 + 30 * (number % 7), np.uint8)


def write_stray(folder: Path, frames: int = 4, *, camera_columns: bool = True) -> Path:
    for name in ("depth", "confidence"):
        (folder / name).mkdir(parents=True)
    with open_video_writer(folder / "rgb.mp4", 30.0) as write:
        for number in range(frames):
            write(image(number))
    header = "timestamp, frame, x, y, z, qx, qy, qz, qw"
    rows = [header + (", fx, fy, cx, cy, distortion_center_x, distortion_center_y" if camera_columns else "")]
    for number in range(frames):
        cv2.imwrite(str(folder / "depth" / f"{number:06d}.png"), millimeters(number))
        cv2.imwrite(str(folder / "confidence" / f"{number:06d}.png"), levels((0, 1, 2)))
        values = [f"{100 + number / 30:.6f}", f"{number:06d}", *map(str, (*POSITION, *QUARTER))]
        values += [*map(str, (FOCAL[0] + number, FOCAL[1], *CENTER)), "", ""] if camera_columns else []
        rows.append(", ".join(values))
    (folder / "odometry.csv").write_text("\n".join(rows) + "\n")
    matrix = [[FOCAL[0], 0.0, CENTER[0]], [0.0, FOCAL[1], CENTER[1]], [0.0, 0.0, 1.0]]
    (folder / "camera_matrix.csv").write_text("\n".join(", ".join(map(str, row)) for row in matrix))
    return folder


def write_polycam(folder: Path, frames: int = 4, *, corrected: bool = True, medium: int = 127) -> Path:
    names = [
        "images",
        "depth",
        "confidence",
        "cameras",
        *(["corrected_images", "corrected_cameras"] if corrected else []),
    ]
    for name in names:
        (folder / "keyframes" / name).mkdir(parents=True)
    for number in range(frames):
        stem = str(1_442_008_525_605 + 500_000 * number)
        keyframes = folder / "keyframes"
        cv2.imwrite(str(keyframes / "images" / f"{stem}.jpg"), image(number))
        cv2.imwrite(str(keyframes / "depth" / f"{stem}.png"), millimeters(number))
        cv2.imwrite(str(keyframes / "confidence" / f"{stem}.png"), levels((0, medium, 255)))
        # The identity of ARKit, which looks along -z with y up, at POSITION; the corrected one 1 m farther along x.
        rows = np.hstack([np.eye(3), np.array(POSITION)[:, None]])
        camera = {"fx": FOCAL[0], "fy": FOCAL[1], "cx": CENTER[0], "cy": CENTER[1], "width": 64, "height": 48}
        for kind in ("", "corrected_") if corrected else ("",):
            rows[0, 3] = POSITION[0] + (1.0 if kind else 0.0)
            pose = {f"t_{i}{j}": float(rows[i, j]) for i in range(3) for j in range(4)}
            content = json.dumps({**camera, **pose, "blur_score": 12.5, "timestamp": int(stem)})
            (keyframes / f"{kind}cameras" / f"{stem}.json").write_text(content)
            if kind:
                cv2.imwrite(str(keyframes / "corrected_images" / f"{stem}.jpg"), image(number))
    return folder


def metadata(frames: int) -> dict[str, object]:
    matrix = [FOCAL[0], 0, 0, 0, FOCAL[1], 0, *CENTER, 1]
    return {
        **{"w": 64, "h": 48, "dw": 16, "dh": 12, "fps": 60, "K": matrix},
        "perFrameIntrinsicCoeffs": [[FOCAL[0] + number, FOCAL[1], *CENTER] for number in range(frames)],
        "frameTimestamps": [0.5 + number / 60 for number in range(frames)],
        "poses": [[*QUARTER, *POSITION]] * frames,
    }


def write_record3d(folder: Path, frames: int = 4, **changes: object) -> Path:
    """An unpacked ``.r3d``; ``changes`` replace keys of its metadata, or remove them by None."""
    import liblzfse

    (folder / "rgbd").mkdir(parents=True)
    for number in range(frames):
        depth_m = millimeters(number).astype(np.float32) / np.float32(1000)
        depth_m[0, 0] = np.nan
        cv2.imwrite(str(folder / "rgbd" / f"{number}.jpg"), image(number))
        (folder / "rgbd" / f"{number}.depth").write_bytes(liblzfse.compress(depth_m.tobytes()))
        (folder / "rgbd" / f"{number}.conf").write_bytes(liblzfse.compress(levels((0, 1, 2)).tobytes()))
    content = {key: value for key, value in {**metadata(frames), **changes}.items() if value is not None}
    (folder / "metadata").write_text(json.dumps(content))
    return folder


def write_record3d_exr(folder: Path, frames: int = 4) -> Path:
    """An export of "EXR + JPG"."""
    import OpenEXR

    for name in ("rgb", "depth"):
        (folder / name).mkdir(parents=True)
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    for number in range(frames):
        depth_m = millimeters(number).astype(np.float32) / np.float32(1000)
        cv2.imwrite(str(folder / "rgb" / f"{number}.jpg"), image(number))
        OpenEXR.File(header, {"R": depth_m}).write(str(folder / "depth" / f"{number}.exr"))
    (folder / "metadata.json").write_text(json.dumps(metadata(frames)))
    return folder
