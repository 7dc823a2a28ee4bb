"""Videos as phones write them: a rotation in the metadata, a variable frame rate. PyAV writes them, OpenCV reads."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from finetune.commands.predict import main
from finetune.inference.video import VideoFrames
from tests.commands.test_predict import picture
from tests.inference.test_batch import write_video
from tests.small_models import write_model

# Seconds of frames as a phone writes them that drops some in the dark.
VARIABLE = [0.0, 0.04, 0.1, 0.5, 0.54, 1.2, 2.0]
CONSTANT = [number / 25 for number in range(7)]
# Rows of the matrix in an MP4's track header (ISO/IEC 14496-12, 6.2.2): none, and a quarter turn clockwise.
_IDENTITY = [0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000]
_QUARTER_TURN = [0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000]


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


def test_a_video_of_a_phone_is_turned_upright(metric: str, tmp_path: Path) -> None:
    plain = write_video(tmp_path / "plain.mp4", 2)
    rows = [b"".join(number.to_bytes(4, "big", signed=True) for number in row) for row in (_IDENTITY, _QUARTER_TURN)]
    content = plain.read_bytes()
    header = content.index(b"tkhd")
    at = content.index(rows[0], header)
    assert at - header < 60
    turned = tmp_path / "turned.mp4"
    turned.write_bytes(content[:at] + rows[1] + content[at + 36 :])
    for lying, upright in zip(VideoFrames(plain), VideoFrames(turned), strict=True):
        np.testing.assert_array_equal(upright.image, cv2.rotate(lying.image, cv2.ROTATE_90_CLOCKWISE))
    assert main([metric, str(turned), "--output", str(tmp_path / "out"), "--frames"]) == 0
    assert np.load(tmp_path / "out" / "turned" / "000000.npy").shape == (64, 48)
