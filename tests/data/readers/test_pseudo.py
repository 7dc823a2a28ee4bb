"""The folder of a teacher's labels: units, confidence, frames that are left out, and what is refused."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from finetune.data.label_files import DISAGREEMENT_UNITS
from finetune.data.readers.pseudo import Pseudo
from finetune.inference.outputs import encode_disagreement
from finetune.recipe.load import load_recipe, recipe_text
from finetune.utils.errors import DataError, ListError, RecipeError, RecipeFaults
from tests.prepare.packing.small_packs import assert_same_frames, pack, recipe_of

COLUMNS = ("image", "label", "confidence", "unit", "teacher", "anchor", "scale", "shift", "inlier_share", "residual")
HEIGHT, WIDTH = 56, 70
UNIT = 7.5 / 65535


def write_png(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


def write_labels(folder: Path, kind: str = "metric", anchor: str = "metric", **info: object) -> Path:
    """Four frames: 0, 1 and 3 with inlier shares 0.9, 0.5 and 0.7; 2 was refused. Numbers rise from left to right."""
    rows = []
    for i in range(4):
        image = folder.parent / "photos" / f"{i}, a photo.png"
        write_png(image, np.full((HEIGHT, WIDTH, 3), 40 * i, np.uint8))
        row: dict[str, object] = dict.fromkeys([*COLUMNS, "refused"], "")
        row |= {"image": str(image), "teacher": "abc", "anchor": anchor}
        if i == 2:
            row["refused"] = "of 200 measured points 3 agree"
        else:
            numbers = np.linspace(1, 65535, WIDTH).round().astype(np.uint16)[None].repeat(HEIGHT, 0)
            numbers[0] = 0
            write_png(folder / f"labels/{i}.png", numbers)
            # Rows 0 to 27 agree; the others differ by ln 2 in depth.
            disagreement = np.zeros((HEIGHT, WIDTH), np.uint16)
            disagreement[28:] = round(math.log(2) * 1e4)
            write_png(folder / f"confidence/{i}.png", disagreement)
            row |= {"label": f"labels/{i}.png", "confidence": f"confidence/{i}.png", "unit": repr(UNIT)}
            row["inlier_share"] = "" if anchor == "none" else repr((0.9, 0.5, 0.0, 0.7)[i])
        rows.append(row)
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, [*COLUMNS, "refused"])
        table.writeheader()
        table.writerows(rows)
    (folder / "labels.json").write_text(json.dumps({"format": 1, "kind": kind, "anchor": anchor, **info}))
    return folder


def example(folder: Path) -> dict[str, object]:
    """Writes a folder of labels; the options that read it."""
    return {"root": str(write_labels(folder))}


def test_units_are_the_ones_of_the_command_that_writes() -> None:
    png = encode_disagreement(np.ones((2, 3), np.float32))  # the natural logarithm of a ratio of e
    written = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    assert written is not None and (written == DISAGREEMENT_UNITS).all()


def test_meters_are_numbers_times_the_unit_of_the_label(tmp_path: Path) -> None:
    reader = Pseudo(root=str(write_labels(tmp_path / "labels")))
    reader.check_paths()
    assert [Path(reader.source(i)).name for i in range(len(reader))] == ["0.png", "1.png", "3.png"]
    sample = reader[1]
    assert (sample.image == 40).all()
    assert sample.depth_m[5, -1] == np.float32(7.5)
    assert sample.depth_m[5, 0] == np.float32(UNIT)
    assert not sample.valid[0].any() and sample.valid[1:].all()
    assert (reader.depth_is, reader.has_pseudo_labels) == ("z", True)
    near = Pseudo(root=reader.root, max_depth_m=3.75)[0]
    assert near.valid[1:].mean() == pytest.approx(0.5)


def test_relative_labels_keep_their_inverse_depth_up_to_scale_and_shift(tmp_path: Path) -> None:
    reader = Pseudo(root=str(write_labels(tmp_path / "labels", kind="relative", anchor="none")))
    reader.check_paths()
    assert reader.depth_is == "affine_inverse"
    sample = reader[0]
    assert not sample.valid[0].any() and sample.valid[1:].all()
    inverse = 1 / sample.depth_m[1].astype(np.float64)  # 0.1 where the number is least, 1 where it is largest
    numbers = np.linspace(1, 65535, WIDTH).round()
    np.testing.assert_allclose(inverse, 0.1 + 0.9 * (numbers - 1) / 65534, rtol=1e-6)


def test_confidence_is_the_ratio_of_the_two_predictions(tmp_path: Path) -> None:
    root = str(write_labels(tmp_path / "labels"))
    plain, squared, none = (Pseudo(root=root, confidence_power=power)[0].weight for power in (1.0, 2.0, 0.0))
    assert plain is not None and squared is not None and none is None
    assert (plain[:28] == 1.0).all()
    np.testing.assert_allclose(plain[28:], 0.5, rtol=1e-4)
    np.testing.assert_allclose(squared[28:], 0.25, rtol=1e-4)
    for least, rows in ((0.0, 55), (0.49, 55), (0.51, 27), (0.99, 27)):
        assert Pseudo(root=root, min_confidence=least)[0].valid.sum() == rows * WIDTH, least


def test_frames_that_were_refused_or_are_badly_anchored_are_left_out_and_counted(tmp_path: Path) -> None:
    root = str(write_labels(tmp_path / "labels"))
    assert Pseudo(root=root).notes == (f"{root}: 3 of 4 frames; without 1 whose label was refused",)
    sure = Pseudo(root=root, min_inliers=0.7)
    assert [Path(sure.source(i)).name for i in range(len(sure))] == ["0.png", "3.png"]
    assert sure.notes[0].endswith(
        "2 of 4 frames; without 1 whose label was refused, 1 with fewer inliers than min_inliers 0.7"
    )
    with pytest.raises(ListError, match=r"labels\.csv: has no frame to train on: 1 refused, 3 below min_inliers 0\.95"):
        len(Pseudo(root=root, min_inliers=0.95))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"min_confidence": 1.0}, "min_confidence is 1.0; expected a number from 0 to below 1"),
        ({"min_inliers": -0.1}, "min_inliers is -0.1; expected a number from 0 to below 1"),
        ({"confidence_power": -1.0}, "confidence_power is -1.0; expected a number from 0 up"),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        Pseudo(root="anywhere", **options)


def test_options_that_make_no_sense_for_the_labels_are_named(tmp_path: Path) -> None:
    relative = str(write_labels(tmp_path / "relative", kind="relative", anchor="none"))
    with pytest.raises(
        RecipeError, match=r"max_depth_m is 5\.0; expected nothing, since these labels are inverse depth"
    ):
        Pseudo(root=relative, max_depth_m=5.0).check_paths()
    with pytest.raises(RecipeError, match=r"min_inliers is 0\.5; expected 0\.0, since these labels were not anchored"):
        Pseudo(root=relative, min_inliers=0.5).check_paths()


def test_a_folder_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    folder = write_labels(tmp_path / "labels")
    (folder / "labels.json").unlink()
    with pytest.raises(RecipeError, match=r"expected a folder that finetune label has finished: this one has no lab"):
        Pseudo(root=str(folder)).check_paths()
    (folder / "labels.json").write_text('{"format": 9, "kind": "metric"}')
    with pytest.raises(ListError, match=r"labels\.json: has labels of format 9 and kind metric, and this program read"):
        Pseudo(root=str(folder)).check_paths()
    (folder / "labels.json").write_text("{")
    with pytest.raises(ListError, match=r"labels\.json: is damaged"):
        Pseudo(root=str(folder)).check_paths()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (repr(UNIT), "0", r"labels\.csv:2: its unit is 0, and not a number above 0"),
        (repr(UNIT), "m", r"labels\.csv:2: could not convert string to float: 'm'"),
        ("inlier_share", "inliers", r"labels\.csv: has no column inlier_share"),
    ],
)
def test_a_damaged_table_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    folder = write_labels(tmp_path / "labels")
    table = folder / "labels.csv"
    table.write_text(table.read_text().replace(old, new))
    with pytest.raises(ListError, match=said):
        len(Pseudo(root=str(folder)))


def test_maps_of_another_kind_or_size_are_named(tmp_path: Path) -> None:
    folder = write_labels(tmp_path / "labels")
    reader = Pseudo(root=str(folder))
    write_png(folder / "confidence/0.png", np.zeros((5, 5), np.uint16))
    with pytest.raises(DataError, match=r"confidence/0\.png: is 5x5, its image .* is 56x70\. Restore the image"):
        reader[0]
    write_png(folder / "labels/1.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    with pytest.raises(DataError, match=r"labels/1\.png: holds uint8, and finetune label writes 16 bits"):
        reader[1]
    (folder / "confidence/3.png").unlink()
    with pytest.raises(ListError, match=r"confidence/3\.png: does not exist"):
        reader.require_files(2)


def test_labels_without_a_unit_teach_no_meters(tmp_path: Path) -> None:
    entry = {"reader": "pseudo", "root": str(write_labels(tmp_path / "labels", kind="relative", anchor="none"))}
    with pytest.raises(
        RecipeFaults, match=r"data\.train\.0\.root is .* and model\.head is 'metric' .* expected labels in meters"
    ):
        recipe_of(tmp_path, entry, {"reader": "scenes", "count": 2, "size": [56, 70]})


def test_packed_labels_keep_their_weights_and_that_they_are_labels_of_a_teacher(tmp_path: Path) -> None:
    options: dict[str, Any] = {"root": str(write_labels(tmp_path / "labels"))}
    reader = Pseudo(**options)
    packed = pack(recipe_of(tmp_path, {"reader": "pseudo", **options}), tmp_path / "packed")
    assert_same_frames(reader, packed)
    assert packed.has_pseudo_labels
    weights = reader[0].weight, packed[0].weight
    assert weights[0] is not None and weights[1] is not None
    np.testing.assert_array_equal(*weights)
    assert load_recipe(tmp_path / "packed/recipe.yaml").data.train[0].source == packed


RELATIVE = ("model.head=relative", "evaluation.max_depth_m=10")
TRIMMED = [("ssi", 0.1)]


def losses_of(folder: Path, *overrides: str, **data: Any) -> list[tuple[str, float | None]] | None:
    """Kind and ``trim`` of the losses of an entry with a teacher's labels, as the recipe has them when it is read."""
    kind = "relative" if RELATIVE[0] in overrides else "metric"
    root = write_labels(folder / kind, kind=kind, anchor="none")
    scenes = {"reader": "scenes", "count": 2, "size": [56, 70]}
    recipe = recipe_of(folder, {"reader": "pseudo", "root": str(root)}, scenes, *overrides, **data)
    again = folder / "again.yaml"
    again.write_text(recipe_text(recipe))
    assert load_recipe(again) == recipe
    terms = recipe.data.train[0].loss
    return None if terms is None else [(term.kind, getattr(term.loss, "trim", None)) for term in terms]


