from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from finetune.commands.export import main
from finetune.data.preprocessing import Preprocessing
from finetune.export.export import Comparison, export_model
from finetune.export.huggingface import HuggingFace, differing_sizes, transformers_size
from finetune.export.options import ExportOptions
from finetune.export.test_image import draw_dead_leaves
from finetune.inference.predictor import Predictor, load_model
from finetune.models.checkpoints.official import Official
from finetune.models.checkpoints.save import save_native
from finetune.utils.errors import CheckpointError, FinetuneError
from tests.drawn_weights import drawn_model, last_layer_that_varies, require_varied

TOLERANCE = 1e-4  # of the spread
CAMERA = (480, 640)


SIZE = {"preprocessing": Preprocessing(input_size=(112, 154)).to_mapping()}


def varied_model(
    folder: Path, encoder: str, max_depth_m: float | None, input_size: tuple[int, int], **variant: Any
) -> Predictor:
    """A model of drawn weights whose prediction for ``draw_dead_leaves()`` varies, as a file of ours."""
    preprocessing = Preprocessing(input_size=input_size)
    seen = torch.from_numpy(preprocessing(draw_dead_leaves(*CAMERA)))[None]
    last_layer = last_layer_that_varies(drawn_model(encoder, max_depth_m, **variant), seen)
    model = drawn_model(encoder, max_depth_m, last_layer, **variant)
    metadata = {"preprocessing": preprocessing.to_mapping(), "base": {"source": "b.pth", "license": "CC-BY-NC-4.0"}}
    save_native(folder / "m.safetensors", model, metadata)
    return load_model(folder / "m.safetensors")


def theirs_on(output: Path, pixel_values: Tensor) -> Tensor:
    """(1, 1, H, W), of transformers, loaded as its users do."""
    from transformers import AutoModelForDepthEstimation

    model = AutoModelForDepthEstimation.from_pretrained(output).eval()
    with torch.inference_mode():
        prediction: Tensor = model(pixel_values=pixel_values).predicted_depth[:, None]
    return prediction


def share(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs().max() / (expected.max() - expected.min())).item()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Predictor, Path]:
    """A metric V1 model and the folder of it; copy it before changing anything."""
    folder = tmp_path_factory.mktemp("exported")
    model = varied_model(folder, "tiny", 10.0, (112, 154), version="v1")
    export_model(model, "huggingface", folder / "hf", draw_dead_leaves(*CAMERA))
    return model, folder / "hf"


@pytest.fixture
def copied(exported: tuple[Predictor, Path], tmp_path: Path) -> tuple[Predictor, Path]:
    """The same, with a folder that may be changed."""
    model, folder = exported
    return model, Path(shutil.copytree(folder, tmp_path / "hf"))


