"""Pairs in the layout of DA-2K, scored by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from finetune.evaluation.ordinal_pairs import (
    AnnotatedImage,
    Pair,
    format_pair_scores,
    read_annotations,
    score_pairs,
    summarize_pairs,
)
from finetune.utils.errors import DataError, ListError

# Depth grows with the column, from 1 to 6 m; the last two columns are equal.
DEPTH_M = np.tile(np.array([1.0, 2.0, 3.0, 4.0, 6.0, 6.0], np.float32), (4, 1))


def pair(near: tuple[int, int], far: tuple[int, int], closer: str = "point1") -> dict[str, object]:
    points = {"point1": [*near], "point2": [*far]} if closer == "point1" else {"point1": [*far], "point2": [*near]}
    return {**points, "closer_point": closer}


def write(folder: Path, content: object) -> Path:
    path = folder / "annotations.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_pairs_by_hand(tmp_path: Path) -> None:
    content = {
        "images/indoor/a.jpg": [pair((0, 0), (3, 5)), pair((0, 5), (0, 0)), pair((1, 4), (1, 5))],
        "images/outdoor/b.jpg": [pair((2, 1), (2, 2), closer="point2")],
        "images/outdoor/none.jpg": [],
    }
    images = read_annotations(write(tmp_path, content))
    assert [image.name for image in images] == ["images/indoor/a.jpg", "images/outdoor/b.jpg"]
    results = [result for image in images for result in score_pairs(image, DEPTH_M, "metric")]
    assert [(result.near_value, result.far_value, result.is_right) for result in results] == [
        (1.0, 6.0, True),
        (6.0, 1.0, False),
        (6.0, 6.0, False),  # a tie is wrong
        (2.0, 3.0, True),
    ]
    overall, scenes = summarize_pairs(results)
    assert (overall.pairs, overall.right, overall.ties, len(overall.images)) == (4, 2, 1, 2)
    assert {name: score.accuracy for name, score in scenes.items()} == {"indoor": pytest.approx(1 / 3), "outdoor": 1.0}
    # By hand for 2 of 4, Wilson: (0.980182 -+ 0.686054) / 1.960364.
    assert overall.interval == pytest.approx((0.150036, 0.849964), abs=1e-5)
    table = format_pair_scores(overall, scenes).splitlines()
    assert table[-1].split() == ["overall", "2", "4", "2", "1", "50.0", "%", "15.0", "to", "85.0"]
    assert len({len(line) for line in table}) == 1


def test_the_direction_follows_from_the_kind_alone() -> None:
    near_left = Pair(near=(0, 0), far=(0, 3), place=0)
    image = AnnotatedImage(name="a.jpg", pairs=(near_left,), source=Path("a.json"))
    assert score_pairs(image, DEPTH_M, "metric")[0].is_right
    assert not score_pairs(image, DEPTH_M, "relative")[0].is_right
    assert score_pairs(image, 1 / DEPTH_M, "relative")[0].is_right
    assert not score_pairs(image, 1 / DEPTH_M, "metric")[0].is_right
    assert image.scene == "all"


def test_points_are_row_and_column(tmp_path: Path) -> None:
    # Row 3, column 5 is the last pixel; exchanged, it is outside.
    (image,) = read_annotations(write(tmp_path, {"a.jpg": [pair((3, 5), (0, 0))]}))
    (result,) = score_pairs(image, DEPTH_M, "metric")
    assert (result.near_value, result.far_value) == (6.0, 1.0)
    (image,) = read_annotations(write(tmp_path, {"a.jpg": [pair((0, 0), (5, 3))]}))
    with pytest.raises(DataError, match=r"row 5, column 3, outside the image of 4x6\. Row and column seem"):
        score_pairs(image, DEPTH_M, "metric")
    (image,) = read_annotations(write(tmp_path, {"a.jpg": [pair((0, 0), (9, 9))]}))
    with pytest.raises(DataError, match="at their size"):
        score_pairs(image, DEPTH_M, "metric")


def test_a_prediction_that_is_no_number_is_not_scored() -> None:
    image = AnnotatedImage(name="a.jpg", pairs=(Pair(near=(0, 0), far=(0, 3), place=0),), source=Path("a.json"))
    for value in (np.nan, np.inf):
        prediction = DEPTH_M.copy()
        prediction[0, 3] = value
        with pytest.raises(DataError, match="no finite number"):
            score_pairs(image, prediction, "metric")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a mapping"),
        ({}, "has no pairs"),
        ({"a.jpg": []}, "has no pairs"),
        ({"a.jpg": {}}, "has no list of pairs"),
        ({"a.jpg": [{"point1": [0, 0], "point2": [0, 1]}]}, "lacks one of"),
        ({"a.jpg": [{**pair((0, 0), (0, 1)), "closer_point": "point3"}]}, "closer_point 'point3'"),
        ({"a.jpg": [pair((0, 1), (0, 1))]}, "same point twice"),
        ({"a.jpg": [{**pair((0, 0), (0, 1)), "point1": [0, -1]}]}, r"point1 \[0, -1\]"),
        ({"a.jpg": [{**pair((0, 0), (0, 1)), "point1": [0]}]}, r"point1 \[0\]"),
        ({"a.jpg": [{**pair((0, 0), (0, 1)), "point1": [True, 0]}]}, "point1"),
        ('{"a.jpg": [], "a.jpg": []}', "'a.jpg' twice"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_wrong_annotations_are_one_sentence(content: object, found: str, tmp_path: Path) -> None:
    with pytest.raises(ListError, match=found) as stop:
        read_annotations(write(tmp_path, content))
    assert "\n" not in str(stop.value)


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.json", Path("\0")):
        with pytest.raises(ListError, match="cannot be read"):
            read_annotations(path)
