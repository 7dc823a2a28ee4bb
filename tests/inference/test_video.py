"""
Videos as phones write them: a rotation in the metadata, a variable frame rate.

PyAV writes them. OpenCV reads them, with the help of PyAV or without it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from finetune.commands.predict import main
from finetune.inference.video import Frame, VideoFrames
from tests.commands.test_predict import picture
from tests.inference.test_batch import write_video
from tests.small_models import write_model

# Seconds of frames as a phone writes them that drops some in the dark.
VARIABLE = [0.0, 0.04, 0.1, 0.5, 0.54, 1.2, 2.0]
CONSTANT = [number / 25 for number in range(7)]
# Frames of a camera that gives none for a second.
WITH_GAP = [number / 25 for number in (*range(10), *range(35, 50))]
# What the display matrix of an MP4's track header may say (ISO/IEC 14496-12, 6.2.2): (a, b, c, d) in it, and the same
# in NumPy.
ORIENTATIONS = {
    "stored upright": ((1, 0, 0, 1), lambda image: image),
    "quarter turn clockwise": ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
    "half turn": ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
    "quarter turn back": ((0, -1, 1, 0), lambda image: np.rot90(image)),
    "left is right": ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda image: image[::-1]),
    "transposed": ((0, 1, 1, 0), lambda image: image.swapaxes(0, 1)),
    "transposed the other way": ((0, -1, -1, 0), lambda image: np.rot90(image, 2).swapaxes(0, 1)),
}


@pytest.fixture(scope="module")
def metric(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_model(tmp_path_factory.mktemp("model") / "metric.safetensors"))


def write_timed(
    path: Path, seconds: Sequence[float], codec: str = "libx264", ticks: Fraction = Fraction(1, 90_000)
) -> Path:
    """A video whose frames have these time stamps. Its codec stores frames in another order than they are shown."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = 48, 64
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = ticks
        for number, at in enumerate(seconds):
            frame = av.VideoFrame.from_ndarray(np.roll(picture(48, 64), 4 * number, axis=1), format="rgb24")
            frame.pts, frame.time_base = round(at / ticks), ticks
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def read_times(path: Path) -> list[float]:
    header, *rows = path.read_text(encoding="utf-8").splitlines()
    assert header == "frame,seconds"
    assert [row.partition(",")[0] for row in rows] == [str(number) for number in range(len(rows))]
    return [float(row.partition(",")[2]) for row in rows]


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv", "webm"])
@pytest.mark.parametrize("seconds", [CONSTANT, VARIABLE], ids=["constant", "variable"])
def test_frames_keep_their_times(
    metric: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], ending: str, seconds: list[float]
) -> None:
    video = write_timed(tmp_path / f"v.{ending}", seconds, "libvpx-vp9" if ending == "webm" else "libx264")
    assert main([metric, str(video), "--output", str(tmp_path / "out"), "--frames"]) == 0
    assert read_times(tmp_path / "out" / "v" / "frames.csv") == pytest.approx(seconds, abs=1e-3)
    assert len(list((tmp_path / "out" / "v").glob("*.npy"))) == len(seconds)
    # A Matroska file announces the frames that its duration would hold at the highest rate.
    assert "could be decoded" not in capsys.readouterr().err


def test_frames_of_a_file_without_time_stamps_are_counted_at_its_rate(metric: str, tmp_path: Path) -> None:
    # In AVI the order in which such a codec stores frames makes their time stamps go back and forth.
    video = write_timed(tmp_path / "v.avi", CONSTANT, ticks=Fraction(1, 25))
    stamps = [frame.seconds for frame in VideoFrames(video)]
    assert stamps != sorted(set(stamps))
    rate = VideoFrames(video).frames_per_second
    assert main([metric, str(video), "--output", str(tmp_path / "out"), "--frames"]) == 0
    assert read_times(tmp_path / "out" / "v" / "frames.csv") == pytest.approx([n / rate for n in range(7)], abs=1e-6)


def test_times_are_written_with_frames_alone(metric: str, tmp_path: Path) -> None:
    video, out = write_timed(tmp_path / "v.mp4", VARIABLE), tmp_path / "out"
    assert main([metric, str(video), "--output", str(out)]) == 0
    assert [path.name for path in out.iterdir()] == ["v_preview.mp4"]
    call = [metric, str(video), "--output", str(out), "--frames", "--skip-existing"]
    assert main(call) == 0
    # Frames of an earlier version of this program have none.
    (out / "v" / "frames.csv").unlink()
    assert main(call) == 0
    assert read_times(out / "v" / "frames.csv") == pytest.approx(VARIABLE, abs=1e-6)


def turn_video(path: Path, turned: Path, a: int, b: int, c: int, d: int) -> Path:
    """A copy of an MP4 whose display matrix says that (a, b, c, d)."""

    def encode(a: int, b: int, c: int, d: int) -> bytes:
        rows = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]
        return b"".join(number.to_bytes(4, "big", signed=True) for number in rows)

    content = path.read_bytes()
    header = content.index(b"tkhd")
    at = content.index(encode(1, 0, 0, 1), header)
    assert at - header < 60
    turned.write_bytes(content[:at] + encode(a, b, c, d) + content[at + 36 :])
    return turned


