"""The canonical camera of a recipe, by hand; and each wrong use in its sentence."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from finetune.data.augmentation import Augmentation
from finetune.data.preprocessing import Preprocessing
from finetune.data.training_dataset import DepthRangePolicy, TrainingSamples
from finetune.models.checkpoints.load import read_checkpoint
from finetune.models.checkpoints.save import save_native
from finetune.models.training_camera import TrainingCamera
from finetune.recipe.load import load_recipe
from finetune.recipe.schema import Recipe
from finetune.training.cameras import RunCamera, make_run_camera
from finetune.utils.errors import CheckpointError, FinetuneError, RecipeFaults
from tests.conftest import ROOT, write_frame
from tests.runs import launch, require_same, rows
from tests.small_models import small_model

CANONICAL = ["data.camera.mode=canonical"]
LENSES_PX = {"short": 40.0, "middle": 50.0, "long": 80.0}


@pytest.fixture(scope="module")
def lenses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a list and intrinsics for each lens; frames are 60x80."""
    folder = tmp_path_factory.mktemp("lenses")
    rng = np.random.default_rng(0)
    for name, focal_px in LENSES_PX.items():
        for number in range(3):
            write_frame(folder, f"{name}{number}", rng.uniform(1.0, 8.0, (60, 80)))
        (folder / f"{name}.txt").write_text("".join(f"{name}{i}.jpg {name}{i}.png\n" for i in range(3)))
        of_lens = {"width": 80, "height": 60, "fx": focal_px, "fy": focal_px, "cx": 39.5, "cy": 29.5}
        (folder / f"{name}.json").write_text(json.dumps(of_lens))
    return folder


def entry(root: Path, name: str, *, intrinsics: bool = True) -> str:
    camera = f", intrinsics: {name}.json" if intrinsics else ""
    return f"{{reader: pairs, root: {root}, list: {name}.txt, meters_per_unit: 0.001{camera}}}"


def load(root: Path, *overrides: str, train: str = "middle", val: str = "middle") -> Recipe:
    path = root / "lenses.yaml"
    path.write_text(
        f"""\
model: {{checkpoint: {ROOT / "data" / "tiny_relative.safetensors"}, max_depth_m: 10.0}}
data:
  input_size: [56, 70]
  train: [{", ".join(entry(root, name) for name in train.split())}]
  val: [{", ".join(entry(root, name) for name in val.split())}]
  val_may_repeat_train: true
"""
    )
    return load_recipe(path, overrides)


def camera_of(recipe: Recipe, checkpoint: Path | None = None) -> RunCamera:
    found = read_checkpoint(str(checkpoint)) if checkpoint else None
    return make_run_camera(recipe, Preprocessing(input_size=recipe.data.input_size), found)


# 60x80 becomes 56x70: 0.9333 downwards and 0.875 across, so a lens of f is 0.904167 f.
SCALE = (56 / 60 + 70 / 80) / 2


def test_the_canonical_lens_is_the_median_and_the_head_reaches_for_the_nearest(lenses: Path) -> None:
    found = camera_of(load(lenses, *CANONICAL, train="short middle long"))
    assert found.canonical is not None
    assert found.canonical.focal_px == pytest.approx(50.0 * SCALE)
    assert found.canonical.seen_px == pytest.approx((40.0 * SCALE, 80.0 * SCALE))
    # The short lens is nearest: 10 m of it are 12.5 m of the canonical one.
    assert found.head_max_depth_m == pytest.approx(12.5)
    assert not found.warnings
    assert "the head ends at 12.5 m of the canonical lens" in found.notes[0]


def test_weights_count_in_the_median_and_a_focal_length_may_be_given(lenses: Path) -> None:
    heavy = load(lenses, *CANONICAL, "data.train.1.weight=3.0", train="short long")
    assert camera_of(heavy).canonical.focal_px == pytest.approx(80.0 * SCALE)  # type: ignore[union-attr]
    even = load(lenses, *CANONICAL, train="short long")
    assert camera_of(even).canonical.focal_px == pytest.approx(60.0 * SCALE)  # type: ignore[union-attr]
    given = camera_of(load(lenses, *CANONICAL, "data.camera.focal_px=100", train="short long"))
    assert given.canonical is not None and given.canonical.focal_px == 100.0
    assert given.head_max_depth_m == pytest.approx(10.0 * 100.0 / (40.0 * SCALE))


