"""Times from rows of text and from names."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune.prepare.sweep_times import read_times, times_in_names
from finetune.utils.errors import ListError

NAMES = ["0.png", "1.png", "2.png"]


def written(folder: Path, text: str) -> Path:
    (folder / "times.txt").write_text(text)
    return folder / "times.txt"


@pytest.mark.parametrize(
    "text",
    [
        "0.5\n0.75\n1e0\n",
        "# time\n\n0.5 0.png\n0.75 1.png\n1.0 2.png\n",
        "1.png, 0.75\n2.png, 1.0\n0.png, 0.5\n",
        "0.75 rgb/1\n1.0 rgb/2\n0.5 rgb/0\n9.0 rgb/9\n",
    ],
)
def test_rows_of_text(tmp_path: Path, text: str) -> None:
    assert read_times(written(tmp_path, text), NAMES) == [0.5, 0.75, 1.0]


def test_dates_of_kitti(tmp_path: Path) -> None:
    text = "2011-09-26 13:02:25.964389445\n2011-09-26 13:02:26.064389445\n2011-09-26T13:02:26.25\n"
    times = read_times(written(tmp_path, text), NAMES)
    # 2011-09-26 is day 15243 since 1970: 15243 * 86400 + 13 * 3600 + 2 * 60 + 25 = 1317042145
    assert times[0] == pytest.approx(1317042145.964389, abs=1e-6)
    assert times[1] - times[0] == pytest.approx(0.1, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.5\n0.75\n", "has 2 times for 3 files"),
        ("0.5 0.png\n0.75 1.png\n", r"has no time for 2\.png"),
        ("0.5\nnoon\n1\n", r"times\.txt:2: is 'noon', not a time and a name"),
        ("1.6e18\n1600000000100000000\n1600000000200000000\n", "are no seconds.*seem to be nanoseconds"),
        ("1600000000000000\n1600000000100000\n1600000000200000\n", "seem to be microseconds"),
        ("1600000000000\n1600000000100\n1600000000200\n", "seem to be milliseconds"),
        ("0\n100000000\n200000000\n", "seem to be nanoseconds"),
        ("0 1 2 3\n", r"times\.txt:1: is '0 1 2 3'"),
    ],
)
def test_rows_that_are_no_times(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ListError, match=message):
        read_times(written(tmp_path, text), NAMES)
    with pytest.raises(ListError, match="no such file"):
        read_times(tmp_path / "none.txt", NAMES)


def test_numbers_in_names_by_their_digits() -> None:
    names = ["n__CAM__1532402927612460.jpg", "1532402927.712460.png", "1532402927812460000.png", "1532402927912.png"]
    expected = [1532402927.61246, 1532402927.71246, 1532402927.81246, 1532402927.912]
    assert times_in_names(names) == pytest.approx(expected, abs=1e-6)
    assert times_in_names(["000001.png"]) is None
    assert times_in_names(["20110926130225.png"]) is None, "14 digits are a date"
    assert times_in_names(["0000000005.png", "0000000006.png"]) is None, "KITTI's raw data numbers its frames so"
