"""The recipe of a prepared folder: it is read without a fault, and its numbers are those of the frames."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from finetune.data.readers.pairs import Pairs
from finetune.prepare.frame_record import BIN_EDGES_M, FrameRecord
from finetune.prepare.recipe_text import HUB_ID, choose_ceiling, choose_input_size, embedded_checkpoint, format_recipe
from finetune.prepare.recording import FrameKey
from finetune.prepare.split import Split
from finetune.prepare.summary import PreparedFrames
from finetune.recipe.load import load_recipe
from finetune.utils.errors import FinetuneError


def prepared_frames(
    output: Path,
    *,
    size: tuple[int, int] = (480, 640),
    far_m: float = 5.3,
    sparse: bool = False,
    checkpoint: str | None = None,
    options: Mapping[str, object] = {},
) -> PreparedFrames:
    """Ten frames; in each, a thousand pixels are just below ``far_m``."""
    near_far = int((far_m > BIN_EDGES_M).sum()) - 1
    counts = tuple(1000 if i == near_far else 0 for i in range(len(BIN_EDGES_M) - 1))
    records = [
        FrameRecord(
            index=i,
            source=str(i),
            image=f"image/{i}.png",
            depth=f"depth/{i}.png",
            size=size,
            depth_size=size,
            measured=1000,
            sparse=sparse,
            near_m=1.0,
            far_m=far_m,
            exact_units=(0.001,),
            counts=counts,
        )
        for i in range(10)
    ]
    return PreparedFrames(
        output=output,
        request={"kind": "frames"},
        records=records,
        keys=[FrameKey(recording="a", stem=str(i)) for i in range(10)],
        split=Split(train=range(8), val=[9], gap=[8], rule="val is the end of the recording"),
        left_out={},
        notes=(),
        notes_at_end=(),
        recipe_options=options,
        checkpoint=checkpoint,
    )


def test_every_recipe_is_read_without_a_fault(tmp_path: Path) -> None:
    output = tmp_path / "my room (2)"
    output.mkdir()
    for name in ("train.txt", "val.txt"):
        (output / name).write_text("image/0.png depth/0.png\n")
    for sparse in (False, True):
        for checkpoint in (None, HUB_ID):
            prepared = prepared_frames(output, sparse=sparse, checkpoint=checkpoint, options={"min_valid_share": 0.01})
            path = output / "recipe.yaml"
            path.write_text(format_recipe(prepared, intrinsics=None))
            recipe = load_recipe(str(path), [])
            assert recipe.name == "my_room_2_"
            assert recipe.model.checkpoint == (checkpoint or embedded_checkpoint())
            assert recipe.model.max_depth_m == 6.0
            reader = recipe.data.train[0].source
            assert isinstance(reader, Pairs) and reader.min_valid_share == 0.01
            assert ("gradient" in path.read_text()) == (not sparse and checkpoint is None)


@pytest.mark.parametrize(
    ("size", "tiny", "input_size"),
    [
        ((480, 640), True, (126, 168)),  # as room_tiny.yaml
        ((480, 640), False, (392, 518)),  # as realsense_vits_lora.yaml
        ((1080, 1920), False, (336, 602)),  # 338 x 601, in multiples of 14
        ((60, 80), False, (56, 84)),  # never larger than the images
        ((20, 500), True, (56, 504)),  # a side of the network's input has at least four patches
    ],
)
def test_the_input_has_the_shape_of_the_images(
    tmp_path: Path, size: tuple[int, int], tiny: bool, input_size: tuple[int, int]
) -> None:
    assert choose_input_size(prepared_frames(tmp_path, size=size), tiny) == input_size


@pytest.mark.parametrize(
    ("far_m", "ceiling_m"), [(0.42, 0.5), (3.0, 3.0), (3.2, 4.0), (9.9, 10.0), (72.7, 80.0), (6000.0, 6600.0)]
)
def test_the_farthest_prediction_reaches_the_depth(tmp_path: Path, far_m: float, ceiling_m: float) -> None:
    assert choose_ceiling(prepared_frames(tmp_path, far_m=far_m)) == ceiling_m


def test_a_folder_that_was_moved_is_named_and_read_by_two_words(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    new.mkdir()
    (new / "recipe.yaml").write_text(format_recipe(prepared_frames(old), intrinsics=None))
    for name in ("train.txt", "val.txt"):
        (new / name).write_text("image/0.png depth/0.png\n")
    recipe = str(new / "recipe.yaml")
    with pytest.raises(FinetuneError) as caught:
        load_recipe(recipe, [])
    said = str(caught.value)
    # A long path is cut in the sentence.
    for part in ("train", "val"):
        assert f"data.{part}.0.root is '{str(old)[:40]}" in said and "expected an existing folder" in said
    words = [f"data.{part}.0.root={new}" for part in ("train", "val")]
    assert all(word.split("=")[0] + "=FOLDER" in Path(recipe).read_text() for word in words)
    assert len(load_recipe(recipe, words).data.train[0].source) == 1