def read_video(path: Path) -> tuple[list[Frame], list[float], float]:
    """Its frames, their times, its rate."""
    video = VideoFrames(path)
    rate = video.frames_per_second
    frames = list(video)
    return frames, video.frame_times([frame.seconds for frame in frames]), rate


def read_video_without_pyav(path: Path) -> tuple[list[Frame], list[float], float]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "av", None)
        return read_video(path)


def test_a_video_of_a_phone_is_turned_upright(metric: str, tmp_path: Path) -> None:
    plain = write_video(tmp_path / "plain.mp4", 2)
    turned = turn_video(plain, tmp_path / "turned.mp4", 0, 1, -1, 0)
    for lying, upright in zip(VideoFrames(plain), VideoFrames(turned), strict=True):
        np.testing.assert_array_equal(upright.image, cv2.rotate(lying.image, cv2.ROTATE_90_CLOCKWISE))
    assert main([metric, str(turned), "--output", str(tmp_path / "out"), "--frames"]) == 0
    assert np.load(tmp_path / "out" / "turned" / "000000.npy").shape == (64, 48)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_display_matrix(tmp_path: Path, orientation: str) -> None:
    plain = write_video(tmp_path / "plain.mp4", 2)
    matrix, expected = ORIENTATIONS[orientation]
    turned = turn_video(plain, tmp_path / "turned.mp4", *matrix)
    stored = [frame.image for frame in VideoFrames(plain)]
    shown = [frame.image for frame in read_video(turned)[0]]
    np.testing.assert_array_equal(shown, [expected(image) for image in stored])
    without = [frame.image for frame in read_video_without_pyav(turned)[0]]
    a, b, c, d = matrix
    is_mirror = a * d - b * c < 0  # OpenCV does not mirror
    assert np.array_equal(shown, without) is not is_mirror


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv", "webm"])
@pytest.mark.parametrize("seconds", [CONSTANT, VARIABLE], ids=["constant", "variable"])
def test_frames_and_times_are_the_same_without_pyav(tmp_path: Path, ending: str, seconds: list[float]) -> None:
    video = write_timed(tmp_path / f"v.{ending}", seconds, "libvpx-vp9" if ending == "webm" else "libx264")
    frames, times, _ = read_video(video)
    frames_without, times_without, _ = read_video_without_pyav(video)
    np.testing.assert_array_equal([frame.image for frame in frames], [frame.image for frame in frames_without])
    # Matroska rounds to milliseconds; both must read the same ones.
    assert times == pytest.approx(seconds, abs=5e-4)
    assert times == pytest.approx(times_without, abs=1e-9)


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv", "webm"])
def test_the_rate_of_a_variable_rate_is_its_mean(tmp_path: Path, ending: str) -> None:
    video = write_timed(tmp_path / f"v.{ending}", VARIABLE, "libvpx-vp9" if ending == "webm" else "libx264")
    # Six intervals in two seconds. The preview, at this rate, lasts as long as the video.
    assert read_video(video)[2] == pytest.approx(3.0, rel=1e-3)
    assert read_video_without_pyav(video)[2] > 10


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv", "webm", "avi"])
def test_the_rate_of_a_constant_rate_is_the_announced_one(tmp_path: Path, ending: str) -> None:
    video = write_timed(
        tmp_path / f"v.{ending}",
        CONSTANT,
        "libvpx-vp9" if ending == "webm" else "libx264",
        ticks=Fraction(1, 25 if ending == "avi" else 90_000),
    )
    assert read_video(video)[2] == read_video_without_pyav(video)[2] == 25.0


def test_gaps_of_an_avi_whose_codec_reorders_frames_are_kept(tmp_path: Path) -> None:
    video = write_timed(tmp_path / "v.avi", WITH_GAP, ticks=Fraction(1, 25))
    _, times, _ = read_video(video)
    _, times_without, _ = read_video_without_pyav(video)
    assert len(times) == len(WITH_GAP)
    assert np.diff(times).max() == pytest.approx(26 / 25)
    assert times[-1] == pytest.approx(WITH_GAP[-1])
    assert times_without == pytest.approx(np.arange(len(WITH_GAP)) / 25)


def test_a_video_that_pyav_cannot_read_is_read_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise av.FFmpegError(1, "a codec that this build leaves out")

    video = write_timed(tmp_path / "v.mp4", VARIABLE)
    expected = read_video_without_pyav(video)
    monkeypatch.setattr(av, "open", refuse)
    assert read_video(video)[1:] == expected[1:]


def test_pyav_is_imported_for_videos_alone() -> None:
    code = "import sys, finetune.inference.video, finetune.commands.predict; sys.exit('av' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
