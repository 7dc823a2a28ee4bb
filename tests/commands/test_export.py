from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from finetune.commands.export import main
from finetune.data.preprocessing import Preprocessing
from finetune.export import official
from finetune.export.export import export_model, make_exporter
from finetune.export.test_image import default_test_image, draw_dead_leaves
from finetune.inference.predictor import load_model
from finetune.models.checkpoints.save import save_native
from finetune.utils.errors import FinetuneError
from tests.small_models import make_overflow, set_last_bias, small_model, write_model

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def metric(tmp_path: Path) -> str:
    return str(write_model(tmp_path / "model" / "metric.safetensors"))


def left(folder: Path) -> list[str]:
    """Names of all that is in a folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


def scale_last_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exporter that is nearly right."""
    right = official.OfficialNames.from_ours

    def wrong(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        written = right(tensors)
        name = "depth_head.scratch.output_conv2.2.weight"
        return {**written, name: written[name] * 1.001}

    monkeypatch.setattr(official.OfficialNames, "from_ours", staticmethod(wrong))


def test_exports_and_says_the_comparison_in_one_line(
    metric: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "deeper" / "product.v1.pth"
    assert main([metric, "--to", "official", "--output", str(output)]) == 0
    said = capsys.readouterr().out
    own = load_model(metric).predict(default_test_image())
    allowed_mm = 1000 * 1e-4 * float(np.ptp(own))
    assert said == (f"{output}: official, reloaded: identical on an image of 240x320 ({allowed_mm:.2g} mm allowed)\n")
    assert left(output.parent) == ["product.v1.json", "product.v1.pth"]
    assert left(tmp_path) == ["model", "new"]
    np.testing.assert_array_equal(
        load_model(output).predict(draw_dead_leaves()), load_model(metric).predict(draw_dead_leaves())
    )


def test_a_relative_model_is_compared_without_meters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(write_model(tmp_path / "relative.safetensors", None))
    assert main([model, "--to", "official", "--output", str(tmp_path / "out.pth")]) == 0
    assert ": identical on an image of 240x320 (0.0001 of the spread allowed)\n" in capsys.readouterr().out
    assert load_model(tmp_path / "out.pth").kind == "relative"


def test_an_official_file_is_told_what_it_is(metric: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([metric, "--to", "official", "--output", str(tmp_path / "a.pth")]) == 0
    (tmp_path / "a.json").unlink()
    arguments = [str(tmp_path / "a.pth"), "--to", "official", "--output", str(tmp_path / "b.pth")]
    assert main([*arguments, "--kind", "metric", "--max-depth", "25", "--version", "v1", "--input-size", "28x42"]) == 0
    content = json.loads((tmp_path / "b.json").read_text())
    assert (content["max_depth_m"], content["checkpoint_version"]) == (25.0, "v1")
    assert content["backbone"]["out_indices"] == [4, 5, 6, 7]


def test_compares_on_the_image_that_is_named(metric: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, output = str(tmp_path / "a.png"), str(tmp_path / "out.pth")
    cv2.imwrite(image, draw_dead_leaves(60, 80))
    assert main([metric, "--to", "official", "--output", output, "--image", image]) == 0
    assert "an image of 60x80" in capsys.readouterr().out


def test_a_broken_export_leaves_nothing(
    metric: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scale_last_layer(monkeypatch)
    output = tmp_path / "new" / "out.pth"
    assert main([metric, "--to", "official", "--output", str(output)]) == 1
    sentence = capsys.readouterr().err
    assert f"\nfinetune stopped: {output}: official, reloaded: differs by at most " in sentence
    assert "It was not kept" in sentence
    assert left(tmp_path) == ["model"]


def test_a_broken_export_leaves_what_it_was_to_replace(
    metric: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.pth"
    assert main([metric, "--to", "official", "--output", str(output)]) == 0
    before = output.read_bytes(), (tmp_path / "out.json").read_bytes()
    scale_last_layer(monkeypatch)
    assert main([metric, "--to", "official", "--output", str(output), "--force"]) == 1
    assert (output.read_bytes(), (tmp_path / "out.json").read_bytes()) == before
    assert left(tmp_path) == ["model", "out.json", "out.pth"]


@pytest.mark.parametrize("max_depth_m", [10.0, None])
def test_the_near_half_and_the_far_half_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_depth_m: float | None
) -> None:
    model = load_model(write_model(tmp_path / "m.safetensors", max_depth_m))
    image = draw_dead_leaves(28, 42)
    own = model.predict(image).astype(np.float64)
    shift = 1e-5 * np.ptp(own)
    nearer = own <= np.median(own) if max_depth_m else own >= np.median(own)
    monkeypatch.setattr(official.Official, "read", lambda *_: lambda _: own + np.where(nearer, 0, shift))
    comparison = export_model(model, "official", tmp_path / "out.pth", image)
    assert comparison.near == (0.0, 0.0)
    assert comparison.far == pytest.approx((shift, shift), rel=1e-2)
    assert comparison.mean == pytest.approx(shift / 2, rel=2e-2)
    # 1e-5 of the spread: 0.01 mm a meter of it.
    none, far = ("0 mm", f"{1000 * shift:.2g} mm") if max_depth_m else ("0 of the spread", "1e-05 of the spread")
    assert f"(near half {none}, far half {far})" in str(comparison)


def test_half_is_stored_as_such_and_said(metric: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([metric, "--to", "official", "--output", str(tmp_path / "out.pth"), "--half"]) == 0
    assert "official, stored as float16, reloaded" in capsys.readouterr().out
    stored = torch.load(tmp_path / "out.pth", weights_only=True)
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}


def test_the_license_of_the_base_is_shown(metric: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([metric, "--to", "official", "--output", str(tmp_path / "out.pth")]) == 0
    assert capsys.readouterr().err == f"{metric}: license Apache-2.0\n"


def test_a_prediction_that_is_not_a_number_is_no_agreement(metric: str, tmp_path: Path) -> None:
    model = load_model(metric)
    make_overflow(model.network)
    with pytest.raises(FinetuneError, match="predicts nan at every pixel"):
        export_model(model, "official", tmp_path / "out.pth", draw_dead_leaves(28, 42))
    assert left(tmp_path) == ["model"]


def test_a_prediction_that_never_varies_proves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dead = small_model(None)
    set_last_bias(dead, -100.0)
    save_native(tmp_path / "dead.safetensors", dead, {"preprocessing": Preprocessing(input_size=(28, 42)).to_mapping()})
    arguments = [str(tmp_path / "dead.safetensors"), "--to", "official", "--output", str(tmp_path / "out.pth")]
    cv2.imwrite(str(tmp_path / "small.png"), draw_dead_leaves(28, 42))
    assert main([*arguments, "--image", str(tmp_path / "small.png")]) == 1
    assert ": predicts 0 at every pixel of the image, so" in capsys.readouterr().err
    assert not (tmp_path / "out.pth").exists()


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The sentence of a call that is wrong before a model is looked for."""
    assert main(["no_model", "--to", "official", *arguments]) == 2
    sentence = capsys.readouterr().err
    assert sentence.startswith("finetune stopped: ")
    assert sentence.endswith(".\n")
    return sentence


def test_what_stands_is_not_replaced_unless_asked(
    metric: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.pth"
    (tmp_path / "out.json").write_text("{}")
    assert f"{tmp_path / 'out.json'}: already there." in refusal(["--output", str(output)], capsys)
    assert left(tmp_path) == ["model", "out.json"]
    assert main([metric, "--to", "official", "--output", str(output), "--force"]) == 0
    assert left(tmp_path) == ["model", "out.json", "out.pth"]
    assert json.loads((tmp_path / "out.json").read_text())["kind"] == "metric"


def test_a_model_can_replace_itself(metric: str, tmp_path: Path) -> None:
    output = tmp_path / "out.pth"
    assert main([metric, "--to", "official", "--output", str(output)]) == 0
    before = output.read_bytes()
    assert main([str(output), "--to", "official", "--output", str(output), "--force"]) == 0
    assert output.read_bytes() == before


def test_wrong_calls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"Write --output {tmp_path / 'out.pth'}." in refusal(["--output", str(tmp_path / "out")], capsys)
    assert f"Write --output {tmp_path / 'model.pth'}." in refusal(["--output", str(tmp_path)], capsys)
    output = ["--output", str(tmp_path / "out.pth")]
    assert "gone.png: no such file" in refusal([*output, "--image", str(tmp_path / "gone.png")], capsys)
    assert "no_model: no such file" in refusal(output, capsys)
    with pytest.raises(SystemExit) as stopped:
        main(["no_model", "--to", "tensorflow", *output])
    assert stopped.value.code == 2
    with pytest.raises(FinetuneError, match="tensorflow is not an export format; expected one of adapter, hugg"):
        make_exporter("tensorflow", tmp_path / "out.pth", force=False)


def test_a_place_where_nothing_can_be_written(metric: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main([metric, "--to", "official", "--output", str(tmp_path / "file" / "out.pth")]) == 2
    assert "cannot be written (Not a directory)" in capsys.readouterr().err


def test_dead_leaves_are_the_same_every_time_and_have_edges_at_every_scale() -> None:
    picture = draw_dead_leaves()
    np.testing.assert_array_equal(picture, draw_dead_leaves())
    assert (picture.shape, picture.dtype) == ((480, 640, 3), np.uint8)
    gray = picture.astype(np.float64).mean(2)
    # In natural images power falls with the square of frequency: each octave has about the same share of the variance.
    octaves = []
    for step in (2, 4, 8, 16, 32):
        coarse = cv2.resize(gray, (640 // step, 480 // step), interpolation=cv2.INTER_AREA)
        octaves.append(gray.var() - coarse.var())
        gray = coarse
    assert min(octaves) > 0.1 * max(octaves)


def test_runs_as_a_program_and_refuses_a_wrong_call_quickly(tmp_path: Path) -> None:
    called = ["finetune", "export", "model", "--to", "official", "--output", "a"]
    command = [sys.executable, "-X", "importtime", "-m", *called]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "finetune stopped: a: format official is a file whose name ends in .pth." in done.stderr
    assert "| torch" not in done.stderr
