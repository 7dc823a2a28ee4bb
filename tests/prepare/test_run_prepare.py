"""A folder from frames that the test makes: what is written, how it goes on, and what is left behind."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from finetune.data.camera import Camera
from finetune.data.readers.files import read_depth
from finetune.data.readers.pairs import Pairs
from finetune.prepare.recording import FrameKey, FrameLeftOut, FrameSource, RecordedFrame
from finetune.prepare.run_prepare import PrepareOptions, prepare_frames
from finetune.prepare.writer import DepthLimits
from finetune.recipe.load import load_recipe
from finetune.utils.errors import DataError, FileFault

NONE = object()  # stands for a frame that the kind leaves out
CAMERA = Camera(fx_px=20.0, fy_px=20.0, cx_px=9.5, cy_px=7.5)


@dataclass
class Walls(FrameSource):
    """Walls at 1 m, 1.25 m, ..., (16, 20) pixels; ``special`` changes frames."""

    count: int = 10
    special: Mapping[int, object] = field(default_factory=dict)
    loaded: list[int] = field(default_factory=list)
    camera: Camera | None = CAMERA

    @property
    def keys(self) -> Sequence[FrameKey]:
        return [FrameKey(recording="walls", stem=f"{i:03}") for i in range(self.count)]

    def load_frame(self, index: int) -> RecordedFrame | None:
        self.loaded.append(index)
        special = self.special.get(index)
        if isinstance(special, BaseException):
            raise special
        if special is NONE:
            return None
        depth_m = np.full((16, 20), 1.0 + 0.25 * index, np.float32)
        depth_m[:4] = 0.0
        image = np.full((16, 20, 3), index, np.uint8)
        frame = RecordedFrame(
            image=image, depth_m=depth_m, camera=self.camera, source=f"walls:{index}", counts={"pixels": 320}
        )
        return replace(frame, depth_m=special) if isinstance(special, np.ndarray) else frame

    def describe_counts(self, totals: Mapping[str, int]) -> Sequence[str]:
        return [f"{totals['pixels']} pixels"]


def options(output: Path, **changes: object) -> PrepareOptions:
    return replace(PrepareOptions(output=output, request={"kind": "walls"}), **changes)  # type: ignore[arg-type]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_frames_come_back_exactly(output: Path) -> None:
    prepared = prepare_frames(Walls(), options(output))
    assert prepared.unit == 0.001 and prepared.is_exact  # 1.25 m are 1250 mm
    reader = load_recipe(str(output / "recipe.yaml"), []).data.train[0].source
    sample = reader[4]
    assert isinstance(reader, Pairs) and sample.camera == CAMERA
    assert np.unique(sample.depth_m[sample.valid]).tolist() == [2.0]
    assert sample.valid.sum() == 12 * 20
    assert (sample.image == 4).all()
    summary = json.loads((output / "prepare.json").read_text())
    assert summary["labeled_share"] == pytest.approx(0.75)
    assert summary["notes"] == ["3200 pixels"]
    assert [frame["part"] for frame in summary["frames"]] == ["train"] * 8 + ["gap", "val"]


@pytest.mark.parametrize("done", [1, 4, 9])
def test_a_stopped_call_goes_on_and_gives_the_same_folder(output: Path, tmp_path: Path, done: int) -> None:
    prepare_frames(Walls(), options(output))
    straight = content(output)
    shutil.rmtree(output)
    with pytest.raises(KeyboardInterrupt):
        prepare_frames(Walls(special={done: KeyboardInterrupt()}), options(output))
    assert not output.exists()
    again = Walls()
    prepare_frames(again, options(output))
    assert again.loaded == list(range(done, 10))
    assert content(output) == straight
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_stop_before_the_first_frame_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        prepare_frames(Walls(special={0: KeyboardInterrupt()}), options(tmp_path / "new" / "out"))
    assert not list(tmp_path.iterdir())


def test_what_a_power_cut_lost_is_written_again(output: Path) -> None:
    prepare_frames(Walls(), options(output))
    straight = content(output)
    shutil.rmtree(output)
    with pytest.raises(KeyboardInterrupt):
        prepare_frames(Walls(special={6: KeyboardInterrupt()}), options(output))
    hidden = output.with_name(".out.preparing")
    (hidden / "out" / "depth" / "001.png").write_bytes(b"")
    (hidden / "out" / "image" / "003.png").unlink()
    with (hidden / "frames.jsonl").open("ab") as journal:
        journal.write(b'{"index": 6, "sour')
    again = Walls()
    prepare_frames(again, options(output))
    assert again.loaded == [1, 3, 6, 7, 8, 9]
    assert content(output) == straight


def test_a_farther_frame_at_the_end_changes_the_unit_of_all(output: Path) -> None:
    far = np.linspace(1.0, 70.0, 320, dtype=np.float32).reshape(16, 20)
    source = Walls(special={8: far})
    prepared = prepare_frames(source, options(output))
    assert prepared.unit == 1 / 256 and not prepared.is_exact
    # Frames 0 to 7 are written a second time: 1.25 m is 320 / 256
    assert source.loaded == [*range(10), *range(8)]
    assert np.unique(read_depth(output / "depth" / "001.png")).tolist() == [0, 320]
    stored = read_depth(output / "depth" / "008.png") / 256
    assert np.abs(stored - far).max() <= 1 / 512 + 1e-5
    assert "meters_per_unit: 0.00390625" in (output / "recipe.yaml").read_text()


def test_cameras_that_differ_are_listed_by_image(output: Path) -> None:
    class Moving(Walls):
        def load_frame(self, index: int) -> RecordedFrame | None:
            frame = super().load_frame(index)
            return frame and replace(frame, camera=replace(CAMERA, fx_px=20.0 + index))

    prepare_frames(Moving(), options(output))
    reader = load_recipe(str(output / "recipe.yaml"), []).data.train[0].source
    cameras = [reader[i].camera for i in range(3)]
    assert cameras == [replace(CAMERA, fx_px=20.0 + i) for i in range(3)]


def test_unknown_cameras_are_left_out(output: Path) -> None:
    prepare_frames(Walls(camera=None), options(output))
    assert not (output / "intrinsics.json").exists()
    assert "intrinsics" not in (output / "recipe.yaml").read_text()


def test_depth_smaller_than_its_image_is_read_with_reduce_image(output: Path) -> None:
    small = {i: np.full((8, 10), 2.0, np.float32) for i in range(10)}
    prepare_frames(Walls(special=small), options(output))
    sample = load_recipe(str(output / "recipe.yaml"), []).data.train[0].source[0]
    assert sample.image.shape == (8, 10, 3) and sample.camera == CAMERA.resized(0.5, 0.5)


def test_frames_that_are_left_out_are_counted(output: Path) -> None:
    special = {1: NONE, 3: FrameLeftOut("no pose"), 5: np.zeros((16, 20), np.float32), 6: FrameLeftOut("no pose")}
    prepared = prepare_frames(Walls(special=special), options(output))
    assert len(prepared.records) == 6
    assert "2 of 10 frames are left out, no pose: 003, ..." in prepared.sentences()
    assert "1 of 10 frames are left out, nothing was measured in them: walls:5" in prepared.sentences()
    assert not (output / "image" / "005.png").exists()


def test_depth_is_kept_within_limits(output: Path) -> None:
    prepared = prepare_frames(Walls(), options(output, limits=DepthLimits(min_m=1.0, max_m=2.0)))
    assert (prepared.near_m, prepared.far_m) == (1.25, 2.0)
    assert [record.image for record in prepared.records] == [f"image/{i:03}.png" for i in range(1, 5)]


def test_a_frame_that_cannot_be_read_stops_or_is_left_out(output: Path) -> None:
    fault = DataError("walls:7", "is damaged", "Copy it again")
    with pytest.raises(DataError, match="is damaged"):
        prepare_frames(Walls(special={7: fault}), options(output))
    assert not output.exists()
    source = Walls(special={7: fault})
    prepared = prepare_frames(source, options(output, skip_bad=True))
    assert source.loaded == [7, 8, 9]  # what was done is kept
    assert "1 of 10 frames are left out, they cannot be read: walls:7: is damaged" in prepared.sentences()


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (Walls(count=0), "there is no frame to prepare"),
        (
            Walls(special={0: np.full((20, 20), 1.0, np.float32)}),
            r"depth is 20x20 \(height x width\), its image is 16x20",
        ),
        (Walls(special={0: np.full((16, 20), 9e3, np.float32)}), "farther than 16 bits can hold"),
        (Walls(special={i: np.zeros((16, 20), np.float32) for i in range(10)}), "none of 10 frames can be used"),
    ],
)
def test_what_cannot_be_prepared_leaves_nothing(tmp_path: Path, source: Walls, found: str) -> None:
    with pytest.raises(DataError, match=found):
        prepare_frames(source, options(tmp_path / "new" / "out"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_frames_train_and_validate(output: Path, count: int) -> None:
    prepared = prepare_frames(Walls(count=count), options(output))
    recipe = load_recipe(str(output / "recipe.yaml"), [])
    assert recipe.data.val_may_repeat_train
    assert [len(entry.source) for entry in (*recipe.data.train, *recipe.data.val)] == [count, count]
    noun = "1 frame" if count == 1 else "2 frames"
    assert (
        f"{count} train, {count} val: val is train, as {noun} of one recording cannot be split"
        in (prepared.sentences()[0])
    )
    assert any("say nothing about other frames" in line for line in prepared.sentences())
    parts = [frame["part"] for frame in json.loads((output / "prepare.json").read_text())["frames"]]
    assert parts == ["train, val"] * count
    prepare_frames(Walls(count=3), options(output, overwrite=True))
    assert not load_recipe(str(output / "recipe.yaml"), []).data.val_may_repeat_train


def test_an_output_that_exists_is_kept(output: Path) -> None:
    prepare_frames(Walls(), options(output))
    before = content(output)
    with pytest.raises(FileFault, match=r"exists. Name another folder as --output, or add --overwrite"):
        prepare_frames(Walls(), options(output))
    assert content(output) == before
    prepare_frames(Walls(count=12), options(output, overwrite=True))
    assert (output / "image" / "011.png").exists()
    foreign = output.with_name("photos")
    foreign.mkdir()
    (foreign / "a.jpg").write_bytes(b"mine")
    with pytest.raises(FileFault, match="files that finetune prepare did not write"):
        prepare_frames(Walls(), options(foreign, overwrite=True))
    assert (foreign / "a.jpg").read_bytes() == b"mine"
    empty = output.with_name("empty")
    empty.mkdir()
    prepare_frames(Walls(), options(empty))


def test_another_request_does_not_go_on_with_what_was_begun(output: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        prepare_frames(Walls(special={6: KeyboardInterrupt()}), options(output))
    other = options(output, request={"kind": "walls", "every": 2})
    with pytest.raises(FileFault, match="was begun with other options or other files"):
        prepare_frames(Walls(), other)
    with pytest.raises(FileFault, match="was begun with other options or other files"):
        prepare_frames(Walls(count=11), options(output))
    again = Walls()
    prepare_frames(again, replace(other, overwrite=True))
    assert again.loaded == list(range(10))
