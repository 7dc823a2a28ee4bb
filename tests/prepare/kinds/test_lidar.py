"""The kind lidar: a camera and sweeps in every format, what it writes and what it refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cv2
import laspy
import numpy as np
import pytest
from numpy.typing import NDArray
from plyfile import PlyData, PlyElement
from pypcd4 import Encoding, PointCloud

from finetune.commands import prepare
from finetune.data.readers.pairs import Pairs
from finetune.recipe.load import load_recipe

SAMPLES = os.environ.get("DEPTH_SAMPLES")
HEIGHT, WIDTH = 48, 64
COLOR = {"width": WIDTH, "height": HEIGHT, "fx": 40.0, "fy": 40.0, "cx": 31.5, "cy": 23.5}
# x ahead, y left, z up; the LiDAR is 0.25 m above the camera.
FROM_LIDAR: list[list[float]] = [[0, -1, 0, 0], [0, 0, -1, -0.25], [1, 0, 0, 0], [0, 0, 0, 1]]
COUNT = 8


def wall_points(distance_m: float) -> NDArray[np.float64]:
    """Points of the LiDAR on a wall across its view, at the center of every second pixel."""
    columns, rows = np.meshgrid(np.arange(0, WIDTH, 2), np.arange(0, HEIGHT, 2))
    x, y = (columns.ravel() - 31.5) / 40 * distance_m, (rows.ravel() - 23.5) / 40 * distance_m
    return np.stack([np.full(len(x), distance_m), -x, -(y + 0.25)], axis=1)


def write_images(folder: Path, names: list[str], size: tuple[int, int] = (HEIGHT, WIDTH)) -> Path:
    folder.mkdir(parents=True)
    for i, name in enumerate(names):
        image = np.random.default_rng(i).integers(0, 255, (*size, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / name), image)
    return folder


def write_recording(folder: Path, **rig: Any) -> list[str]:
    """A wall that is 4 m away at the first image and 1/8 m farther at each; gives the words of the call."""
    images = write_images(folder / "rgb", [f"{i:04}.png" for i in range(COUNT)])
    (folder / "points").mkdir()
    for i in range(COUNT):
        points = wall_points(4 + i / 8).astype(np.float32)
        np.concatenate([points, np.ones((len(points), 1), np.float32)], axis=1).tofile(folder / f"points/{i:04}.bin")
    (folder / "rig.json").write_text(json.dumps({"color": COLOR, "color_from_lidar": FROM_LIDAR} | rig))
    words = ["lidar", str(images), str(folder / "points"), "--calibration", str(folder / "rig.json"), "--no-check"]
    return [*words, "--output", str(folder / "out")]


def read_depth_m(output: Path, name: str) -> NDArray[np.float64]:
    unit = json.loads((output / "prepare.json").read_text())["meters_per_unit"]
    return read_png16(str(output / "depth" / name)) * unit


def read_png16(path: str) -> NDArray[np.float64]:
    counts = cv2.imread(path, cv2.IMREAD_UNCHANGED)
    assert counts is not None and counts.dtype == np.uint16
    return counts.astype(np.float64)


def require_refusal(words: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence of a refused call, which leaves nothing behind."""
    before = sorted(folder.rglob("*"))
    status = prepare.main(words)
    said = capsys.readouterr().err.strip()
    assert status in (1, 2) and "\n" not in said
    assert sorted(folder.rglob("*")) == before
    return said


def test_a_folder_of_images_sweeps_and_a_calibration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare.main(write_recording(tmp_path)) == 0
    said = capsys.readouterr().out
    assert "8 images and sweeps are paired by their names; 0 images and 0 sweeps are left over" in said
    assert "0% of 6144 drawn pixels are dropped" in said
    expected = np.zeros((HEIGHT, WIDTH))
    expected[::2, ::2] = 4.375
    np.testing.assert_allclose(read_depth_m(tmp_path / "out", "0003.png"), expected, atol=1e-9)
    recipe = load_recipe(str(tmp_path / "out/recipe.yaml"), [])
    train = recipe.data.train[0].source
    assert isinstance(train, Pairs)
    sample = train[0]
    assert sample.camera is not None and sample.camera.fx_px == 40.0