CASES = [
    pytest.param("tiny", 10.0, (112, 154), {}, id="metric"),
    pytest.param("tiny", None, (112, 154), {}, id="relative", marks=pytest.mark.slow),
    pytest.param("tiny", 10.0, (112, 154), {"version": "v1"}, id="v1", marks=pytest.mark.slow),
    pytest.param("tiny", 10.0, (112, 154), {"position_offset": 0.0}, id="their positions", marks=pytest.mark.slow),
    # Wider than the stored positions, which are 37 x 37.
    pytest.param("tiny", 20.0, (518, 518), {}, id="wide", marks=pytest.mark.slow),
    pytest.param("vits", 10.0, (518, 518), {}, id="vits-metric", marks=pytest.mark.slow),
    pytest.param("vits", None, (252, 336), {}, id="vits-relative", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("encoder", "max_depth_m", "input_size", "variant"), CASES)
def test_given_the_same_pixels_transformers_predicts_the_same(
    encoder: str, max_depth_m: float | None, input_size: tuple[int, int], variant: dict[str, Any], tmp_path: Path
) -> None:
    model = varied_model(tmp_path, encoder, max_depth_m, input_size, **variant)
    export_model(model, "huggingface", tmp_path / "hf", draw_dead_leaves(*CAMERA))
    for seed in (1, 2):
        pixel_values = torch.from_numpy(model.preprocessing(draw_dead_leaves(*CAMERA, seed)))[None]
        ours, theirs = model(pixel_values), theirs_on(tmp_path / "hf", pixel_values)
        if seed == 1 and max_depth_m:
            require_varied(ours, 0.9 * max_depth_m)
        print(f"{share(theirs, ours):.1e} of the spread")
        assert share(theirs, ours) <= TOLERANCE


def test_our_own_loader_gives_back_what_was_exported(exported: tuple[Predictor, Path]) -> None:
    model, output = exported
    again = load_model(output)
    assert (again.kind, again.max_depth_m, again.network.version) == ("metric", 10.0, "v1")
    assert (again.preprocessing, again.base, again.notes[1:]) == (model.preprocessing, model.base, model.notes[1:])
    # At every size, not at that of the export alone.
    for height, width in (CAMERA, (300, 300), (200, 640)):
        image = draw_dead_leaves(height, width)
        np.testing.assert_array_equal(again.predict(image), model.predict(image))


@pytest.mark.parametrize(
    ("encoder", "kind"),
    [
        ("tiny", "metric"),
        pytest.param("tiny", "relative", marks=pytest.mark.slow),
        pytest.param("vits", "metric", marks=pytest.mark.slow),
    ],
)
def test_official_ours_huggingface_ours_official_is_bit_equal(encoder: str, kind: str, tmp_path: Path) -> None:
    first = Official.from_ours(drawn_model(encoder, None, (1.0, 30.0)).state_dict())
    torch.save(first, tmp_path / "first.pth")
    stated: dict[str, Any] = {"kind": kind, "max_depth_m": 20.0 if kind == "metric" else None, "version": "v2"}
    model = load_model(tmp_path / "first.pth", **stated, input_size=(112, 154))
    image = draw_dead_leaves(120, 160)
    # Not the size that positions are stored for, so that they are refitted.
    metadata = {"preprocessing": Preprocessing(input_size=(112, 154)).to_mapping()}
    for number in (1, 2):
        save_native(tmp_path / f"{number}.safetensors", model.network, metadata)
        model = load_model(tmp_path / f"{number}.safetensors")
        to, name = ("huggingface", "hf") if number == 1 else ("official", "last.pth")
        export_model(model, to, tmp_path / name, image)
        model = load_model(tmp_path / name)
    assert (tmp_path / "hf" / "finetune_positions.safetensors").exists()
    last = torch.load(tmp_path / "last.pth", weights_only=True)
    assert last.keys() == first.keys()
    for tensor_name, tensor in first.items():
        assert torch.equal(last[tensor_name], tensor), tensor_name


@pytest.mark.slow
@pytest.mark.parametrize("max_depth_m", [10.0, None])
def test_through_the_pipeline_the_difference_is_that_of_another_bicubic(
    max_depth_m: float | None, tmp_path: Path
) -> None:
    from PIL import Image
    from transformers import pipeline

    model = varied_model(tmp_path, "vits", max_depth_m, (518, 518))
    export_model(model, "huggingface", tmp_path / "hf", draw_dead_leaves(*CAMERA))
    pipe = pipeline("depth-estimation", model=str(tmp_path / "hf"))
    for seed in range(3):
        image = draw_dead_leaves(*CAMERA, seed)
        ours = model.predict(image)
        difference = np.abs(pipe(Image.fromarray(image))["predicted_depth"].squeeze().numpy() - ours) / np.ptp(ours)
        median, most = float(np.median(difference)), float(np.quantile(difference, 0.99))
        print(f"median {median:.1e}, 99th percentile {most:.1e} of the spread")
        assert median < 5e-3
        assert most < 3e-2
        if seed == 0:  # which is the one that it was compared on
            card = (tmp_path / "hf" / "README.md").read_text()
            assert f"median {median:.1e}, 99th percentile {most:.1e} of the spread" in card


def test_a_folder_that_stands_is_replaced_when_asked_by_what_the_card_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    varied_model(tmp_path, "tiny", 10.0, (112, 154))
    arguments = [str(tmp_path / "m.safetensors"), "--to", "huggingface", "--output", str(tmp_path / "hf")]
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "old.txt").write_text("")
    assert main(arguments) == 2
    assert "already there. Name another --output, or replace with --force." in capsys.readouterr().err
    assert main([*arguments, "--force"]) == 0
    printed = capsys.readouterr()
    assert printed.err.endswith("m.safetensors: license CC-BY-NC-4.0\n")
    line, piped = printed.out.splitlines()
    assert line.startswith(f"{tmp_path / 'hf'}: huggingface, reloaded: differs by at most ")
    assert "near half" in line and "far half" in line
    assert piped.startswith("through its own processor: median difference ")
    names = {path.name for path in (tmp_path / "hf").iterdir()}
    assert names == {
        "config.json",
        "preprocessor_config.json",
        "model.safetensors",
        "README.md",
        "finetune.json",
        "finetune_positions.safetensors",
    }
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert (config["depth_estimation_type"], config["max_depth"], type(config["max_depth"])) == ("metric", 10, int)
    assert config["backbone_config"]["out_indices"] == [2, 4, 6, 8]
    card = (tmp_path / "hf" / "README.md").read_text()
    median = piped.removeprefix("through its own processor: median difference ").partition(",")[0]
    assert f"median {float(median):.1e}, 99th percentile " in card
    for part in (
        "license: cc-by-nc-4.0",
        "No commercial use",
        "at most 10 m",
        "given the same `pixel_values`: largest",
    ):
        assert part in card


