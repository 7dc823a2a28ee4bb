"""What the command makes of folders, patterns, lists, videos and cameras."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import trimesh
from plyfile import PlyData

from finetune.commands.predict import main
from finetune.data.camera import Camera, CameraOptions, camera_of
from finetune.data.preprocessing import Preprocessing
from finetune.data.readers.files import read_depth, read_image
from finetune.data.readers.scenes import Scenes
from finetune.inference.inputs import find_inputs
from finetune.inference.outputs import relative_preview, spread_range
from finetune.inference.point_cloud import point_cloud
from finetune.inference.predictor import load_model
from finetune.inference.video import CODEC
from finetune.reporting.images import colorize
from finetune.utils.errors import FinetuneError
from finetune.utils.kinds import Kind
from tests.commands.test_predict import names, picture, write_image
from tests.conftest import ROOT
from tests.small_models import write_model
from tests.utils.test_files import limited_files


@pytest.fixture(scope="module")
def metric(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_model(tmp_path_factory.mktemp("model") / "metric.safetensors"))


def write_video(path: Path, frames: int, *, rate: float = 12.0, size: tuple[int, int] = (48, 64)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate, size[::-1])
    assert writer.isOpened()
    for number in range(frames):
        writer.write(np.roll(picture(*size), number, axis=1))
    writer.release()
    return path


def cloud_of(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Points and RGB as trimesh reads them."""
    cloud: Any = trimesh.load(path)
    return np.asarray(cloud.vertices), np.asarray(cloud.colors)[:, :3]


def frames_of(path: Path) -> tuple[list[np.ndarray], float]:
    capture = cv2.VideoCapture(str(path))
    rate = capture.get(cv2.CAP_PROP_FPS)
    found: list[np.ndarray] = []
    while True:
        decoded, frame = capture.read()
        if not decoded:
            return found, rate
        found.append(frame)


def test_patterns_and_lists_name_images(metric: str, tmp_path: Path) -> None:
    for name in ("a/x.png", "b/y.png", "b/z.txt"):
        write_image(tmp_path / name) if name.endswith("png") else (tmp_path / name).write_text("no image")
    out = tmp_path / "by_pattern"
    assert main([metric, str(tmp_path / "*" / "*"), "--output", str(out)]) == 0
    assert [name for name in names(out) if name.endswith(".npy")] == ["x.npy", "y.npy"]
    listed = tmp_path / "some.txt"
    listed.write_text("# images\n\nb/y.png b/y_depth.png 500.0\n")
    assert main([metric, str(listed), "--output", str(tmp_path / "by_list")]) == 0
    assert names(tmp_path / "by_list") == ["y.npy", "y.png", "y_preview.png"]