def test_gradient_is_off_for_a_teachers_labels_unless_asked_for(tmp_path: Path) -> None:
    assert losses_of(tmp_path) is None  # silog and l1, as for all
    assert losses_of(tmp_path, "loss=[{kind: silog}, {kind: gradient}]") == [("silog", None)]
    assert losses_of(tmp_path, *RELATIVE) == TRIMMED
    assert losses_of(tmp_path, "model.head=relative_depth") == TRIMMED
    both = "loss=[{kind: ssi, trim: 0.2}, {kind: gradient, of: aligned}]"
    assert losses_of(tmp_path, *RELATIVE, both) == [("ssi", 0.2)]
    asked = "data.train.0.loss=[{kind: ssi}, {kind: gradient, of: aligned}]"
    assert losses_of(tmp_path, *RELATIVE, asked) == [("ssi", 0.0), ("gradient", None)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("data.train.0.loss=[{kind: silog, lamda: 1}]", r"loss\.0\.lamda is not an option of silog\. Did you mean lam"),
        ("data.train.0.loss=[]", r"data\.train\.0\.loss is \[\]; expected one or more losses, or null"),
        ("data.train.0.loss=silog", r"data\.train\.0\.loss is 'silog'; expected a list of mappings, or null"),
        ("data.train.0.loss=[{kind: ssi}]", r"data\.train\.0\.loss\.0\.kind is 'ssi' and model\.head is 'metric'"),
        ("data.val.0.loss=[{kind: l1}]", r"data\.val\.0\.loss is .*; expected nothing, since entries of data\.val are"),
    ],
)
def test_wrong_losses_of_an_entry_are_named(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(RecipeFaults, match=said):
        losses_of(tmp_path, line)