def test_the_card_of_a_run_has_its_recipe_and_its_table(tmp_path: Path) -> None:
    run = tmp_path / "run"
    model = varied_model(tmp_path, "tiny", 10.0, (112, 154))
    save_native(run / "best" / "model.safetensors", model.network, {"name": "mine", "recipe_sha256": "abc", **SIZE})
    (run / "recipe.yaml").write_text("name: mine\ndata: {train: [{reader: pairs}]}\n")
    rows = {"constant_median": {"abs_rel": 0.5}, "finetuned": {"abs_rel": 0.1}}
    (run / "evaluation.json").write_text(json.dumps([{"protocol": {"name": "plain"}, "rows": rows, "images_used": 7}]))
    output = tmp_path / "hf"
    HuggingFace().write(load_model(run), output)
    card = (output / "README.md").read_text()
    for part in ("# mine", "reader: pairs", "sha256 abc", "name plain on 7 images", "| finetuned | 0.1000 |"):
        assert part in card
    assert json.loads((output / "finetune.json").read_text())["name"] == "mine"


def test_nothing_that_is_published_holds_a_folder_of_the_machine_that_trained(tmp_path: Path) -> None:
    run, home = tmp_path / "run", "/home/someone/secret project"
    model = varied_model(tmp_path, "tiny", 10.0, (112, 154))
    base = {"source": f"{home}/weights/base.pth", "sha256": "0" * 64, "license": "Apache-2.0"}
    save_native(run / "best" / "model.safetensors", model.network, {"name": "mine", "base": base, **SIZE})
    (run / "recipe.yaml").write_text(
        f"name: mine\noutput: {home}/runs\nmodel: {{checkpoint: '{home}/weights/base.pth', max_depth_m: 10.0}}\n"
        f"data: {{train: [{{reader: pairs, root: ~/data/room, list: lists/train.txt, meters_per_unit: 1/1000}}]}}\n"
    )
    (run / "evaluation.json").write_text("{")
    output = tmp_path / "hf"
    HuggingFace().write(load_model(run), output)
    card = (output / "README.md").read_text()
    for part in ("base.pth", "root: room", "list: lists/train.txt", "meters_per_unit: 1/1000", "only the last name is"):
        assert part in card
    assert "evaluation.json of the run cannot be read" in card
    texts = [path.read_text() for path in output.iterdir() if path.suffix in (".md", ".json")]
    assert len(texts) == 4 and not any("secret" in text or "~/" in text for text in texts)
    assert json.loads((output / "finetune.json").read_text())["base"]["source"] == "base.pth"


