from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional

import finetune
from finetune.commands import predict
from finetune.data.preprocessing import Preprocessing
from finetune.inference.predictor import load_model
from finetune.models.checkpoints.official import Official
from finetune.models.checkpoints.save import save_native
from finetune.models.depth_model import DepthModel
from finetune.models.encoder_specs import ENCODERS
from finetune.utils.errors import CheckpointError, DataError, FinetuneError
from tests.drawn_weights import adjusted, draw, drawn_model, last_layer_that_varies, require_varied
from tests.small_models import BASE, INPUT_SIZE, small_model, write_adapted, write_model


def picture(height: int = 40, width: int = 50) -> np.ndarray:
    """Smooth shapes, different in each channel, so that BGR and a wrong resize show."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    waves = [np.sin(x / 7 + c) + np.cos(y / (5 + 3 * c)) + (x * (c - 1) > y - 20) for c in range(3)]
    return np.stack([(w - w.min()) / np.ptp(w) * 255 for w in waves], axis=-1).astype(np.uint8)


def test_import_is_quick_and_imports_no_torch() -> None:
    code = (
        "import sys, time; start = time.perf_counter(); import finetune; took = time.perf_counter() - start; "
        "assert not {'torch', 'cv2', 'numpy'} & set(sys.modules) and took < 0.5, took; "
        "assert not hasattr(finetune, 'nothing')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_a_metric_file_says_of_itself(tmp_path: Path) -> None:
    model = finetune.load_model(write_model(tmp_path / "m.safetensors"))
    assert (model.kind, model.max_depth_m, model.device.type) == ("metric", 10.0, "cpu")
    assert model.preprocessing == Preprocessing(input_size=INPUT_SIZE)
    assert model.base == BASE


@pytest.mark.parametrize("max_depth_m", [10.0, None])
def test_predict_is_preprocessing_network_and_resize(tmp_path: Path, max_depth_m: float | None) -> None:
    image = picture()
    prediction = load_model(str(write_model(tmp_path / "m.safetensors", max_depth_m))).predict(image)
    with torch.inference_mode():
        of_network = small_model(max_depth_m)(torch.from_numpy(Preprocessing(input_size=INPUT_SIZE)(image))[None])
    expected = functional.interpolate(of_network, (40, 50), mode="bilinear", align_corners=True)[0, 0].numpy()
    assert (prediction.dtype, prediction.shape) == (np.float32, (40, 50))
    assert np.ptp(prediction) > 0
    np.testing.assert_array_equal(prediction, expected)


def test_twice_the_max_depth_is_twice_the_depth(tmp_path: Path) -> None:
    one, two = (load_model(write_model(tmp_path / f"{depth}.safetensors", depth)) for depth in (10.0, 20.0))
    np.testing.assert_array_equal(two.predict(picture()), 2 * one.predict(picture()))


def test_called_on_a_normalized_batch_it_is_the_network(tmp_path: Path) -> None:
    model = load_model(write_model(tmp_path / "m.safetensors"))
    batch = torch.linspace(-2, 2, 2 * 3 * 28 * 42).view(2, 3, 28, 42)
    prediction = model(batch)
    assert (prediction.shape, prediction.dtype, prediction.requires_grad) == ((2, 1, 28, 42), torch.float32, False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model(batch), prediction)
    with pytest.raises(ValueError, match="multiples of 14"):
        model(batch[..., :-1])


def test_run_folder_gives_its_best(tmp_path: Path) -> None:
    write_model(tmp_path / "run" / "best" / "model.safetensors", 7.0)
    write_model(tmp_path / "run" / "last" / "model.safetensors", 8.0)
    assert load_model(tmp_path / "run").max_depth_m == 7.0


def test_bare_official_file_is_taken_as_relative_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "bare.pth"
    torch.save(Official.from_ours(small_model(None).state_dict()), path)
    with pytest.warns(UserWarning, match=r"bare\.pth cannot say .* If it is metric, set kind and max_depth_m"):
        relative = load_model(path, version="v2", input_size=(28, 42))
    assert (relative.kind, relative.max_depth_m) == ("relative", None)
    assert relative.preprocessing == Preprocessing(input_size=(28, 42))
    assert relative.base["source"] == str(path)
    metric = load_model(path, kind="metric", max_depth_m=20.0, version="v2", input_size=(28, 42))
    assert (metric.kind, metric.max_depth_m) == ("metric", 20.0)
    with pytest.raises(CheckpointError, match="Set max_depth_m to the meters it was trained with"):
        load_model(path, kind="metric")


def test_bare_official_file_is_taken_as_v2_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "bare.pth"
    torch.save(Official.from_ours(small_model(None).state_dict()), path)
    with pytest.warns(UserWarning, match="taken as V2. If it is V1, set version to v1$"):
        assert load_model(path, kind="relative", input_size=INPUT_SIZE).network.version == "v2"
    assert load_model(path, kind="relative", version="v1", input_size=INPUT_SIZE).network.encoder.out_indices == (
        4,
        5,
        6,
        7,
    )
    with pytest.raises(ValueError, match="version is 'v3'; expected auto, v1 or v2"):
        load_model(path, version="v3")


@pytest.mark.parametrize(
    ("image", "fix"),
    [
        (np.zeros((4, 5, 3), np.float32), r"float32 .* \(image \* 255\)"),
        (np.zeros((4, 5, 3), np.uint16), r"65535, use \(image // 257\)\.astype"),
        (np.zeros((4, 5, 3), np.int64), r"0 to 255, use image\.astype"),
        (np.zeros((4, 5), np.uint8), r"np\.repeat\(image\[\.\.\., None\], 3, axis=2\)"),
        (np.zeros((4, 5, 4), np.uint8), r"image\[\.\.\., :3\]"),
        (np.zeros((3, 4, 5), np.uint8), r"image\.transpose\(1, 2, 0\)"),
        (np.zeros((2, 4, 5, 3), np.uint8), r"expected \(height, width, 3\)"),
        (np.zeros((0, 5, 3), np.uint8), r"expected \(height, width, 3\)"),
        (torch.zeros(4, 5, 3), r"a Tensor; .* np\.asarray\(image\)"),
    ],
)
def test_a_wrong_image_names_the_fix(tmp_path: Path, image: Any, fix: str) -> None:
    with pytest.raises(ValueError, match=fix):
        load_model(write_model(tmp_path / "m.safetensors")).predict(image)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"kind": "meters"}, ValueError, "expected one of auto, relative, metric, relative_depth"),
        ({"max_depth_m": -1.0}, ValueError, "a positive number"),
        ({"max_depth_m": 5.0}, CheckpointError, "has max depth 10 m, max_depth_m says 5. Leave max_depth_m out"),
        ({"kind": "relative"}, CheckpointError, "is metric, kind says relative. Set kind to auto"),
        ({"input_size": (28, 56)}, CheckpointError, "was trained at 28x42 .*, input_size says 28x56. Leave input_size"),
        ({"input_size": (28, 43)}, ValueError, "expected height and width, multiples of 14 up to 4200"),
        ({"input_size": 518}, ValueError, "expected height and width, multiples of 14 up to 4200"),
        ({"max_depth_m": 1e9}, CheckpointError, "expected 0.001 to 100000 meters"),
        ({"device": "abacus"}, FinetuneError, "device abacus: not usable here .* Use the device cpu or auto"),
    ],
)
def test_a_wrong_argument(tmp_path: Path, arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        load_model(write_model(tmp_path / "m.safetensors"), **arguments)


def test_a_preprocessing_that_is_none_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_native(path, small_model(10.0), {"preprocessing": {"size": 518}})
    with pytest.raises(
        CheckpointError, match=r"m\.safetensors: preprocessing is \{'size': 518\}; expected input_size, "
    ):
        load_model(path)


@pytest.mark.parametrize("input_size", ["ab", [0, 0]])
def test_a_preprocessing_beside_an_official_file_is_named_with_its_own_file(tmp_path: Path, input_size: Any) -> None:
    path = tmp_path / "m.pth"
    torch.save(Official.from_ours(small_model(10.0).state_dict()), path)
    preprocessing = {**Preprocessing(input_size=INPUT_SIZE).to_mapping(), "input_size": input_size}
    says = {"kind": "metric", "max_depth_m": 10.0, "preprocessing": preprocessing}
    path.with_suffix(".json").write_text(json.dumps(says))
    with pytest.raises(CheckpointError, match=r"m\.json: preprocessing\.input_size is .* Export it again"):
        load_model(path)


def test_a_base_that_is_no_mapping_stands_for_nothing(tmp_path: Path) -> None:
    metadata = {"base": "vits", "preprocessing": Preprocessing(input_size=INPUT_SIZE).to_mapping()}
    save_native(tmp_path / "m.safetensors", small_model(10.0), metadata)
    assert load_model(tmp_path / "m.safetensors").base["source"] == str(tmp_path / "m.safetensors")


def test_what_nothing_says_the_size_of_is_said_each_time_and_never_guessed_for_tiny(tmp_path: Path) -> None:
    tiny, vits = tmp_path / "tiny.pth", tmp_path / "vits.pth"
    torch.save(Official.from_ours(small_model(None).state_dict()), tiny)
    with pytest.raises(CheckpointError, match=r"tiny\.pth: has the encoder tiny, .* Set input_size to its height and"):
        load_model(tiny, kind="relative", version="v2")
    torch.save(Official.from_ours(drawn_model("vits", None).state_dict()), vits)
    with pytest.warns(UserWarning, match=r"vits\.pth cannot say at which input size .* 518x518.* set input_size"):
        assert load_model(vits, kind="relative", version="v2").preprocessing.input_size == (518, 518)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        described = load_model(vits, kind="relative", version="v2", input_size=(252, 336))
    assert described.preprocessing.input_size == (252, 336)


def test_on_the_command_line_the_size_is_told_by_an_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, photo = tmp_path / "tiny.pth", tmp_path / "photo.png"
    torch.save(Official.from_ours(small_model(10.0).state_dict()), path)
    cv2.imwrite(str(photo), picture()[..., ::-1])
    call = [str(path), str(photo), "--kind", "metric", "--max-depth", "10", "--output", str(tmp_path / "out")]
    assert predict.main(call) == 2
    assert "Set --input-size to its height and width" in capsys.readouterr().err
    assert predict.main([*call, "--input-size", "28x42"]) == 0
    described = load_model(path, kind="metric", max_depth_m=10.0, version="v2", input_size=(28, 42))
    assert np.array_equal(np.load(tmp_path / "out" / "photo.npy"), described.predict(picture()))
    with pytest.raises(SystemExit):
        predict.main([*call, "--input-size", "28x43"])
    assert "28x43 is not a height and a width such as 252x336, multiples of 14" in capsys.readouterr().err


def test_a_path_and_an_image_of_pil_are_what_their_array_is(tmp_path: Path) -> None:
    from PIL import Image

    model = load_model(write_model(tmp_path / "m.safetensors"))
    expected = model.predict(picture())
    path = tmp_path / "photo.png"
    Image.fromarray(picture()).save(path)
    for image in (path, str(path), Image.fromarray(picture()), Image.open(path)):
        assert np.array_equal(model.predict(image), expected)
    gray = Image.fromarray(picture()).convert("L")
    assert np.array_equal(model.predict(gray), model.predict(np.repeat(np.asarray(gray)[..., None], 3, axis=2)))
    # Lying on its side as stored, with the tag that says so: seen upright, from the file and from PIL alike.
    turned = Image.fromarray(np.rot90(picture()).copy())
    tag = Image.Exif()
    tag[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=tag)
    for image in (tmp_path / "turned.png", Image.open(tmp_path / "turned.png")):
        assert np.array_equal(model.predict(image), expected)
    assert model.points(path, (40.0, 40.0, 25.0, 20.0)).xyz_m.shape[1] == 3
    with pytest.raises(ValueError, match=r"PIL's mode I;16.*give the path of the file"):
        model.predict(Image.fromarray(np.zeros((4, 5), np.uint16)))
    with pytest.raises(DataError, match=r"none\.jpg"):
        model.predict("none.jpg")


def test_a_model_is_one_line_and_the_package_shows_what_it_has(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.safetensors")
    model = load_model(path, device="auto")
    assert model.device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    shown = f"Predictor({str(path)!r}, metric, tiny, max_depth_m=10, input_size=28x42, device={model.device})"
    assert repr(model) == shown
    assert {"load_model", "adapter_base", "__version__"} <= set(dir(finetune))
    assert (Path(finetune.__file__).parent / "py.typed").is_file()
    assert finetune.__version__ == "0.1.0"
    with pytest.raises(AttributeError, match="no attribute 'load_models'"):
        finetune.load_models  # noqa: B018


def test_the_program_says_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    from finetune.__main__ import main

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"finetune {finetune.__version__}\n"


def test_an_adapter_is_laid_over_the_network_it_belongs_to_and_no_other(tmp_path: Path) -> None:
    from peft import PeftModel

    merged = load_model(write_adapted(tmp_path))
    folder = str(tmp_path / "adapter")
    network = finetune.adapter_base(folder)
    assert (network.kind, network.max_depth_m) == ("metric", 10.0)
    batch = torch.from_numpy(merged.preprocessing(picture()))[None]
    with torch.no_grad():
        bare = network(batch).clone()
        laid = PeftModel.from_pretrained(network, folder).eval()(batch)
    expected = merged(batch)
    # Sums in another order: a few roundings of numbers of this size.
    assert (laid - expected).abs().max() <= 5e-7 * expected.max()
    assert (bare - expected).abs().max() > 1e-3 * (expected.max() - expected.min())
    for other, found in ((None, "this one has 0"), (20.0, "this one has 20")):
        with pytest.raises(ValueError, match=rf"belongs to a network with max_depth_m 10 .*{found}.*adapter_base"):
            PeftModel.from_pretrained(small_model(other), folder)
    v1 = DepthModel("tiny", 10.0, version="v1")
    v1.load_state_dict(small_model(10.0).state_dict())
    with pytest.raises(ValueError, match=r"checkpoint_version 2, this one has 1: .*adapter_base"):
        PeftModel.from_pretrained(v1, folder)
    with pytest.raises(CheckpointError, match="has no adapters"):
        finetune.adapter_base(tmp_path / "base.safetensors")


@pytest.mark.original
@pytest.mark.parametrize("size", [(240, 320), (120, 200)])
def test_official_file_predicts_as_the_original(tmp_path: Path, size: tuple[int, int]) -> None:
    from depth_anything_v2.dpt import DepthAnythingV2

    spec = ENCODERS["vits"]
    image = picture(*size)
    network = DepthAnythingV2("vits", spec.features, out_channels=list(spec.out_channels)).eval()
    seen = torch.from_numpy(Preprocessing(input_size=(518, 518))(image))[None]
    last_layer = last_layer_that_varies(drawn_model("vits", None), seen)
    weights = adjusted(draw({name: tensor.shape for name, tensor in network.state_dict().items()}), last_layer)
    torch.save(weights, tmp_path / "drawn.pth")
    network.load_state_dict(weights, strict=True)
    theirs = network.infer_image(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    require_varied(torch.from_numpy(theirs), None)
    model = load_model(tmp_path / "drawn.pth", kind="relative")
    share = np.abs(model.predict(image) - theirs).max() / np.ptp(theirs)
    print(f"{size}: {share:.1e} of the spread")
    assert share <= 1e-4
    # The same image in BGR is another image: the comparison can fail.
    assert np.abs(model.predict(image[..., ::-1]) - theirs).max() / np.ptp(theirs) > 1e-4


def test_a_prediction_is_in_full_float32_and_leaves_the_setting_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(str(write_model(tmp_path / "m.safetensors")))
    kinds: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    seen = []
    model.network.register_forward_hook(lambda *_: seen.append([kind.allow_tf32 for kind in kinds]))
    before = [kind.allow_tf32 for kind in kinds]
    try:
        for kind in kinds:
            kind.allow_tf32 = True
        model.predict(picture())
        assert [kind.allow_tf32 for kind in kinds] == [True, True]
    finally:
        for kind, allowed in zip(kinds, before, strict=True):
            kind.allow_tf32 = allowed
    assert seen == [[False, False]]