def write_each_format(folder: Path) -> None:
    points = [wall_points(4 + i / 8) for i in range(COUNT)]
    folder.mkdir()
    for i, suffix in enumerate(["a.pcd", "b.pcd", "c.pcd"]):
        encoding = (Encoding.ASCII, Encoding.BINARY, Encoding.BINARY_COMPRESSED)[i]
        PointCloud.from_xyz_points(points[i].astype(np.float32)).save(folder / f"{i:04}{suffix[1:]}", encoding=encoding)
    vertices = np.array([tuple(point) for point in points[3]], dtype=[("x", "f4"), ("y", "f4"), ("z", "f4")])
    PlyData([PlyElement.describe(vertices, "vertex")]).write(str(folder / "0003.ply"))
    np.save(folder / "0004.npy", points[4])
    np.savez(folder / "0005.npz", points[5])
    for i, suffix in ((6, "las"), (7, "laz")):
        las = laspy.create(point_format=3, file_version="1.2")
        las.header.scales = np.full(3, 1e-5)
        las.x, las.y, las.z = points[i].T
        las.write(folder / f"{i:04}.{suffix}")


def test_every_format_of_points_gives_the_same(tmp_path: Path) -> None:
    words = write_recording(tmp_path)
    write_each_format(tmp_path / "mixed")
    words[2] = str(tmp_path / "mixed")
    assert prepare.main(words) == 0
    for i in range(COUNT):
        depth_m = read_depth_m(tmp_path / "out", f"{i:04}.png")
        assert np.count_nonzero(depth_m) == HEIGHT * WIDTH // 4
        np.testing.assert_allclose(depth_m[::2, ::2], 4 + i / 8, atol=1e-4)


def test_several_sweeps_by_poses_without_what_moved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = write_recording(tmp_path)
    # The LiDAR backs away by 1/8 m a sweep from one wall, and something is 1 m in front of sweep 2 alone.
    poses = "".join(f"{i} {-i / 8} 0 0 0 0 0 1\n" for i in range(COUNT))
    (tmp_path / "poses.txt").write_text(poses)
    (tmp_path / "times.txt").write_text("".join(f"{i}\n" for i in range(COUNT)))
    words += ["--image-times", str(tmp_path / "times.txt"), "--points-times", str(tmp_path / "times.txt")]
    sweep = tmp_path / "points/0002.bin"
    # On the ray of sweep 3 to pixel (32, 24), 1.125 m ahead of it, which is 1 m ahead of sweep 2.
    slope = wall_points(4.375).reshape(24, 32, 3)[12, 16] / 4.375
    body = np.array([[*(1.125 * slope - (0.125, 0.0, 0.0)), 1.0]], np.float32)
    np.concatenate([np.fromfile(sweep, np.float32).reshape(-1, 4), body]).tofile(sweep)
    words += ["--poses", str(tmp_path / "poses.txt"), "--accumulate", "3", "--keep-hidden"]
    assert prepare.main(words) == 0
    assert "poses of the LiDAR; 3 sweeps are drawn together" in capsys.readouterr().out
    depth_m = read_depth_m(tmp_path / "out", "0003.png")
    # Sweeps 2, 3 and 4 see one wall, 4.375 m from the LiDAR at sweep 3, in up to three times as many pixels.
    walls = depth_m[depth_m > 2]
    np.testing.assert_allclose(walls, 4.375, atol=1e-4)
    assert HEIGHT * WIDTH // 4 < len(walls) < 3 * HEIGHT * WIDTH // 4
    assert ((depth_m > 0) & (depth_m < 2)).any(), "what moved is drawn"
    assert prepare.main([*words, "--drop-moving", "--overwrite"]) == 0
    assert "points of other sweeps are dropped: their place was empty at the image" in capsys.readouterr().out
    depth_m = read_depth_m(tmp_path / "out", "0003.png")
    assert not ((depth_m > 0) & (depth_m < 2)).any()
    # It stays where it was measured.
    assert np.count_nonzero(read_depth_m(tmp_path / "out", "0002.png") == 1.0) == 1