@pytest.mark.parametrize(("max_depth_m", "nearest"), [(7.5, "7 or 8"), (0.4, "1")])
def test_a_fractional_max_depth_is_refused_with_the_nearest(max_depth_m: float, nearest: str, tmp_path: Path) -> None:
    model = varied_model(tmp_path, "tiny", max_depth_m, (112, 154))
    with pytest.raises(FinetuneError) as caught:
        export_model(model, "huggingface", tmp_path / "hf")
    assert str(caught.value) == (
        f"format huggingface: max depth is {max_depth_m:g} m, and transformers takes whole meters only. Train with "
        f"model.max_depth_m: {nearest}, or export another format."
    )
    assert not (tmp_path / "hf").exists()


def test_without_transformers_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["no_model", "--to", "huggingface", "--output", str(tmp_path / "hf")]) == 2
    assert "pip install -e '.[huggingface]'" in capsys.readouterr().err


def test_half_says_what_it_costs(tmp_path: Path) -> None:
    model = varied_model(tmp_path, "tiny", 10.0, (112, 154))
    comparison = export_model(
        model, "huggingface", tmp_path / "hf", draw_dead_leaves(*CAMERA), options=ExportOptions(precision="float16")
    )
    assert isinstance(comparison, Comparison)
    assert "huggingface, stored as float16, reloaded" in str(comparison)
    assert 1e-5 < comparison.largest / comparison.spread < 0.02
    stored = load_file(tmp_path / "hf" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}


def test_weights_that_were_changed_since_are_read_as_transformers_does(copied: tuple[Predictor, Path]) -> None:
    model, output = copied
    weights = load_file(output / "model.safetensors")
    weights["head.conv3.bias"] += 0.5
    save_file(weights, output / "model.safetensors", {"format": "pt"})
    again = load_model(output)
    assert again.notes == (f"{output / 'finetune.json'} is about other weights than model.safetensors: ignored",)
    assert (again.max_depth_m, again.network.position_offset) == (10.0, 0.0)
    pixel_values = torch.from_numpy(model.preprocessing(draw_dead_leaves(*CAMERA)))[None]
    theirs = theirs_on(output, pixel_values)
    assert share(again(pixel_values), theirs) <= TOLERANCE


def test_positions_that_are_gone_are_missed(copied: tuple[Predictor, Path]) -> None:
    _, output = copied
    (output / "finetune_positions.safetensors").unlink()
    with pytest.raises(CheckpointError, match="Export the folder again, or remove finetune"):
        load_model(output)


@pytest.mark.parametrize("spoiled", ["cut", "header", "empty", "another"])
def test_positions_that_are_damaged_are_one_sentence(copied: tuple[Predictor, Path], spoiled: str) -> None:
    _, output = copied
    path = output / "finetune_positions.safetensors"
    content = path.read_bytes()
    if spoiled == "another":
        save_file({"something": torch.zeros(3)}, path)
    else:
        path.write_bytes({"cut": content[:-100], "header": b"\xff" * 64 + content[64:], "empty": b""}[spoiled])
    said = "holds something instead of" if spoiled == "another" else "is cut short or damaged"
    with pytest.raises(CheckpointError, match=rf"finetune_positions\.safetensors: {said}.*Export the folder again"):
        load_model(output)