def test_validation_frames_of_a_shorter_lens_fit_as_well_and_a_zoom_is_seen(lenses: Path) -> None:
    found = camera_of(load(lenses, *CANONICAL, "augment.zoom=[1.0, 1.6]", val="short"))
    assert found.head_max_depth_m == pytest.approx(12.5)
    assert found.canonical is not None
    assert found.canonical.seen_px == pytest.approx((50.0 * SCALE, 80.0 * SCALE))
    assert not found.warnings


def test_without_canonical_labels_the_lens_of_the_training_is_kept(lenses: Path) -> None:
    found = camera_of(load(lenses, train="middle"))
    assert found.camera is not None and found.canonical is None
    assert (found.camera.mode, found.camera.max_depth_m) == ("none", 10.0)
    assert found.camera.focal_px == pytest.approx(50.0 * SCALE)
    assert found.head_max_depth_m == 10.0


def test_one_lens_cannot_teach_it(lenses: Path) -> None:
    (warning,) = camera_of(load(lenses, *CANONICAL)).warnings
    assert "one lens cannot teach" in warning and ".175 to .326" in warning and "augment.zoom: [1.0, 1.6]" in warning


def test_zoom_without_canonical_labels_says_what_it_teaches(lenses: Path) -> None:
    (warning,) = camera_of(load(lenses, "augment.zoom=[1.0, 1.6]")).warnings
    assert "depth divided by the zoom" in warning and "wrong for another" in warning


def test_a_zoom_below_one_that_never_happens_is_said(lenses: Path) -> None:
    warning, _ = camera_of(load(lenses, "augment.zoom=[0.7, 1.6]")).warnings
    assert "no frame is larger than data.input_size in both directions" in warning


def test_an_entry_without_intrinsics_is_refused_with_the_ways_to_give_them(lenses: Path) -> None:
    for part in ("train", "val"):
        recipe = load(lenses, *CANONICAL, f"data.{part}.0.intrinsics=null")
        with pytest.raises(FinetuneError) as refused:
            camera_of(recipe)
        said = str(refused.value)
        assert "middle0.png has no intrinsics, and data.camera.mode is canonical" in said
        assert f"Give data.{part}.0.intrinsics: a JSON file with width, height, fx, fy, cx, cy" in said
        assert "data.camera.mode: none" in said


def keep(folder: Path, camera: TrainingCamera | None, max_depth_m: float) -> Path:
    """A metric checkpoint whose weights are all kept."""
    model = small_model(max_depth_m)
    model.camera = camera
    path = folder / "base.safetensors"
    save_native(path, model, {})
    return path


def base_camera(mode: str, focal_px: float) -> TrainingCamera:
    return TrainingCamera(mode=mode, focal_px=focal_px, seen_px=(focal_px, focal_px), max_depth_m=10.0)  # type: ignore[arg-type]


def test_weights_that_are_kept_keep_their_canonical_lens_and_head(lenses: Path, tmp_path: Path) -> None:
    base = keep(tmp_path, base_camera("canonical", 45.0), 20.0)
    found = camera_of(load(lenses, *CANONICAL, f"model.checkpoint={base}", train="short long"), base)
    assert found.canonical is not None and found.canonical.focal_px == 45.0
    assert found.head_max_depth_m == 20.0


def test_a_range_that_leaves_a_head_that_is_kept_is_an_error_with_the_number_to_write(
    lenses: Path, tmp_path: Path
) -> None:
    base = keep(tmp_path, base_camera("canonical", 60.0), 12.0)
    recipe = load(lenses, *CANONICAL, f"model.checkpoint={base}", train="short long")
    with pytest.raises(FinetuneError) as refused:
        camera_of(recipe, base)
    # 10 m are 10 * 60 / 36.167 = 16.59 m; the head's 12 m are 12 * 36.167 / 60 = 7.233 m of the short lens.
    assert "model.max_depth_m 10 is 16.59 m of the canonical lens for data.train.0" in str(refused.value)
    assert "Set model.max_depth_m: 7.233, or" in str(refused.value)
    fitting = load(lenses, *CANONICAL, f"model.checkpoint={base}", "model.max_depth_m=7.233", train="short long")
    assert camera_of(fitting, base).head_max_depth_m == 12.0