def test_a_lens_keeps_the_images_or_is_undistorted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    color = {**COLOR, "distortion_model": "equidistant", "distortion": [0.05, 0.0, 0.0, 0.0]}
    words = write_recording(tmp_path, color=color)
    assert prepare.main(words) == 0
    assert "the images keep the distortion of their lens, so no intrinsics are written" in capsys.readouterr().out
    assert not (tmp_path / "out/intrinsics.json").exists()
    kept = read_depth_m(tmp_path / "out", "0000.png")
    np.testing.assert_allclose(kept[kept > 0], 4.0, atol=1e-9)
    assert prepare.main([*words, "--undistort", "--overwrite"]) == 0
    assert (tmp_path / "out/intrinsics.json").exists()
    straight = read_depth_m(tmp_path / "out", "0000.png")
    np.testing.assert_allclose(straight[straight > 0], 4.0, atol=1e-9)
    assert (tmp_path / "out/image/0000.png").read_bytes() != (tmp_path / "rgb/0000.png").read_bytes()


def test_calibrations_that_do_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = write_recording(tmp_path)
    rig = tmp_path / "rig.json"

    def refusal(**content: Any) -> str:
        rig.write_text(json.dumps({"color": COLOR, "color_from_lidar": FROM_LIDAR} | content))
        return require_refusal(words, tmp_path, capsys)

    inverse = np.linalg.inv(np.array(FROM_LIDAR))
    said = refusal(color_from_lidar=inverse.tolist())
    assert "of the points of 0000.bin behind the camera, and its inverse" in said
    assert "it seems to be lidar-from-camera where camera-from-lidar is expected. Rename the key" in said
    bent = np.array(FROM_LIDAR)
    bent[0, 1] = -1.1
    assert "color_from_lidar is not rigid" in refusal(color_from_lidar=bent.tolist())
    far = np.array(FROM_LIDAR)
    far[1, 3] = -250.0
    assert "puts the sensor 250 m from the camera, as a translation in millimeters does" in refusal(
        color_from_lidar=far.tolist()
    )
    said = refusal(color={**COLOR, "width": 2 * WIDTH, "height": 2 * HEIGHT})
    assert f"0000.png: is {HEIGHT}x{WIDTH} (height x width)" in said and f"is for {2 * HEIGHT}x{2 * WIDTH}" in said
    said = refusal(color={**COLOR, "cx": 5.0})
    assert "rig.json: color: has its center at (5, " in said and "not in the middle third" in said
    assert "as millimeters or images of another size give" in refusal(color={**COLOR, "fx": 3.0, "fy": 3.0})
    wild = {"distortion_model": "plumb_bob", "distortion": [-5, 0, 0, 0, 0]}
    assert "has a distortion by which" in refusal(color={**COLOR, **wild})
    rig.unlink()
    assert "rig.json: no such file. Give a calibration" in require_refusal(words, tmp_path, capsys)
    without = [word for word in words if word not in ("--calibration", str(rig))]
    assert "--calibration is missing" in require_refusal(without, tmp_path, capsys)


