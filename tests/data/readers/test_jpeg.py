"""JPEGs of which bytes are missing or wrong, which the decoder gives a picture for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from finetune.data.readers.files import read_image
from finetune.data.readers.jpeg import decode_with_warnings, jpeg_is_cut, jpeg_size
from finetune.utils.errors import DataError

SAMPLES = Path(os.environ.get("DEPTH_SAMPLES", "no samples"))


def picture(*options: int) -> bytes:
    """Of 200x300 pixels, with edges and noise."""
    rng = np.random.default_rng(0)
    smooth = cv2.resize(rng.integers(0, 255, (10, 15, 3), dtype=np.uint8), (300, 200), interpolation=cv2.INTER_NEAREST)
    noisy = np.clip(smooth + rng.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", noisy, list(options))[1].tobytes()


WHOLE = picture()
PROGRESSIVE = picture(cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
RESTARTED = picture(cv2.IMWRITE_JPEG_RST_INTERVAL, 8)


def read(path: Path, data: bytes) -> np.ndarray:
    path.write_bytes(data)
    return read_image(path)


@pytest.mark.parametrize("whole", [WHOLE, PROGRESSIVE, RESTARTED], ids=["plain", "progressive", "restarts"])
def test_a_sound_file_is_read_whatever_follows_it(
    tmp_path: Path, whole: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    expected = cv2.cvtColor(cv2.imdecode(np.frombuffer(whole, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    for behind in (b"", bytes(100), whole, b"ftypmp42 a short film"):
        np.testing.assert_array_equal(read(tmp_path / "a.jpg", whole + behind), expected)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("whole", [WHOLE, PROGRESSIVE, RESTARTED], ids=["plain", "progressive", "restarts"])
def test_what_is_cut_off_overwritten_or_has_a_hole_is_refused(
    tmp_path: Path, whole: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    middle = len(whole) * 2 // 3
    hole = whole[:middle] + bytes(4096) + whole[middle + 4096 :]
    noise = bytes(np.random.default_rng(1).integers(0, 255, 400, dtype=np.uint8))
    for data in (
        whole[:middle],
        whole[:-2],
        whole[:middle] + b"\xff\xd9",
        hole,
        whole[:middle] + noise + whole[middle + 400 :],
        whole[:middle] + bytes(len(whole) - middle),
    ):
        with pytest.raises(DataError, match=r"a\.jpg: is a damaged or truncated JPEG.* Write it again"):
            read(tmp_path / "a.jpg", data)
    assert "Corrupt JPEG" not in capfd.readouterr().err  # it is in the sentence


def test_padding_of_a_byte_or_two_that_cameras_write_does_no_harm(tmp_path: Path) -> None:
    expected = read(tmp_path / "a.jpg", RESTARTED)
    place = RESTARTED.index(b"\xff\xd1")
    padded = RESTARTED[:place] + bytes(2) + RESTARTED[place:]
    np.testing.assert_array_equal(read(tmp_path / "b.jpg", padded), expected)
    with pytest.raises(DataError, match="9 extraneous bytes"):
        read(tmp_path / "c.jpg", RESTARTED[:place] + bytes(9) + RESTARTED[place:])


def test_the_end_marker_is_no_part_of_a_comment_or_a_thumbnail() -> None:
    inside = b"\xff\xfe" + (2 + len(WHOLE)).to_bytes(2, "big") + WHOLE
    commented = WHOLE[:2] + inside + WHOLE[2:]
    assert not jpeg_is_cut(commented)
    assert jpeg_is_cut(commented[: -len(WHOLE) // 2])
    assert jpeg_is_cut(commented[:-2])
    assert not jpeg_is_cut(b"\x89PNG")


def test_what_others_write_to_stderr_meanwhile_is_passed_on(capfd: pytest.CaptureFixture[str]) -> None:
    def decode() -> int:
        os.write(2, b"a bar of progress\nCorrupt JPEG data: premature end of data segment\nand more")
        return 7

    assert decode_with_warnings(decode) == (7, "Corrupt JPEG data: premature end of data segment")
    assert capfd.readouterr().err == "a bar of progress\nand more"


def test_a_process_without_stderr_reads_images(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(WHOLE)
    code = "import os; os.close(2)\nfrom finetune.data.readers.files import read_image\n"
    code += "print(read_image('a.jpg').shape)"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    assert done.stdout == "(200, 300, 3)\n"


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="DEPTH_SAMPLES names no folder of samples")
def test_every_sound_sample_passes() -> None:
    paths = sorted(path for path in SAMPLES.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    assert paths
    for path in paths[::8]:
        read_image(path)


@pytest.mark.parametrize("progressive", [0, 1])
def test_the_size_is_that_of_the_frame_and_not_of_a_thumbnail(progressive: int) -> None:
    pixels = np.zeros((30, 41, 3), np.uint8)
    done, content = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive])
    _, thumbnail = cv2.imencode(".jpg", pixels[:8, :8])
    data = content.tobytes()
    assert done and jpeg_size(data) == (30, 41)
    block = b"Exif\0\0" + thumbnail.tobytes()
    with_thumbnail = data[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + data[2:]
    assert jpeg_size(with_thumbnail) == (30, 41)
    assert jpeg_size(data[: data.index(b"\xff\xda")][:60]) is None  # cut before the frame's header
    assert jpeg_size(b"") is None and jpeg_size(b"\x89PNG\r\n\x1a\n") is None
