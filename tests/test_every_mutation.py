"""Recipes, images, depth maps and weights files, changed at random: a sentence or a sound value, nothing else."""

from __future__ import annotations

import io
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from finetune.data.readers.files import read_depth, read_image
from finetune.data.readers.pairs import Pairs
from finetune.models.checkpoints.fill import whole_network
from finetune.models.checkpoints.load import Checkpoint, read_checkpoint
from finetune.recipe.load import load_recipe, recipe_mapping, recipe_text
from finetune.recipe.schema import Recipe
from finetune.utils.errors import FinetuneError, RecipeFaults
from tests.conftest import RECIPE
from tests.drawn_weights import drawn_model

# The same mutations each time: what is found once is found again, and a green run stays green.
FIXED = settings(
    derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.text(max_size=8),
    st.just([]),
    st.just({}),
    st.lists(st.integers(-20, 700), max_size=3),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
    st.sampled_from(
        ["auto", "silog", "pairs", "1e-5", "1:30", "012", "yes", "${HOME}", "${NOT_SET}", "../..", "\0", "ü/ß"]
    ),
)


def keys_of(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of everything in nested mappings and lists."""
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [found for key, value in inner for found in ((*path, key), *keys_of(value, (*path, key)))]


def mutated_mapping(content: dict[str, Any], draw: Callable[[st.SearchStrategy[Any]], Any]) -> set[str]:
    """Change one to three places; returns keys that no recipe knows and that were put in."""
    unknown: set[str] = set()
    for _ in range(draw(st.integers(1, 3))):
        paths = keys_of(content)
        if not paths:
            break
        *parents, key = draw(st.sampled_from(paths))
        place: Any = content
        for parent in parents:
            place = place[parent]
        what = draw(st.sampled_from(["value", "remove", "unknown"]))
        if what == "value":
            place[key] = draw(VALUES)
        elif what == "remove":
            del place[key]
        elif isinstance(place, dict):
            name = f"no_such_{draw(st.integers(0, 9))}"
            place[name] = draw(VALUES)
            unknown.add(name)
    return unknown


def loaded(path: Path) -> Recipe | None:
    try:
        return load_recipe(path)
    except FinetuneError as error:
        assert str(error).strip()
        assert error.exit_status == 2
        return None


def require_sound(recipe: Recipe, path: Path) -> None:
    """What was accepted keeps what the schema promises, and its own text gives it again."""
    run, optim, model = recipe.run, recipe.optim, recipe.model
    assert (run.steps is None) != (run.epochs is None)
    assert run.batch_size >= 1 and run.accumulate >= 1
    assert all(side % 14 == 0 and side > 0 for side in recipe.data.input_size)
    assert 0 < optim.lr < np.inf and 0 < optim.lr_decoder < np.inf and 0 < optim.clip_norm < np.inf
    assert all(0 <= beta < 1 for beta in optim.betas) and 0 <= optim.ema_decay < 1
    assert model.max_depth_m is None or 0 < model.max_depth_m < np.inf
    assert all(0 < term.weight < np.inf for term in recipe.loss)
    assert all(0 < entry.weight < np.inf for entry in (*recipe.data.train, *recipe.data.val))
    again = path.with_name("again.yaml")
    again.write_text(recipe_text(recipe), encoding="utf-8")
    assert recipe_mapping(load_recipe(again)) == recipe_mapping(recipe)


@pytest.fixture(scope="module")
def recipe_values(frames: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp("mutated")
    checkpoint = folder / "weights.pth"
    checkpoint.write_bytes(b"")
    return RECIPE.format(output=folder / "runs", checkpoint=checkpoint, root=frames), folder / "mutated.yaml"


@settings(FIXED, max_examples=300)
@given(data=st.data())
def test_mutated_values_of_a_recipe(recipe_values: tuple[str, Path], data: st.DataObject) -> None:
    text, path = recipe_values
    content = yaml.safe_load(text)
    unknown = mutated_mapping(content, data.draw)
    try:
        path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    except (yaml.YAMLError, UnicodeEncodeError):
        return  # what cannot be written as a file cannot be read as one
    recipe = loaded(path)
    if recipe is not None:
        assert not unknown & {key for keys in keys_of(yaml.safe_load(path.read_text())) for key in keys}
        require_sound(recipe, path)


@settings(FIXED, max_examples=200)
@given(data=st.data())
def test_mutated_text_of_a_recipe(recipe_values: tuple[str, Path], data: st.DataObject) -> None:
    text, path = recipe_values
    path.write_bytes(mutated_bytes(text.encode(), data.draw, most_inserted=12))
    recipe = loaded(path)
    if recipe is not None:
        require_sound(recipe, path)


# What no person types, and a script may: too long, too deep, too large, and what no path can have.
HOSTILE = st.one_of(
    st.sampled_from(["[]", "{}", "[ ", '["']).map(lambda brackets: brackets[0] * 200 + brackets[1] * 200),
    st.sampled_from("9fx'").map(lambda letter: letter * 5000),
    st.sampled_from(["1e18", "1e999", "-1e18", "0x" + "f" * 5000, "1" + "0" * 17, "!!python/x", "\x85", "\u2028"]),
    st.sampled_from(["'a\0b'", '"a\\0b"', '"\\ud800"', "\udcff", "~no_such_user/x", "/dev/zero", "a/" * 3000]),
)
HOSTILE_KEYS = ["data.train." + "9" * 5000, "data.train.٣.root", "a." * 5000 + "b", "x" * 5000, "run..steps", "."]
KEYS = [
    *("name", "output", "seed", "model.checkpoint", "model.encoder", "model.max_depth_m", "model.lora.targets"),
    *("data.input_size", "data.train", "data.train.0.root", "data.train.0.list", "data.val.0.invalid", "data.workers"),
    *("loss", "loss.0.kind", "loss.0.lam", "optim.betas", "run.steps", "run.epochs", "run.batch_size", "run.threads"),
    *("data.accept", "run.overfit_batches", "evaluation.protocols", "export"),
]


@settings(FIXED, max_examples=30, phases=[Phase.generate])  # an example says enough, and shrinking a slow one is slow
@given(overrides=st.lists(st.tuples(st.sampled_from(KEYS + HOSTILE_KEYS), HOSTILE), min_size=1, max_size=2))
def test_hostile_overrides(recipe_values: tuple[str, Path], overrides: list[tuple[str, str]]) -> None:
    text, path = recipe_values
    path.write_text(text, encoding="utf-8")
    before = time.process_time()
    try:
        recipe = load_recipe(path, [f"{key}={value}" for key, value in overrides])
    except FinetuneError as error:
        lines = str(error).splitlines()
        assert all(len(line) <= 1100 and "command line" in line for line in lines), lines
    else:
        require_sound(recipe, path)
    assert time.process_time() - before < 3.0


@pytest.mark.parametrize("depth", [31, 100_000])
@pytest.mark.parametrize("brackets", ["[]", "{}"])
def test_a_recipe_nested_deeply_is_one_sentence(recipe_values: tuple[str, Path], depth: int, brackets: str) -> None:
    text, path = recipe_values
    inner = "{a: " * depth + "}" * depth if brackets == "{}" else brackets[0] * depth + brackets[1] * depth
    path.write_text(f"{text}extra: {inner}\n")
    with pytest.raises(FinetuneError, match="nested too deeply") as error:
        load_recipe(path)
    assert len(str(error.value)) < 300


def test_thousands_of_entries_and_faults_take_seconds(recipe_values: tuple[str, Path]) -> None:
    text, path = recipe_values
    entry = next(line for line in text.splitlines() if line.startswith("  train:")).removeprefix("  train: ")[1:-1]
    entries = "".join(f"    - {entry.replace('reader', 'colour: 1, weight: x, reader')}\n" for _ in range(400))
    path.write_text(text.replace(f"  train: [{entry}]", f"  train:\n{entries}"))
    before = time.process_time()
    with pytest.raises(RecipeFaults) as error:
        load_recipe(path)
    assert len(error.value.faults) == 800
    # Half of it is reading YAML. It took four times as long when each fault was compared with all before it.
    assert time.process_time() - before < 5.0


def mutated_bytes(content: bytes, draw: Callable[[st.SearchStrategy[Any]], Any], most_inserted: int = 64) -> bytes:
    """Flip bits, cut, insert and repeat, one to four times."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        if not changed:
            break
        # The first bytes say what a file is, and the last where the parts of an archive are.
        size = len(changed)
        place = draw(
            st.one_of(
                st.integers(0, size - 1), st.integers(0, min(size, 120) - 1), st.integers(max(0, size - 120), size - 1)
            )
        )
        what = draw(st.sampled_from(["flip", "cut", "insert", "remove", "repeat"]))
        if what == "flip":
            changed[place] ^= 1 << draw(st.integers(0, 7))
        elif what == "cut":
            del changed[place:]
        elif what == "insert":
            changed[place:place] = draw(st.binary(min_size=1, max_size=most_inserted))
        elif what == "remove":
            del changed[place : place + draw(st.integers(1, 64))]
        else:
            changed[place:place] = changed[place : place + draw(st.integers(1, 64))]
    return bytes(changed)


def encoded(array: np.ndarray, suffix: str) -> bytes:
    if suffix in (".npy", ".npz"):
        buffer = io.BytesIO()
        np.save(buffer, array) if suffix == ".npy" else np.savez_compressed(buffer, depth=array)
        return buffer.getvalue()
    done, data = cv2.imencode(suffix, array)
    assert done
    return bytes(data)


GENERATOR = np.random.default_rng(0)
IMAGES = {
    suffix: encoded(GENERATOR.integers(0, 255, (24, 32, 3), np.uint8), suffix)
    for suffix in (".png", ".jpg", ".bmp", ".tiff", ".webp", ".npy")
}
DEPTHS = {
    suffix: encoded(GENERATOR.integers(500, 5000, (24, 32)).astype(kind), suffix)
    for suffix, kind in (
        (".png", np.uint16),
        (".tiff", np.float32),
        (".npy", np.float32),
        (".npz", np.uint16),
        (".pgm", np.uint16),
    )
} | {
    ".points.tiff": encoded(GENERATOR.random((24, 32, 3), dtype=np.float32), ".tiff"),
    ".24bits.png": encoded(GENERATOR.integers(0, 255, (24, 32, 4), np.uint8), ".png"),
    ".pfm": b"Pf\n32 24\n-1.0\n" + GENERATOR.random((24, 32), dtype=np.float32).tobytes(),
    ".8bits.png": encoded(GENERATOR.integers(0, 255, (24, 32), np.uint8), ".png"),
}
INTRINSICS: dict[str, dict[str, Any]] = {
    "nerfstudio": {
        **{"w": 32, "h": 24, "fl_x": 30.0, "fl_y": 30.5, "cx": 15.5, "cy": 11.5, "camera_model": "OPENCV_FISHEYE"},
        **{"k1": 0.1, "k2": 0.2, "frames": [{"file_path": "image.png", "fl_x": 30.5}]},
    },
    "ros": {
        **{"width": 32, "height": 24, "K": [[30, 0, 15.5], [0, 30, 11.5], [0, 0, 1]]},
        **{"distortion_model": "plumb_bob", "D": [0.1, 0.1, 0.0, 0.01, 0.0]},
    },
    "of each image": {"image.png": {"width": 32, "height": 24, "fx": 30, "fy": 30, "cx": 15.5, "cy": 11.5}},
}


@settings(FIXED, max_examples=100)
@given(data=st.data())
def test_mutated_images(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    suffix = data.draw(st.sampled_from(sorted(IMAGES)))
    path = tmp_path_factory.getbasetemp() / f"mutated{suffix}"
    path.write_bytes(mutated_bytes(IMAGES[suffix], data.draw))
    try:
        image = read_image(path)
    except FinetuneError as error:
        assert str(path) in str(error)
    else:
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3


@settings(FIXED, max_examples=150)
@given(data=st.data())
def test_mutated_depth_maps(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp()
    suffix = data.draw(st.sampled_from(sorted(DEPTHS)))
    path = folder / f"depth{suffix}"
    path.write_bytes(mutated_bytes(DEPTHS[suffix], data.draw))
    (folder / "image.png").write_bytes(IMAGES[".png"])
    (folder / "list.txt").write_text(f"image.png {path.name}\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of NumPy, over numbers that nobody measured
        try:
            channels: Any = data.draw(st.sampled_from([None, None, "z", "r", "gray", "rgb24", "bgr24"]))
            read_depth(path, channels)
            options: dict[str, Any] = {"meters_per_unit": 0.001, "allow_8_bit": True, "depth_channels": channels}
            sample = Pairs(root=str(folder), list="list.txt", **options)[0]
        except FinetuneError as error:
            assert path.name in str(error)
        else:
            assert sample.depth_m.dtype == np.float32 and sample.depth_m.shape == (24, 32)
            assert np.isfinite(sample.depth_m[sample.valid]).all() and (sample.depth_m[sample.valid] > 0).all()


@settings(FIXED, max_examples=60)
@given(data=st.data())
def test_mutated_intrinsics(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp()
    content = json.loads(json.dumps(INTRINSICS[data.draw(st.sampled_from(sorted(INTRINSICS)))]))
    mutated_mapping(content, data.draw)
    text = json.dumps(content).encode()
    path = folder / data.draw(st.sampled_from(["i.json", "i.yaml", "i.csv"]))
    path.write_bytes(mutated_bytes(text, data.draw) if data.draw(st.booleans()) else text)
    (folder / "image.png").write_bytes(IMAGES[".png"])
    (folder / "range.png").write_bytes(DEPTHS[".png"])
    (folder / "list.txt").write_text("image.png range.png\n")
    options = {"meters_per_unit": 0.001, "depth_is": "range", "intrinsics": path.name}
    try:
        sample = Pairs(root=str(folder), list="list.txt", **options)[0]  # type: ignore[arg-type]
    except FinetuneError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000
    else:
        assert np.isfinite(sample.depth_m).all() and (sample.depth_m[sample.valid] > 0).all()


def weights_files() -> dict[str, bytes]:
    from finetune.models.checkpoints.official import Official

    tensors = Official.from_ours(drawn_model("tiny", None).state_dict())
    files = {"official.safetensors": save({name: tensor.half() for name, tensor in tensors.items()})}
    for name, legacy in (("official.pth", False), ("legacy.pth", True)):
        buffer = io.BytesIO()
        small = {name: tensor.half() for name, tensor in tensors.items()}
        torch.save({"model": small, "epoch": 3}, buffer, _use_new_zipfile_serialization=not legacy)
        files[name] = buffer.getvalue()
    return files


@pytest.fixture(scope="module")
def weights() -> dict[str, bytes]:
    return weights_files()


def read_whole(path: Path) -> Checkpoint:
    checkpoint = read_checkpoint(str(path))
    whole_network(checkpoint)
    return checkpoint


@settings(FIXED, max_examples=100)
@given(data=st.data())
def test_mutated_weights_files(
    weights: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(weights)))
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(mutated_bytes(weights[name], data.draw))
    try:
        checkpoint = read_whole(path)
    except FinetuneError as error:
        assert name in str(error)
        assert error.exit_status == 2
    else:
        assert (checkpoint.encoder, checkpoint.kind) == ("tiny", "relative")
        assert all(tensor.dtype == torch.float32 for tensor in checkpoint.tensors.values())
