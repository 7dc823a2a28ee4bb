"""``finetune score-pairs``: 30 pairs with the traps of public scorers, and wrong calls."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from finetune import runtime
from finetune.commands import score_pairs
from tests.inference.test_exported import write_graph
from tests.small_models import write_model

# Of 40x60 pixels: depth grows with the row in one, with the column in the other.
SIZE = (40, 60)


def write_case(folder: Path) -> Path:
    """
    30 pairs on two images, of which 21 are right.

    By rows and columns exchanged 15 would be right, with ties right 24, by the better of both directions on each image
    more, and by the mean of both scenes 0.675.
    """
    rows = np.linspace(1, 8, SIZE[0])[:, None].repeat(SIZE[1], 1)
    columns = np.linspace(1, 8, SIZE[1])[None].repeat(SIZE[0], 0)
    for name, depth_m in (("indoor/a", rows), ("outdoor/b", columns)):
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        gray = np.round(30 * depth_m).astype(np.uint8)
        cv2.imwrite(str(folder / "images" / f"{name}.png"), np.dstack([gray, gray, gray]))
        (folder / "depth" / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(folder / "depth" / "images" / f"{name}.npy", depth_m)
    # The near point is above, which is right; below, which is wrong; in the same row, which is a tie and wrong.
    above = [([i, 30 - i], [i + 10, 5]) for i in range(15)]
    below = [([30, i], [20, 39]) for i in range(3)]
    ties = [([7, i], [7, 30]) for i in range(2)]
    left = [([3 * i, 2], [i, 40]) for i in range(6)]
    right = [([i, 39], [i, 12]) for i in range(3)]
    tie = [([1, 20], [35, 20])]
    content = {
        "images/indoor/a.png": [*above, *below, *ties],
        "images/outdoor/b.png": [*left, *right, *tie],
    }
    path = folder / "annotations.json"
    path.write_text(
        json.dumps(
            {
                name: [{"point1": near, "point2": far, "closer_point": "point1"} for near, far in pairs]
                for name, pairs in content.items()
            }
        )
    )
    return path


def test_thirty_pairs_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    annotations = write_case(tmp_path)
    call = ["--annotations", str(annotations), "--predictions", str(tmp_path / "depth"), "--kind", "metric"]
    files = ["--json", str(tmp_path / "out.json"), "--csv", str(tmp_path / "out.csv")]
    assert score_pairs.main([*call, *files]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith("30 pairs on 2 images; nearer is smaller depth")
    assert said[2].split()[:6] == ["indoor", "1", "20", "15", "2", "75.0"]
    assert said[3].split()[:6] == ["outdoor", "1", "10", "6", "1", "60.0"]
    # Over pairs, and not the mean of both scenes.
    assert said[4].split()[:6] == ["overall", "2", "30", "21", "3", "70.0"]
    found = json.loads((tmp_path / "out.json").read_text())
    assert (found["kind"], found["overall"]["right"], found["scenes"]["outdoor"]["pairs"]) == ("metric", 21, 10)
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["right"]) for row in rows) == 21
    assert (rows[0]["near_row"], rows[0]["near_column"], rows[0]["near_value"]) == ("0", "30", "1")


def test_the_same_numbers_as_inverse_depth_are_scored_the_other_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["--annotations", str(write_case(tmp_path)), "--predictions", str(tmp_path / "depth"), "--kind", "relative"]
    assert score_pairs.main(call) == 0
    # Of 30 pairs 21 were right and 3 ties: 6 are left, for the better direction is not looked for.
    assert capsys.readouterr().out.splitlines()[-1].split()[:5] == ["overall", "2", "30", "6", "3"]


def test_a_model_is_scored_and_says_at_which_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_model(tmp_path / "m.safetensors", None)
    assert score_pairs.main([str(model), "--annotations", str(write_case(tmp_path))]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith("nearer is larger inverse depth, the network at lower bound 28x42")
    assert said[-1].split()[:3] == ["overall", "2", "30"]


def test_exported_files_are_scored_as_what_they_say_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Both files predict 111 times the normalized gray of a pixel, and the gray of the images is 30 times their depth.
    annotations = str(write_case(tmp_path))
    graph = write_graph(tmp_path / "m.onnx")
    assert score_pairs.main([str(graph), "--annotations", annotations]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith("nearer is smaller depth, the network at lower bound 28x42")
    assert said[-1].split()[:4] == ["overall", "2", "30", "21"]
    inverse = write_graph(tmp_path / "inverse.onnx", changed={"kind": "relative"})
    assert score_pairs.main([str(inverse), "--annotations", annotations]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[:4] == ["overall", "2", "30", "6"]
    openvino = pytest.importorskip("openvino")
    model = openvino.Core().read_model(graph)
    for name, value in runtime.load(graph).metadata.items():
        model.set_rt_info(json.dumps(value), ["finetune", name])
    openvino.save_model(model, tmp_path / "m" / "model.xml", compress_to_fp16=False)
    assert score_pairs.main([str(tmp_path / "m"), "--annotations", annotations]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[:4] == ["overall", "2", "30", "21"]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--annotations", "none.json", "MODEL"], 2, "none.json: cannot be read"),
        (["--annotations", "FILE"], 2, "name a MODEL"),
        (["--annotations", "FILE", "MODEL", "--predictions", "depth"], 2, "not both"),
        (["--annotations", "FILE", "--predictions", "depth"], 2, "--predictions needs --kind"),
        (["--annotations", "FILE", "--images", "elsewhere", "MODEL"], 1, "Give --images"),
        (["--annotations", "FILE", "nothing.pth"], 2, "nothing.pth"),
        (["--annotations", "FILE", "ONNX", "--max-depth", "5"], 2, "--max-depth is given. Leave it out"),
        (["--annotations", "FILE", "ONNX", "--device", "cuda"], 2, "runs on the CPU here, and --device is cuda"),
    ],
)
def test_a_wrong_call_is_one_sentence(
    words: list[str], status: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"FILE": str(write_case(tmp_path)), "MODEL": str(write_model(tmp_path / "m.safetensors"))}
    if "ONNX" in words:
        names["ONNX"] = str(write_graph(tmp_path / "m.onnx"))
    try:
        found = score_pairs.main([names.get(word, word) for word in words])
    except SystemExit as stop:
        assert isinstance(stop.code, int)
        found = stop.code
    assert found == status
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("finetune stopped: ")]
    assert said in line
