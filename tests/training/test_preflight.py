"""One recipe, one entry made wrong at a time; the sentence must name the file, the key and the fix."""

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from finetune.data.readers import pairs
from finetune.recipe.load import load_recipe
from finetune.training.preflight import inspect_before_training, make_entry, quick_warnings, require_apart
from finetune.utils import registry
from finetune.utils.errors import DataError, ListError
from tests.conftest import write_frame


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["data.train.0.meters_per_unit=1.0"],
            "looks like millimeters (median 4.02 m), TUM's 1/5000 m (median 0.803 m), the 1/4000 m",
        ),
        (["data.val.0.meters_per_unit=1.0"], "data.val.0.meters_per_unit: 0.001, 0.0002, "),
        (["data.val.0.meters_per_unit=1.0"], "whichever the device or the data set says"),
        (["data.train.0.meters_per_unit=1.0", "data.train.0.max_depth_m=20.0"], "meters_per_unit: 0.001"),
        (["data.train.0.meters_per_unit=1e-6"], "looks like millimeters"),
        (["data.train.0.meters_per_unit=0.00390625"], "looks like millimeters"),
        (["model.max_depth_m=0.5"], "beyond model.max_depth_m 0.5"),
        (["model.max_depth_m=900.0"], "below 1 % of model.max_depth_m 900"),
    ],
)
def test_a_wrong_unit_or_range_is_named_with_its_fix(recipe: Path, overrides: list[str], expected: str) -> None:
    with pytest.raises(DataError) as stopped:
        inspect_before_training(load_recipe(recipe, overrides))
    assert expected in str(stopped.value)
    assert ".png" in str(stopped.value)


RELATIVE = ["model.head=relative", "model.max_depth_m=null", "evaluation.max_depth_m=10.0", "loss=[{kind: ssi}]"]


def test_without_max_depth_the_scored_range_says_what_is_plausible(recipe: Path) -> None:
    inspect_before_training(load_recipe(recipe, RELATIVE))
    with pytest.raises(DataError, match=r"beyond evaluation\.max_depth_m 10.*looks like millimeters"):
        inspect_before_training(load_recipe(recipe, [*RELATIVE, "data.train.0.meters_per_unit=1.0"]))


@pytest.mark.parametrize(
    ("overrides", "of_train", "of_val"),
    [
        ([], ("model.max_depth_m", 10.0), ("model.max_depth_m", 10.0)),
        (["evaluation.max_depth_m=5.0"], ("model.max_depth_m", 10.0), ("evaluation.max_depth_m", 5.0)),
        (RELATIVE, ("evaluation.max_depth_m", 10.0), ("evaluation.max_depth_m", 10.0)),
    ],
)
def test_each_part_of_the_data_is_held_against_its_own_limit(
    recipe: Path, overrides: list[str], of_train: tuple[str, float], of_val: tuple[str, float]
) -> None:
    read = load_recipe(recipe, overrides)
    assert [make_entry(read, f"data.{part}.0", []).limit for part in ("train", "val")] == [of_train, of_val]


def test_how_far_sky_is_says_nothing_of_the_unit(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.READERS, "skies", "tests.synthetic:Skies")
    train, _ = inspect_before_training(load_recipe(recipe, ["data.train=[{reader: skies}]"]))
    assert train.depth_m.max() <= 4.0
    assert train.valid_share == 1.0


def test_a_sound_recipe_passes_and_says_what_it_saw(recipe: Path) -> None:
    train, val = inspect_before_training(load_recipe(recipe))
    assert (train.key, val.key) == ("data.train.0", "data.val.0")
    assert train.valid_share == pytest.approx(1 - 15 / (48 * 64))
    assert 1.0 < np.median(train.depth_m) < 6.0