def test_a_list_is_read_from_where_it_lies_and_then_from_here(
    metric: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    write_image(here / "x.png", picture(30, 44))
    write_image(there / "x.png", picture(40, 50))
    write_image(here / "z.png", picture(30, 44))
    (there / "list.txt").write_text("x.png\r\nz.png\r\n")
    monkeypatch.chdir(here)
    assert main([metric, str(there / "list.txt"), "--output", str(tmp_path / "out")]) == 0
    assert np.load(tmp_path / "out" / "x.npy").shape == (40, 50)
    assert np.load(tmp_path / "out" / "z.npy").shape == (30, 44)


@pytest.mark.parametrize(
    "text",
    [
        '"a 1.png" "depth/a 1.png" 40 40 20 15\nb.png depth/b.png 40 40 20 15\n',
        "depth,image,fx,fy,cx,cy\nd/a.png,a 1.png,40,40,20,15\nd/b.png,b.png,40,40,20,15\n",
        "a 1.png\tnone\t40\t40\t20\t15\rb.png\tnone\t40\t40\t20\t15\r",
        "a 1.png,40,40,20,15\u2028b.png,40,40,20,15",
    ],
)
def test_lists_are_read_as_those_for_training(tmp_path: Path, text: str) -> None:
    (tmp_path / ("list.csv" if text.startswith("depth") else "list.txt")).write_bytes(text.encode())
    for name in ("a 1.png", "b.png"):
        write_image(tmp_path / name)
    found = find_inputs([next(tmp_path.glob("list.*"))], tmp_path / "out")
    assert [(given.path.name, given.intrinsics) for given in found] == [
        ("a 1.png", (40, 40, 20, 15)),
        ("b.png", (40, 40, 20, 15)),
    ]


def test_a_line_may_be_a_name_with_spaces_or_a_comma(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("my photo.png\nits, depth.png\nx,y.png\n")
    for name in ("my photo.png", "its, depth.png", "x,y.png"):
        write_image(tmp_path / name)
    found = find_inputs([tmp_path / "list.txt"], tmp_path / "out")
    assert [given.path.name for given in found] == ["my photo.png", "its, depth.png", "x,y.png"]


def test_depth_beside_images_is_not_taken_for_one(metric: str, tmp_path: Path) -> None:
    write_image(tmp_path / "in" / "x.png")
    np.save(tmp_path / "in" / "y.npy", np.ones((30, 44), np.float32))
    np.savez(tmp_path / "in" / "z.npz", depth=np.ones((30, 44), np.float32))
    assert main([metric, str(tmp_path / "in"), "--output", str(tmp_path / "out")]) == 0
    assert names(tmp_path / "out") == ["x.npy", "x.png", "x_preview.png"]


def test_frames_of_a_video_are_seen_in_their_colors(metric: str, tmp_path: Path) -> None:
    video, out = write_video(tmp_path / "drive.mp4", 1), tmp_path / "out"
    assert main([metric, str(video), "--output", str(out), "--frames"]) == 0
    (bgr,), _ = frames_of(video)
    model = load_model(metric)
    (written,) = out.glob("drive/*.npy")
    assert np.load(written) == pytest.approx(model.predict(np.ascontiguousarray(bgr[..., ::-1])))
    assert np.load(written) != pytest.approx(model.predict(bgr))


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("*.jpg", "matches no image"),
        ("wrong.txt", "wrong.txt:2: gone.png is no file below"),
        ("bytes.txt", "is not UTF-8 text. Save the list"),
    ],
)
def test_paths_that_name_nothing(
    metric: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], path: str, said: str
) -> None:
    (tmp_path / "wrong.txt").write_text("# one line a frame\ngone.png\n")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    assert main([metric, str(tmp_path / path), "--output", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err


def test_what_is_done_is_left_alone(metric: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, out = write_image(tmp_path / "in" / "a.png"), tmp_path / "out"
    assert main([metric, str(first), "--output", str(out)]) == 0
    np.save(out / "a.npy", np.zeros(3))
    write_image(tmp_path / "in" / "b.png")
    assert main([metric, str(tmp_path / "in"), "--output", str(out), "--skip-existing"]) == 0
    assert np.load(out / "a.npy").shape == (3,)
    assert np.load(out / "b.npy").shape == (30, 44)
    assert "1 of 2 images done, 1 were there already" in capsys.readouterr().out
    # Unless it is asked for, all are done again.
    assert main([metric, str(tmp_path / "in"), "--output", str(out)]) == 0
    assert np.load(out / "a.npy").shape == (30, 44)


def test_units_of_the_png_and_range_of_the_preview(metric: str, tmp_path: Path) -> None:
    image = write_image(tmp_path / "a.png")
    previews = []
    for number, options in enumerate((["--png-units-per-meter", "256"], ["--range", "1,2"])):
        out = tmp_path / str(number)
        assert main([metric, str(image), "--output", str(out), *options]) == 0
        previews.append(read_image(out / "a_preview.png"))
    depth_m, counts = np.load(tmp_path / "0" / "a.npy"), read_depth(tmp_path / "0" / "a.png")
    assert np.abs(counts / 256 - depth_m).max() <= 0.5 / 256 + 1e-6
    assert (previews[0][:30] != previews[1][:30]).any()


def test_the_range_of_a_preview_may_be_that_of_its_image(
    metric: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = write_image(tmp_path / "a.png"), write_image(tmp_path / "b.png", picture(40, 60)[::-1])
    out = tmp_path / "out"
    assert main([metric, str(first), str(second), "--output", str(out), "--range", "auto"]) == 0
    for name, height in (("a", 30), ("b", 40)):
        depth_m = np.load(out / f"{name}.npy")
        low, high = np.percentile(depth_m, (2, 98)).tolist()
        assert (read_image(out / f"{name}_preview.png")[:height] == colorize(depth_m, low, high)).all()
        if name == "a":
            said = capsys.readouterr().out
            assert f"a.png: the preview's colors go from {low:.4g} to {high:.4g} m, the 2nd to the 98th" in said
            assert "so colors do not compare" in said
    # Otherwise a preview that shows little says so.
    assert main([metric, str(first), "--output", str(out)]) == 0
    said = capsys.readouterr().out
    assert "1 of 1, " in said
    assert "use less than a fifth of the preview's colors" in said
    assert "see more with --range auto" in said
    assert main([metric, str(first), "--output", str(out), "--range", "0,10"]) == 0
    assert "--range auto" not in capsys.readouterr().out


def test_the_range_of_a_video_is_that_of_its_first_frame(
    metric: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video, out = write_video(tmp_path / "v.mp4", 3), tmp_path / "out"
    assert main([metric, str(video), "--output", str(out), "--frames", "--range", "auto"]) == 0
    low, high = np.percentile(np.load(out / "v" / "000000.npy"), (2, 98)).tolist()
    assert f"v.mp4: the preview's colors go from {low:.4g} to {high:.4g} m" in capsys.readouterr().out
    last = colorize(np.load(out / "v" / "000002.npy"), low, high)
    assert (read_image(out / "v" / "000002_preview.png")[:48] == last).all()


def test_a_relative_model_takes_the_range_of_each_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    relative = str(write_model(tmp_path / "relative.safetensors", None))
    out = tmp_path / "out"
    assert main([relative, str(write_image(tmp_path / "a.png")), "--output", str(out), "--range", "auto"]) == 0
    inverse = np.load(out / "a_inverse.npy")
    far, near = np.percentile(inverse, (2, 98)).tolist()
    assert (read_image(out / "a_preview.png")[:30] == relative_preview(inverse, "relative", (far, near))[:30]).all()
    assert f"go from {far:.4g} to {near:.4g} relative" in capsys.readouterr().out


@pytest.mark.parametrize("value", [0.0, -2.0, 3.0])
def test_a_range_of_values_that_are_all_the_same(value: float) -> None:
    low, high = spread_range(np.full((20, 30), value, np.float32))
    assert low <= value < high
    assert np.isfinite(colorize(np.full((2, 2), value), low, high)).all()


@pytest.mark.parametrize("units", ["1e-300", "1.9", "1e-3"])
def test_a_png_of_hardly_a_step_is_refused(
    metric: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], units: str
) -> None:
    call = [metric, str(write_image(tmp_path / "a.png")), "--output", str(tmp_path / "out")]
    assert main([*call, "--png-units-per-meter", units]) == 2
    said = capsys.readouterr().err
    assert f"--png-units-per-meter {units}: from 0 to the max depth 10 m" in said.replace("0.001", "1e-3")
    assert "Write at least 2; 1000 is millimeters" in said
    assert not names(tmp_path / "out")
    assert main([*call, "--png-units-per-meter", "2"]) == 0


def test_depth_that_16_bits_do_not_hold_names_units_that_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    far = str(write_model(tmp_path / "far.safetensors", 200.0))
    image = write_image(tmp_path / "a.png")
    assert main([far, str(image), "--output", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "beyond 65.535 m, the most that 16 bits of 1/1000 m hold" in said
    assert "--png-units-per-meter 327." in said
    assert main([far, str(image), "--output", str(tmp_path / "out"), "--png-units-per-meter", "327"]) == 0


def test_flip_averages_with_the_mirrored_image(metric: str) -> None:
    model, image = load_model(metric), picture(64, 90)
    mirrored = model.predict(np.ascontiguousarray(image[:, ::-1]))[:, ::-1]
    assert model.predict(image, flip=True) == pytest.approx((model.predict(image) + mirrored) / 2, rel=1e-4)
    assert np.abs(model.predict(image, flip=True) - model.predict(image)).max() > 1e-4


def test_flip_is_what_the_command_writes(metric: str, tmp_path: Path) -> None:
    image = write_image(tmp_path / "a.png")
    assert main([metric, str(image), "--output", str(tmp_path / "out"), "--flip"]) == 0
    expected = load_model(metric).predict(read_image(image), flip=True)
    assert (np.load(tmp_path / "out" / "a.npy") == expected).all()


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((240, 320), (112, 154)),  # as ever
        ((100, 400), (112, 448)),  # 2.9 times as elongated as 112x154: still the lower bound
        ((32, 8000), (14, 616)),  # bounded: 4 times 154
        ((8000, 32), (448, 14)),
    ],
)
def test_elongated_images_are_bounded_by_their_longer_side(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert Preprocessing(input_size=(112, 154)).network_size(*size) == expected


def test_odd_sizes_are_predicted_and_said(metric: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, size in {"tiny": (32, 48), "strip": (32, 900), "large": (900, 1200)}.items():
        write_image(tmp_path / "in" / f"{name}.png", picture(*size))
    assert main([metric, str(tmp_path / "in"), "--output", str(tmp_path / "out")]) == 0
    assert np.load(tmp_path / "out" / "strip.npy").shape == (32, 900)
    assert np.load(tmp_path / "out" / "large.npy").shape == (900, 1200)
    said = capsys.readouterr().out
    assert "1 of 3, " in said
    assert "strip.png first, are more than 4 times as elongated as the training size" in said


def test_an_image_far_smaller_than_the_training_size_is_said(
    metric: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = write_image(tmp_path / "a.png", picture(12, 18))
    assert main([metric, str(image), "--output", str(tmp_path / "out")]) == 0
    assert "(18x12) first, are of a shape or size far from the training size 42x28" in capsys.readouterr().out
    # More than twice as elongated as what it was trained on; four times would be bounded.
    wide = write_image(tmp_path / "wide.png", picture(100, 320))
    assert main([metric, str(wide), "--output", str(tmp_path / "out")]) == 0
    assert "(320x100) first, are of a shape or size far from" in capsys.readouterr().out
    usual = write_image(tmp_path / "usual.png", picture(100, 280))
    assert main([metric, str(usual), "--output", str(tmp_path / "out")]) == 0
    assert "far from" not in capsys.readouterr().out


def test_a_video_keeps_its_rate_and_one_range(metric: str, tmp_path: Path) -> None:
    video = write_video(tmp_path / "drive.mp4", 7)
    out = tmp_path / "out"
    assert main([metric, str(video), "--output", str(out), "--frames", "--range", "0,5"]) == 0
    preview, rate = frames_of(out / "drive_preview.mp4")
    assert (len(preview), rate) == (7, pytest.approx(12.0))
    assert len(list((out / "drive").glob("*.npy"))) == 7
    assert names(out) == ["drive", "drive_preview.mp4"]
    # Each frame is what the image alone would be, in the colors of the same range.
    still = read_image(out / "drive" / "000003_preview.png")
    assert np.abs(preview[3][:40, :, ::-1].astype(int) - still[:40]).mean() < 12  # compressed


def test_the_preview_of_a_video_is_one_that_browsers_play(
    metric: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    video, out = write_video(tmp_path / "wide.mp4", 2, size=(300, 800)), tmp_path / "out"
    capfd.readouterr()
    assert main([metric, str(video), "--output", str(out), "--frames"]) == 0
    # The name of the codec in the table of the file. mp4v is in none that Chrome, Firefox and Safari play.
    content = (out / "wide_preview.mp4").read_bytes()
    assert CODEC.encode() in content
    assert b"mp4v" not in content
    (first, _), _ = frames_of(out / "wide_preview.mp4")
    assert first.shape[1] == 640
    still = read_image(out / "wide" / "000000_preview.png")[:300]
    smaller = cv2.resize(still, (640, 240), interpolation=cv2.INTER_NEAREST)
    assert np.abs(first[:240, :, ::-1].astype(int) - smaller).mean() < 12  # compressed
    assert capfd.readouterr().err == ""  # OpenCV warns there of codecs that do not fit


def test_a_full_disk_leaves_no_video_that_is_cut(
    metric: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    video, out = write_video(tmp_path / "drive.mp4", 5), tmp_path / "out"
    call = [metric, str(video), "--output", str(out)]
    assert main(call) == 0
    preview = out / "drive_preview.mp4"
    size = preview.stat().st_size
    preview.unlink()
    for limit in (300, size // 2, size - 1):
        capfd.readouterr()
        with limited_files(limit):
            assert main(call) == 2
        captured = capfd.readouterr()
        assert "drive_preview.mp4: 5 of its frames cannot be read back. Name an --output" in captured.err
        assert captured.err.count("\n") == 1
        assert "done" not in captured.out
        assert not names(out)


def test_a_full_disk_leaves_nothing_that_skip_existing_counts_as_done(metric: str, tmp_path: Path) -> None:
    call = [metric, str(write_image(tmp_path / "a.png")), "--skip-existing", "--points", "--hfov", "60", "--output"]
    assert main([*call, str(tmp_path / "whole")]) == 0
    whole = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    assert len(whole) == 4
    out = tmp_path / "out"
    for content in whole.values():
        with limited_files(len(content) - 1):
            assert main([*call, str(out)]) == 2
        assert "a.npy" not in names(out)
        assert all((out / name).read_bytes() == whole[name] for name in names(out))
    assert main([*call, str(out)]) == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == whole


def test_a_video_that_is_none(metric: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all")
    good = write_video(tmp_path / "good.mp4", 2)
    assert main([metric, str(broken), str(good), "--output", str(tmp_path / "out")]) == 1
    captured = capsys.readouterr()
    assert "broken.mp4: cannot be decoded as a video" in captured.err
    assert names(tmp_path / "out") == ["good_preview.mp4"]


def test_a_video_that_is_cut_off_is_done_so_far_and_said(
    metric: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, cut = tmp_path / "whole.avi", tmp_path / "cut.avi"
    writer = cv2.VideoWriter(str(whole), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (64, 48))
    for number in range(12):
        writer.write(np.roll(picture(48, 64), number, axis=1))
    writer.release()
    content = whole.read_bytes()
    cut.write_bytes(content[: len(content) // 2])
    # A file with a table of frames and nothing behind it.
    empty = write_video(tmp_path / "empty.mp4", 3)
    content = empty.read_bytes()
    start = content.index(b"mdat") + 4
    size = int.from_bytes(content[start - 8 : start - 4], "big") - 8
    empty.write_bytes(content[:start] + bytes(size) + content[start + size :])
    assert main([metric, str(whole), str(cut), str(empty), "--output", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "empty.mp4: has no frame that can be decoded" in said
    assert names(tmp_path / "out") == ["cut_preview.mp4", "whole_preview.mp4"]
    decoded = len(frames_of(tmp_path / "out" / "cut_preview.mp4")[0])
    assert 0 < decoded < 12
    assert (
        f"cut.avi: only {decoded} of the 12 frames that the file announces could be decoded; these are done. Copy it "
        in said
    )
    assert "whole.avi" not in said
    assert len(frames_of(tmp_path / "out" / "whole_preview.mp4")[0]) == 12


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length_of_a_video(metric: str, tmp_path: Path) -> None:
    code = (
        "import resource, sys; from finetune.commands.predict import main; status = main(sys.argv[1:]); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(status)"
    )
    peaks = []
    for frames in (60, 600):
        video = write_video(tmp_path / f"{frames}.mp4", frames, size=(240, 320))
        call = [sys.executable, "-c", code, metric, str(video), "--output", str(tmp_path / "out")]
        ended = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=True)
        peaks.append(int(ended.stdout.split()[-1]))
    assert peaks[1] <= 1.1 * peaks[0], peaks


def test_points_by_hand(metric: str, tmp_path: Path) -> None:
    image, out = write_image(tmp_path / "a.png"), tmp_path / "out"
    call = [metric, str(image), "--output", str(out), "--points", "--intrinsics", "40,50,20,10"]
    assert main(call) == 0
    depth_m, color = np.load(out / "a.npy"), read_image(image)
    vertices = PlyData.read(out / "a.ply")["vertex"]
    assert len(vertices) == 30 * 44
    at = 12 * 44 + 31  # row 12, column 31
    z = depth_m[12, 31]
    point = [(31 - 20) / 40 * z, (12 - 10) / 50 * z, z]
    assert [vertices[name][at] for name in ("x", "y", "z")] == pytest.approx(point)
    assert [vertices[name][at] for name in ("red", "green", "blue")] == color[12, 31].tolist()
    xyz_m, colors = cloud_of(out / "a.ply")
    assert xyz_m[at] == pytest.approx(point, rel=1e-6)
    assert (colors[at] == color[12, 31]).all()


def test_what_has_no_depth_is_no_point() -> None:
    depth_m = np.array([[2.0, 0.0, -1.0, np.nan, np.inf, 4.0]], np.float32)
    image = np.arange(18, dtype=np.uint8).reshape(1, 6, 3)
    cloud = point_cloud(depth_m, image, Camera(fx_px=10.0, fy_px=10.0, cx_px=0.0, cy_px=-10.0))
    assert cloud.xyz_m.tolist() == [[0.0, 2.0, 2.0], [2.0, 4.0, 4.0]]
    assert cloud.color.tolist() == [[0, 1, 2], [15, 16, 17]]


def test_a_plane_comes_back_as_a_plane(tmp_path: Path) -> None:
    sample = Scenes(count=1, size=(120, 160), objects=(1, 1))[0]
    assert sample.camera is not None
    cloud = point_cloud(sample.depth_m, sample.image, sample.camera)
    cloud.save(tmp_path / "room.ply")
    vertices = PlyData.read(tmp_path / "room.ply")["vertex"]
    points = np.stack([vertices[name] for name in ("x", "y", "z")], axis=-1).reshape(120, 160, 3)
    # A patch of the floor in the middle of the bottom row.
    patch = points[-12:, 70:90].reshape(-1, 3).astype(np.float64)
    _, spread, _ = np.linalg.svd(patch - patch.mean(axis=0))
    assert spread[2] / np.sqrt(len(patch)) < 1e-3  # meters
    assert spread[1] / np.sqrt(len(patch)) > 1e-2


def test_points_in_python_are_those_of_the_command(metric: str, tmp_path: Path) -> None:
    image, out = write_image(tmp_path / "a.png"), tmp_path / "out"
    call = [metric, str(image), "--output", str(out), "--points", "--hfov", "60"]
    assert main([*call, "--max-points", "100", "--edge-filter"]) == 0
    xyz_m, _ = cloud_of(out / "a.ply")
    focal_px = 22 / np.tan(np.radians(30))
    camera = (focal_px, focal_px, 21.5, 14.5)
    points = load_model(metric).points(read_image(image), camera, edge_ratio=0.05, max_points=100)
    assert len(points) == len(xyz_m) == 100
    assert xyz_m == pytest.approx(points.xyz_m)


def test_the_point_cloud_script_of_the_original_with_the_right_focal_length(metric: str, tmp_path: Path) -> None:
    image, out = write_image(tmp_path / "a.png", picture(40, 56)), tmp_path / "out"
    call = [metric, str(image), "--output", str(out), "--points", "--intrinsics", "60,60,28,20"]
    assert main(call) == 0
    depth_m = np.load(out / "a.npy")
    # Its formula: pixel minus half of the size, over the focal length, times depth.
    x, y = np.meshgrid(np.arange(56), np.arange(40))
    expected = np.stack([(x - 56 / 2) / 60 * depth_m, (y - 40 / 2) / 60 * depth_m, depth_m], axis=-1).reshape(-1, 3)
    assert cloud_of(out / "a.ply")[0] == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_intrinsics_of_another_size_are_told_by_their_center() -> None:
    # Focal length 615 at 640x480 is 307.5 at 320x240; the center (320 + 0.5) / 2 - 0.5 = 159.75.
    with pytest.raises(FinetuneError) as caught:
        camera_of((615, 615, 320, 240), 240, 320)
    said = str(caught.value)
    assert "the center (320, 240) of the intrinsics is not in the middle third of an image of 320x240" in said
    assert "give --intrinsics-size 640,480, which makes them 307.5,307.5,159.75,119.75" in said
    assert camera_of((615, 615, 320, 240), 240, 320, (640, 480)) == Camera(
        fx_px=307.5, fy_px=307.5, cx_px=159.75, cy_px=119.75
    )
    # Too small as well as too large, and of a shape that no other size explains.
    with pytest.raises(FinetuneError, match=r"makes them 1230,1230,640\.5,480\.5; if for 1280x960"):
        camera_of((615, 615, 320, 240), 960, 1280)
    with pytest.raises(FinetuneError, match=r"Give the size that they are for as --intrinsics-size W,H; 320,240 if"):
        camera_of((300, 300, 160, 20), 240, 320)
    # A crop may have its center anywhere, if it is said.
    assert camera_of((300, 300, 160, 20), 240, 320, (320, 240)).cy_px == 20
    assert camera_of((300, 300, 110, 155), 240, 320).cx_px == 110


def test_intrinsics_of_a_list_and_of_another_size(metric: str, tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    listed = tmp_path / "list.txt"
    clouds = []
    for line in ("a.png 40 50 20 10\n", "a.png a_depth.png 40 50 20 10\n"):
        listed.write_text(line)
        assert main([metric, str(listed), "--output", str(tmp_path / "one"), "--points"]) == 0
        clouds.append(cloud_of(tmp_path / "one" / "a.ply")[0])
    assert (clouds[0] == clouds[1]).all()
    twice = ["--points", "--intrinsics", "80,100,40.5,20.5", "--intrinsics-size", "88,60"]
    assert main([metric, str(tmp_path / "a.png"), *twice, "--output", str(tmp_path / "two")]) == 0
    of_list, rescaled = (cloud_of(tmp_path / name / "a.ply")[0] for name in ("one", "two"))
    assert rescaled == pytest.approx(of_list, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (["--points"], 2, "--points needs its camera. Give --intrinsics"),
        (["--points", "--intrinsics", "4,4,20,15"], 1, "under a tenth of the width, 44: millimeters?"),
        (["--points", "--intrinsics", "400,400,320,240"], 1, "is not in the middle third of an image of 44x30"),
        (["--points", "--intrinsics", "40,40,80,30", "--intrinsics-size", "88,60"], 1, "not in the middle third"),
        (["--points", "--intrinsics", "40,40,45,15", "--intrinsics-size", "44,30"], 1, "is outside an image of"),
        (["--points", "--intrinsics", "400,400,320,240", "--intrinsics-size", "640,640"], 1, "has another shape"),
        (["--points", "--intrinsics", "1,2,3"], 2, "is not fx,fy,cx,cy in pixels"),
        (["--points", "--hfov", "190"], 2, "is not degrees above 0"),
        (["--hfov", "60"], 2, "--hfov is for point clouds: add --points"),
        (["--points", "--hfov", "60", "--intrinsics", "40,40,20,15"], 2, "give one of them"),
        (["--points", "--intrinsics-size", "44,30"], 2, "--points needs its camera"),
        (["--points", "--hfov", "60", "--intrinsics-size", "44,30"], 2, "leave out one of them"),
        (["--intrinsics-size", "44,30"], 2, "--intrinsics-size is for point clouds: add --points"),
        (["--range", "5,2"], 2, "NEAR below FAR"),
        (["--png-units-per-meter", "0"], 2, "is not a number above 0"),
        (["--points", "--hfov", "60", "--max-points", "1.5"], 2, "is not a whole number above 0"),
    ],
)
def test_calls_that_cannot_be_meant(
    metric: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], status: int, said: str
) -> None:
    image = write_image(tmp_path / "a.png")
    try:
        found = main([metric, str(image), "--output", str(tmp_path / "out"), *options])
    except SystemExit as left:
        found = int(left.code or 0)
    assert found == status
    assert said in capsys.readouterr().err


def test_a_relative_model_has_no_points(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    relative = str(write_model(tmp_path / "relative.safetensors", None))
    image = write_image(tmp_path / "a.png")
    assert main([relative, str(image), "--output", str(tmp_path / "out"), "--points", "--hfov", "60"]) == 2
    assert "it knows no meters, so no points" in capsys.readouterr().err
    with pytest.raises(ValueError, match="it knows no meters, so there are no points"):
        load_model(relative).points(picture(), (40, 40, 20, 15))


def test_a_relative_video_is_a_preview_in_the_range_of_its_first_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    relative = str(write_model(tmp_path / "relative.safetensors", None))
    video = write_video(tmp_path / "v.mp4", 3)
    seen: list[tuple[np.ndarray, Any]] = []

    def watched(inverse: np.ndarray, kind: Kind, ends: Any = None) -> np.ndarray:
        seen.append((inverse, ends))
        return relative_preview(inverse, kind, ends)

    monkeypatch.setattr("finetune.inference.batch.relative_preview", watched)
    assert main([relative, str(video), "--output", str(tmp_path / "out")]) == 0
    assert len(frames_of(tmp_path / "out" / "v_preview.mp4")[0]) == len(seen) == 3
    ends = [(float(inverse.min()), float(inverse.max())) for inverse, _ in seen]
    assert ends[1] != ends[0]
    assert [used for _, used in seen] == [ends[0]] * 3


def test_a_relative_preview_keeps_to_the_ends_it_is_given() -> None:
    inverse = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32).repeat(20, 0).repeat(20, 1)
    assert (relative_preview(inverse, "relative") == relative_preview(inverse, "relative", (1.0, 4.0))).all()
    assert (relative_preview(inverse, "relative")[:40] != relative_preview(inverse, "relative", (0.0, 8.0))[:40]).any()


def test_a_relative_model_has_no_range_in_meters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    relative = str(write_model(tmp_path / "relative.safetensors", None))
    image = write_image(tmp_path / "a.png")
    assert main([relative, str(image), "--output", str(tmp_path / "out"), "--range", "0,5"]) == 2
    assert "it knows no meters, so no --range in meters" in capsys.readouterr().err


def test_points_that_are_missing_are_made(metric: str, tmp_path: Path) -> None:
    image, out = write_image(tmp_path / "a.png"), tmp_path / "out"
    assert main([metric, str(image), "--output", str(out)]) == 0
    call = [metric, str(image), "--output", str(out), "--skip-existing", "--points", "--hfov", "60"]
    assert main(call) == 0
    assert (out / "a.ply").exists()


def test_frames_of_a_video_that_are_missing_are_made(
    metric: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video, out = write_video(tmp_path / "v.mp4", 3), tmp_path / "out"
    call = [metric, str(video), "--output", str(out), "--skip-existing"]
    assert main(call) == 0
    for skipped in (False, True):
        capsys.readouterr()
        assert main([*call, "--frames"]) == 0
        assert ("1 were there already" in capsys.readouterr().out) is skipped
        assert len(list((out / "v").glob("*.npy"))) == 3
    (out / "v" / "000001.npy").unlink()
    assert main([*call, "--frames"]) == 0
    assert len(list((out / "v").glob("*.npy"))) == 3


def test_files_of_an_earlier_call_do_not_stay_next_to_another_prediction(
    metric: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    relative = str(write_model(tmp_path / "relative.safetensors", None))
    image, out = str(write_image(tmp_path / "a.png")), tmp_path / "out"
    for weights, prediction in ((metric, ["a.npy", "a.png"]), (relative, ["a_inverse.npy"])):
        call = [weights, image, "--output", str(out / Path(weights).stem)]
        points = ["--points", "--intrinsics", "40,40,21.5,14.5"] if weights == metric else []
        assert main([*call, "--confidence", *points]) == 0
        both = {"a_unsure.png", *(["a.ply"] if points else [])}
        assert both <= set(names(Path(call[-1])))
        assert main(call) == 0
        assert names(Path(call[-1])) == sorted([*prediction, "a_preview.png"])
    # Of a longer video, which had this name before.
    assert main([metric, str(write_video(tmp_path / "v.mp4", 4)), "--output", str(out), "--frames"]) == 0
    assert len(list((out / "v").iterdir())) == 4 * 3 + 1
    (out / "v" / "000009_mine.png").touch()
    call = [metric, str(write_video(tmp_path / "v.mp4", 2)), "--output", str(out), "--frames"]
    assert main(call) == 0
    assert len(list((out / "v").iterdir())) == 2 * 3 + 2
    assert main([*call, "--skip-existing"]) == 0
    assert "1 were there already" in capsys.readouterr().out


def test_cameras_of_a_field_of_view() -> None:
    camera = CameraOptions(hfov_deg=90.0).camera(100, 200)
    assert isinstance(camera, Camera)
    assert [camera.fx_px, camera.fy_px, camera.cx_px, camera.cy_px] == pytest.approx([100.0, 100.0, 99.5, 49.5])
    assert CameraOptions().camera(100, 200) is None
    with pytest.raises(FinetuneError, match="millimeters"):
        camera_of((3.5, 3.5, 100, 50), 100, 200)