def test_weights_that_are_kept_and_another_camera_of_the_recipe_contradict(lenses: Path, tmp_path: Path) -> None:
    base = keep(tmp_path, base_camera("canonical", 45.0), 20.0)
    with pytest.raises(CheckpointError, match=r"canonical camera of 45 px, and data\.camera\.mode is none\. Set data"):
        camera_of(load(lenses, f"model.checkpoint={base}"), base)
    with pytest.raises(CheckpointError, match=r"data\.camera\.focal_px is 90, which would scale every prediction by 2"):
        camera_of(load(lenses, *CANONICAL, "data.camera.focal_px=90", f"model.checkpoint={base}"), base)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data.camera.focal_px=100"], r"data\.camera\.focal_px is 100.*expected auto"),
        (["data.camera.mode=canon"], r"data\.camera\.mode is 'canon'; expected one of none, canonical"),
        (["data.camera=canonical"], r"data\.camera is 'canonical'; expected a mapping with the keys mode, focal_px"),
        (["augment.zoom=[1.6, 1.0]"], r"augment\.zoom is \[1\.6, 1\.0\]; expected \[least, most\] between 0\.25 and 4"),
        (["augment.zoom=[1.0, 9.0]"], r"augment\.zoom is \[1\.0, 9\.0\]"),
        (
            [*CANONICAL, "model.head=relative", "loss=[{kind: ssi}]"],
            r"data\.camera\.mode is 'canonical' and model\.head is 'relative' .*expected none",
        ),
    ],
)
def test_wrong_keys_are_named(lenses: Path, overrides: list[str], said: str) -> None:
    with pytest.raises(RecipeFaults, match=said):
        load(lenses, *overrides)


def test_a_canonical_recipe_exports_nothing_by_default(lenses: Path) -> None:
    assert load(lenses).export == ("official",)
    assert load(lenses, *CANONICAL).export == ()


def test_samples_without_these_keys_have_the_same_bits_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    recipe = load_recipe("recipes/room_tiny.yaml")
    samples = TrainingSamples(
        [entry.source for entry in recipe.data.train],
        [1.0],
        preprocessing=Preprocessing(input_size=(126, 154)),
        augmentation=Augmentation(flip=0.5, color=0.0),
        ranges=[DepthRangePolicy(max_depth_m=10.0)],
        seed=0,
    )
    found = hashlib.sha256()
    for item in samples.__getitems__(range(8)):
        found.update(item.sample.depth_m.tobytes())
        found.update(item.sample.valid.tobytes())
    # Computed by the version before zoom and canonical labels.
    assert found.hexdigest() == "6048a3b74da2e34678fe0aa4d92dec0379ccdc95ffbbe5e317759526640f5d24"


def run_for(steps: int) -> list[str]:
    """Overrides of a run of a few steps, each of them logged, on one thread."""
    every = [f"run.{key}={steps}" for key in ("steps", "evaluate_every_steps", "save_every_steps")]
    return [*every, "optim.warmup_steps=0", "run.log_every_steps=1", "run.threads=1", "export=[]"]


@pytest.mark.slow
def test_canonical_labels_of_one_lens_train_the_same_weights(lenses: Path, tmp_path: Path) -> None:
    """f_c is f, so every label is multiplied by 1, and every prediction as well."""
    load(lenses)
    for mode in ("none", "canonical"):
        call = [f"output={tmp_path}", f"name={mode}", f"data.camera.mode={mode}", *run_for(2)]
        assert launch(lenses / "lenses.yaml", *call) == 0
    require_same(tmp_path / "none", tmp_path / "canonical")
    weights = read_checkpoint(str(tmp_path / "canonical"))
    assert weights.camera is not None and weights.camera.is_canonical


@pytest.mark.slow
def test_a_run_without_these_keys_has_the_numbers_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert launch(Path("recipes/room_tiny.yaml"), *run_for(5), f"output={tmp_path}") == 0
    found = rows(tmp_path / "room_tiny")
    # Of the version before zoom and canonical labels; another processor rounds the last digits in another way.
    losses = [0.42591080, 0.81770005, 0.81769437, 0.51660994, 0.50431103]
    assert [float(row["loss"]) for row in found if row["loss"]] == pytest.approx(losses, rel=2e-3)
    abs_rels = [float(row["val_abs_rel"]) for row in found if row["val_abs_rel"]]
    assert abs_rels == pytest.approx([0.15788245, 0.19414758], rel=2e-3)