def test_eight_bit_depth_is_a_picture(recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "gray"
    folder.mkdir()
    write_frame(folder, "a", np.full((48, 64), 2.0))
    cv2.imwrite(str(folder / "a.png"), np.full((48, 64), 200, np.uint8))
    (folder / "train.txt").write_text("a.jpg a.png\n")
    with pytest.raises(DataError, match=r"a\.png: depth is stored in 8 bits"):
        inspect_before_training(load_recipe(recipe, [f"data.train.0.root={folder}"]))


def test_nothing_measured_names_what_to_check(recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    write_frame(folder, "a", np.zeros((48, 64)))
    (folder / "train.txt").write_text("a.jpg a.png\n")
    with pytest.raises(DataError, match=r"none of 1 depth maps of data\.train\.0.*invalid"):
        inspect_before_training(load_recipe(recipe, [f"data.train.0.root={folder}"]))


def test_limits_that_leave_nothing_are_named_and_no_unit_is(recipe: Path) -> None:
    with pytest.raises(DataError) as stopped:
        inspect_before_training(load_recipe(recipe, ["data.val.0.max_depth_m=0.3"]))
    said = str(stopped.value)
    assert "0% of the pixels are valid over 3 depth maps of data.val.0" in said
    assert "Check data.val.0: invalid (0.0,), min_depth_m 0.0, max_depth_m 0.3" in said
    assert "looks like" not in said
    assert "meters_per_unit" not in said


@pytest.mark.parametrize(
    ("elsewhere_m", "expected"),
    [
        (0.0, "1 measured pixel an image (0.033%) in the median of 1 depth maps of data.train.0. Check data.train.0: "),
        (
            65.535,
            "0.033% of the pixels are valid over 1 depth maps of data.train.0, though depth of median 3 m is there",
        ),
    ],
)
def test_one_valid_pixel_a_frame_is_no_wrong_unit(
    recipe: Path, tmp_path: Path, elsewhere_m: float, expected: str
) -> None:
    folder = tmp_path / "sparse"
    folder.mkdir()
    depth_m = np.full((48, 64), elsewhere_m)
    depth_m[20, 30] = 3.0
    write_frame(folder, "a", depth_m)
    (folder / "train.txt").write_text("a.jpg a.png\n")
    overrides = [f"data.train.0.root={folder}", "data.train.0.invalid=[0, 65535]"]
    with pytest.raises(DataError) as stopped:
        inspect_before_training(load_recipe(recipe, overrides))
    said = str(stopped.value)
    # 1 of 48 x 64 is 0.0326 %.
    assert expected in said
    assert "If it is as it should be, set data.accept: [few_points]." in said
    inspect_before_training(load_recipe(recipe, [*overrides, "data.accept=[few_points]"]))
    assert "invalid (0.0, 65535.0)" in said
    assert "looks like" not in said


def test_missing_files_are_counted_before_anything_is_decoded(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "holes"
    folder.mkdir()
    for number in range(60):
        write_frame(folder, f"{number:02}", np.linspace(1.0, 3.0, 64).reshape(8, 8))
    (folder / "train.txt").write_text("".join(f"{number:02}.jpg {number:02}.png\n" for number in range(60)))
    sound = load_recipe(recipe, [f"data.train.0.root={folder}"])
    assert len(inspect_before_training(sound)) == 2

    def decoded(*arguments: object) -> None:
        raise AssertionError(f"decoded {arguments}")

    monkeypatch.setattr(pairs, "read_stored_frame", decoded)
    # None of the 24 samples of 60 frames is the 31st.
    (folder / "30.jpg").unlink()
    with pytest.raises(ListError) as stopped:
        inspect_before_training(sound)
    assert str(stopped.value).startswith(f"{folder}/train.txt:31: {folder}/30.jpg does not exist. ")
    others = [f"{folder}/train.txt:{line}" for line in (41, 42)]
    for number, expected in (
        (40, f"1 more of the 60 frames looked for ({others[0]})"),
        (41, f"2 more of the 60 frames looked for ({', '.join(others)})"),
        (42, f"3 more of the 60 frames looked for ({', '.join(others)}, ...)"),
    ):
        (folder / f"{number}.png").unlink()
        with pytest.raises(ListError) as stopped:
            inspect_before_training(sound)
        assert f"does not exist, nor do files of {expected}" in str(stopped.value)


def written(folder: Path, store: Callable[[np.ndarray], np.ndarray], count: int = 4) -> str:
    """A folder of frames of a tilted wall, stored as millimeters become by ``store``; the override that names it."""
    folder.mkdir()
    lines = []
    for number in range(count):
        across = np.linspace(1 / (2.0 + number / 4), 1 / 5.0, 64)[None]
        depth_m = 1 / (across + np.linspace(0, 0.2, 48)[:, None])
        write_frame(folder, str(number), depth_m)
        cv2.imwrite(str(folder / f"{number}.png"), store(np.rint(1000 * depth_m).astype(np.uint16)))
        lines.append(f"{number}.jpg {number}.png\n")
    (folder / "train.txt").write_text("".join(lines))
    return f"data.train.0.root={folder}"


def points(count: int) -> Callable[[np.ndarray], np.ndarray]:
    def store(raw: np.ndarray) -> np.ndarray:
        kept = np.zeros_like(raw)
        kept.flat[:: raw.size // count] = raw.flat[:: raw.size // count]
        return kept

    return store


# What is stored, other overrides, the name that accepts it, and a piece of what is said.
JUDGED: dict[str, tuple[Callable[[np.ndarray], np.ndarray], list[str], str, str]] = {
    "turned bits": (lambda raw: (raw << 3) | (raw >> 13), [], "bits", "Set data.train.0.bits: rotated"),
    "eight points": (points(8), [], "few_points", "8 measured pixels an image (0.26%) in the median of 4 depth maps"),
    "nothing": (np.zeros_like, [], "few_points", "none of 4 depth maps of data.train.0 has a measured pixel"),
    "one depth": (lambda raw: np.full_like(raw, 2000), [], "constant", "the same depth at all its pixels"),
    "wrong unit": (lambda raw: raw, ["data.train.0.meters_per_unit=1.0"], "unit", "looks like millimeters"),
    "short range": (lambda raw: raw, ["model.max_depth_m=1.0"], "max_depth", "Set model.max_depth_m: 5"),
}


@pytest.mark.parametrize("name", JUDGED)
def test_every_judgment_has_a_name_that_accepts_it(recipe: Path, tmp_path: Path, name: str) -> None:
    store, others, accept, said = JUDGED[name]
    # The validation frames are those of the fixture, which are sound.
    overrides = [written(tmp_path / "judged", store), *others]
    with pytest.raises(DataError) as stopped:
        inspect_before_training(load_recipe(recipe, overrides))
    assert said in str(stopped.value)
    assert str(stopped.value).endswith(f"If it is as it should be, set data.accept: [{accept}].")
    names = {accept, "max_depth"} if name == "short range" else {accept}
    train, _ = inspect_before_training(load_recipe(recipe, [*overrides, f"data.accept=[{', '.join(sorted(names))}]"]))
    assert train.key == "data.train.0"


def test_what_is_accepted_hides_no_other_fault(recipe: Path, tmp_path: Path) -> None:
    overrides = [written(tmp_path / "judged", lambda raw: points(8)(np.full_like(raw, 60_000)))]
    refused: tuple[tuple[list[str], str], ...] = (
        ([], "beyond model.max_depth_m"),
        (["unit"], "8 measured pixels an image"),
        (["unit", "few_points"], "the same depth at all its pixels"),
    )
    for accepted, said in refused:
        with pytest.raises(DataError, match=said):
            inspect_before_training(load_recipe(recipe, [*overrides, f"data.accept=[{', '.join(accepted)}]"]))
    accepted = [*refused[-1][0], "constant"]
    inspect_before_training(load_recipe(recipe, [*overrides, f"data.accept=[{', '.join(accepted)}]"]))


def test_turned_bits_are_read_by_the_keys_that_are_suggested(recipe: Path, tmp_path: Path) -> None:
    overrides = [written(tmp_path / "turned", lambda raw: (raw << 3) | (raw >> 13)), "data.train.0.bits=rotated"]
    train, _ = inspect_before_training(load_recipe(recipe, overrides))
    assert 2.0 < np.median(train.depth_m) < 5.0


def test_what_counts_is_the_number_of_points_and_not_their_share(recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "large"
    folder.mkdir()
    raw = np.zeros((1080, 1920), np.uint16)
    raw[::90, ::190] = np.arange(132).reshape(12, 11) * 10 + 1500  # 132 points, 0.0064 %
    cv2.imwrite(str(folder / "a.png"), raw)
    cv2.imwrite(str(folder / "a.bmp"), np.zeros((1080, 1920, 3), np.uint8))
    (folder / "train.txt").write_text("a.bmp a.png\n")
    train, _ = inspect_before_training(load_recipe(recipe, [f"data.train.0.root={folder}"]))
    assert (train.points, train.valid_share) == (132, pytest.approx(132 / (1080 * 1920)))


def test_a_unit_that_differs_between_train_and_val_is_said_before_training(recipe: Path) -> None:
    read = load_recipe(recipe, ["data.train.0.meters_per_unit=0.0002"])
    (said,) = [one for one in quick_warnings(inspect_before_training(read), read) if "times apart" in one]
    assert said.startswith("data.val.0: the median depth of data.train.0 is 0.804 m and that of data.val.0 3.34 m, ")
    accepting = load_recipe(recipe, ["data.train.0.meters_per_unit=0.0002", "data.accept=[unit]"])
    assert not [one for one in quick_warnings(inspect_before_training(accepting), accepting) if "times apart" in one]


def test_a_link_to_a_training_frame_is_that_frame(frames: Path, recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "val"
    folder.mkdir()
    lines = []
    for number in (10, 11):
        for ending in ("jpg", "png"):
            shutil.copy(frames / f"{number}.{ending}", folder)
        lines.append(f"{number}.jpg {number}.png\n")
    (folder / "val.txt").write_text("".join(lines))
    require_apart(load_recipe(recipe, [f"data.val.0.root={folder}"]))
    # By another name, and in another folder.
    linked = shutil.copytree(folder, tmp_path / "linked")
    for ending in ("jpg", "png"):
        (linked / f"11.{ending}").unlink()
        (linked / f"11.{ending}").symlink_to(frames / f"03.{ending}")
    with pytest.raises(ListError, match=r"data\.val\.0 and data\.train\.0 .* share 1 frame, ") as caught:
        require_apart(load_recipe(recipe, [f"data.val.0.root={linked}"]))
    assert caught.value.code == "repeated"