@pytest.mark.parametrize("input_size", [(518, 518), (112, 154), (252, 448)])
def test_sizes_are_those_of_the_processor_and_pinned_for_the_camera(
    input_size: tuple[int, int], tmp_path: Path
) -> None:
    from transformers import AutoImageProcessor

    from finetune.export.huggingface import make_processor_config

    # Of the last, the aspect that the processor would keep leads from 154 to 168 at an input size of 112x154.
    for camera in ((480, 640), (360, 640), (240, 320), (640, 480), (375, 1242), (1080, 1920), (101, 997), (137, 177)):
        preprocessing = Preprocessing(input_size=input_size)
        written = make_processor_config(preprocessing, camera)
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(written))
        theirs = AutoImageProcessor.from_pretrained(tmp_path)
        size = preprocessing.network_size(*camera)
        assert written["size"] == {"height": size[0], "width": size[1]}
        for height, width in (camera, (240, 424), (300, 300)):
            image = np.zeros((height, width, 3), np.uint8)
            found = tuple(theirs(image, return_tensors="pt").pixel_values.shape[-2:])
            assert found == (transformers_size(height, width, size) if written["keep_aspect_ratio"] else size)
            if (height, width) == camera:
                assert found == preprocessing.network_size(height, width)


def test_the_sizes_that_differ_by_hand() -> None:
    found = differing_sizes(Preprocessing(input_size=(518, 518)), CAMERA)
    # Pinned to 686x518. 640x360: factors 1.07 and 1.44, and the nearer one makes 686x386, which is 686x392 in patches.
    assert "640x360 becomes 686x392, ours 924x518" in found
    assert not any(line.startswith(("640x480", "320x240", "256x192", "1242x375")) for line in found)


LOAD = """
import sys
import numpy as np, torch, transformers
from PIL import Image
from transformers import AutoModelForDepthEstimation, pipeline
folder, pixels, image, prediction = sys.argv[1:]
model, info = AutoModelForDepthEstimation.from_pretrained(folder, output_loading_info=True)
assert not any(info.values()), info
with torch.inference_mode():
    np.save(prediction, model(pixel_values=torch.from_numpy(np.load(pixels))).predicted_depth.numpy())
piped = pipeline("depth-estimation", model=folder)(Image.fromarray(np.load(image)))["predicted_depth"]
print(transformers.__version__, *piped.shape[-2:])
"""
# What it needs besides what transformers 5 needs too; its hub client is older than theirs, and asks by requests.
OLDEST = ("transformers==4.45.2", "huggingface-hub<1", "tokenizers<0.21")
OF_ITS_CLIENT = ("requests", "urllib3", "idna", "charset-normalizer", "certifi")


@pytest.mark.slow
def test_the_oldest_transformers_loads_it_too(tmp_path: Path) -> None:
    oldest = tmp_path / "packages"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(oldest)]
    subprocess.run([*install, *OLDEST, *OF_ITS_CLIENT], check=True, timeout=300)
    model = varied_model(tmp_path, "tiny", 10.0, (112, 154))
    image = draw_dead_leaves(*CAMERA)
    export_model(model, "huggingface", tmp_path / "hf", image)
    pixels = model.preprocessing(image)[None]
    np.save(tmp_path / "pixels.npy", pixels)
    np.save(tmp_path / "image.npy", image)
    paths = [str(tmp_path / name) for name in ("hf", "pixels.npy", "image.npy", "prediction.npy")]
    # First on the path, it hides the newer ones; torch and the rest are those that are here.
    environment = {**os.environ, "PYTHONPATH": str(oldest), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", LOAD, *paths], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    version, *size = done.stdout.split()
    # Its pipeline predicts at the size of the network input.
    assert version == "4.45.2" and [int(side) for side in size] == [112, 154]
    theirs = torch.from_numpy(np.load(tmp_path / "prediction.npy"))[:, None]
    assert share(theirs, model(torch.from_numpy(pixels))) <= TOLERANCE
