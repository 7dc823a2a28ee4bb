"""The official splits: counts, digests, and the published lists themselves where they are at hand."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import pytest

from finetune.data.readers.splits import split_frames

LISTS = "splits/zhyever_toolbox"


def lines_of(path: Path) -> list[str]:
    if path.suffix == ".gz":
        with gzip.open(path, "rt") as file:
            return file.read().splitlines()
    return path.read_text().splitlines()


@pytest.mark.parametrize(
    ("name", "frames", "groups", "digest"),
    [
        ("nyuv2_train", 24231, 284, "d65a93f5ef878a9f38c173151616593798800f964955796978720bc67913ab91"),
        ("nyuv2_test", 654, 16, "89bb389c645b9a1322e1e1d839551a9858cae79a8f2c57473785e637b143e5d3"),
        ("kitti_eigen_train", 23158, 33, "067bd372939226cd4e3178a7e917bb4683b8ec2a6fc74bf294769e5c1118551e"),
        ("kitti_eigen_test", 652, 28, "5e60994cc32bed3e1600c2c3cb64401518c735e3203c4d0bb62bbb86f2249147"),
    ],
)
def test_counts_order_and_digest(name: str, frames: int, groups: int, digest: str) -> None:
    split = split_frames(name)
    assert len(split) == len(set(split)) == frames
    assert split == sorted(split)
    assert len({group for group, _ in split}) == groups
    assert hashlib.sha256("".join(f"{group} {frame}\n" for group, frame in split).encode()).hexdigest() == digest


@pytest.mark.parametrize("family", ["nyuv2", "kitti_eigen"])
def test_train_and_test_share_no_frame(family: str) -> None:
    assert not set(split_frames(f"{family}_train")) & set(split_frames(f"{family}_test"))


def test_together_they_stay_small() -> None:
    folder = Path(__file__).parents[3] / "finetune/data/readers/splits"
    assert sum(path.stat().st_size for path in folder.glob("*.json")) < 200_000


@pytest.mark.parametrize(("name", "list_file"), [("nyuv2_train", "nyu_train.txt.gz"), ("nyuv2_test", "nyu_test.txt")])
def test_nyu_is_the_published_list(samples: Path, name: str, list_file: str) -> None:
    ours = [
        f"{scene}/rgb_{frame:05}.jpg {scene}/sync_depth_{frame:05}.png 518.8579" for scene, frame in split_frames(name)
    ]
    published = [line.lstrip("/").replace(" /", " ") for line in lines_of(samples / LISTS / list_file)]
    assert ours == sorted(published)


@pytest.mark.parametrize(
    ("name", "list_file"),
    [("kitti_eigen_train", "kitti_eigen_train.txt.gz"), ("kitti_eigen_test", "kitti_eigen_test.txt")],
)
def test_kitti_is_the_published_list_without_frames_that_have_no_depth(
    samples: Path, name: str, list_file: str
) -> None:
    ours = [
        f"{drive[:10]}/{drive}/image_02/data/{frame:010}.png {drive}/proj_depth/groundtruth/image_02/{frame:010}.png"
        for drive, frame in split_frames(name)
    ]
    published = [line.rpartition(" ")[0] for line in lines_of(samples / LISTS / list_file)]
    assert ours == sorted(line for line in published if not line.endswith(" None"))


def test_kitti_test_is_the_validation_list_of_depth_anything_v2(samples: Path) -> None:
    named = [Path(line.split()[1]) for line in lines_of(samples / "splits/depth_anything_v2/kitti_val.txt.gz")]
    assert [path.parts[1] for path in named].count("data_depth_annotated") == 652
    theirs = sorted((path.parts[3], int(path.stem)) for path in named)
    assert theirs == split_frames("kitti_eigen_test")
    # As the docstring of the reader says.
    assert sorted(path.parts[2] for path in named) == ["train"] * 491 + ["val"] * 161