def test_points_and_times_that_do_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = write_recording(tmp_path)
    times = tmp_path / "a.txt", tmp_path / "b.txt"
    times[0].write_text("".join(f"{1700000000 + i / 10}\n" for i in range(COUNT)))
    times[1].write_text("".join(f"{(1700000000 + i / 10) * 1e9:.0f}\n" for i in range(COUNT)))
    both = ["--image-times", str(times[0]), "--points-times", str(times[1])]
    said = require_refusal([*words, *both], tmp_path, capsys)
    assert "b.txt: has times up to 1700000000" in said and "in seconds; they seem to be nanoseconds." in said
    assert "--image-times is given without --points-times" in require_refusal([*words, *both[:2]], tmp_path, capsys)
    said = require_refusal([*words, "--accumulate", "3"], tmp_path, capsys)
    assert "--accumulate needs the way of the sensor. Give --poses FILE" in said
    for sweep in (tmp_path / "points").iterdir():
        (np.fromfile(sweep, np.float32) * 1000).tofile(sweep)
    assert "as points in millimeters are. If they are millimeters, give --meters-per-unit 0.001" in require_refusal(
        words, tmp_path, capsys
    )
    assert prepare.main([*words, "--meters-per-unit", "0.001"]) == 0


@pytest.mark.skipif(not SAMPLES, reason="DEPTH_SAMPLES names no folder of samples")
def test_a_frame_of_kitti_gives_the_depth_that_was_made_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sample = Path(SAMPLES or "") / "kitti_object/training"
    for name, file in (("image_2", "000000.png"), ("velodyne_reduced", "000000.bin"), ("calib", "000000.txt")):
        (tmp_path / name).mkdir()
        for i in range(4):
            (tmp_path / name / f"{i:06}{Path(file).suffix}").write_bytes((sample / name / file).read_bytes())
    folders = [str(tmp_path / name) for name in ("image_2", "velodyne_reduced")]
    words = ["lidar", *folders, "--calibration", str(tmp_path / "calib"), "--no-check", "--output"]
    assert prepare.main([*words, str(tmp_path / "off"), "--keep-hidden"]) == 0
    expected_m = read_png16(str(sample / "depth_projected_2/000000.png")) / 256
    depth_m = read_depth_m(tmp_path / "off", "000000.png")
    np.testing.assert_array_equal(depth_m > 0, expected_m > 0)
    assert np.count_nonzero(depth_m) == 20_209
    np.testing.assert_allclose(depth_m, expected_m, atol=0.01)
    capsys.readouterr()
    assert prepare.main([*words, str(tmp_path / "on")]) == 0
    assert "3.9% of 80836 drawn pixels are dropped: nearer points hide theirs" in capsys.readouterr().out


@pytest.mark.skipif(not SAMPLES, reason="DEPTH_SAMPLES names no folder of samples")
@pytest.mark.parametrize("camera", ["CAMERA_01", "CAMERA_06"])
def test_projected_points_of_a_rig(tmp_path: Path, camera: str) -> None:
    scene = Path(SAMPLES or "") / "ddad_rig/scene_01"
    time = "15569195938415230"
    for folder in ("rgb", "points"):
        (tmp_path / folder).mkdir()
    for i in range(3):
        image, points = scene / "rgb" / camera / f"{time}.jpg", scene / "points_in_view" / f"{camera}_{time}.npz"
        (tmp_path / f"rgb/{i}.jpg").write_bytes(image.read_bytes())
        (tmp_path / f"points/{i}.npz").write_bytes(points.read_bytes())
    words = ["lidar", str(tmp_path / "rgb"), str(tmp_path / "points"), "--columns", "u,v,z", "--no-check"]
    assert prepare.main([*words, "--output", str(tmp_path / "out")]) == 0
    expected_m = read_png16(str(scene / "depth_projected" / camera / f"{time}.png")) / 256
    depth_m = read_depth_m(tmp_path / "out", "0.png")
    # The sample's points are those of u >= 0; its depth was drawn from those between -0.5 and 0 too, which round to 0.
    lacking = np.argwhere((expected_m > 0) & (depth_m == 0))
    assert len(lacking) == {"CAMERA_01": 2, "CAMERA_06": 1}[camera] and not lacking[:, 1].any()
    expected_m[lacking[:, 0], 0] = 0
    np.testing.assert_array_equal(depth_m > 0, expected_m > 0)
    np.testing.assert_allclose(depth_m, expected_m, atol=0.01)
