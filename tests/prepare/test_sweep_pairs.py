"""Images and sweeps, paired by name or by time."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune.prepare.sweep_pairs import pair_sweeps
from finetune.utils.errors import ListError


def files(folder: str, *names: str) -> list[Path]:
    return [Path(folder) / name for name in names]


def test_by_stem() -> None:
    pairs = pair_sweeps(files("a", "0.png", "1.png", "2.png"), files("b", "1.bin", "2.bin", "3.bin"))
    assert [path.name for path in pairs.images] == ["1.png", "2.png"] and pairs.sweeps == [0, 1]
    assert pairs.times_s is None and pairs.sweep_times_s is None
    assert pairs.rule == "2 images and sweeps are paired by their names; 1 images and 1 sweeps are left over"


def test_by_the_times_in_the_names() -> None:
    images = files("a", "CAM_1532402927612460.jpg", "CAM_1532402927712460.jpg", "CAM_1532402927812460.jpg")
    sweeps = files("b", "L_1532402927622460.pcd.bin", "L_1532402927822460.pcd.bin")
    pairs = pair_sweeps(images, sweeps)
    assert [path.name for path in pairs.images] == [images[0].name, images[2].name] and pairs.sweeps == [0, 1]
    assert "2 images and sweeps are matched by time, 10.0 ms apart in the median" in pairs.rule
    assert pairs.times_s == pytest.approx([1532402927.61246, 1532402927.81246], abs=1e-6)


def test_by_rows_of_text(tmp_path: Path) -> None:
    (tmp_path / "i.txt").write_text("0.0\n0.1\n0.2\n")
    (tmp_path / "s.txt").write_text("0.22 late.pcd\n0.01 early.pcd\n")
    images, sweeps = files("a", "x.png", "y.png", "z.png"), files("b", "early.pcd", "late.pcd")
    times = (tmp_path / "i.txt", tmp_path / "s.txt")
    pairs = pair_sweeps(images, sweeps, times=times)
    assert [path.name for path in pairs.images] == ["x.png", "z.png"]
    assert [pairs.all_sweeps[i].name for i in pairs.sweeps] == ["early.pcd", "late.pcd"]
    with pytest.raises(ListError, match=r"all are farther apart than the tolerance\. Give a larger --tolerance"):
        pair_sweeps(images, sweeps, times=times, tolerance_s=0.001)
    (tmp_path / "s.txt").write_text("1500.22 late.pcd\n1500.01 early.pcd\n")
    with pytest.raises(ListError, match=r"those of sweeps from 1500\.010 .* of other clocks"):
        pair_sweeps(images, sweeps, times=times)


def test_files_that_do_not_belong_together() -> None:
    with pytest.raises(ListError, match=r"hold no two files of one name \(x\.png, y\.bin\), .* no times"):
        pair_sweeps(files("a", "x.png"), files("b", "y.bin"))
    with pytest.raises(ListError, match="b: holds several sweeps named 0"):
        pair_sweeps(files("a", "0.png"), files("b", "0.bin", "0.pcd"))
