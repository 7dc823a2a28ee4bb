"""What a recipe cannot have at the end of a run, said before step 1 by train and by check alike."""

from pathlib import Path

import pytest

from finetune.commands import train
from finetune.export.official import Official
from finetune.recipe.load import load_recipe
from finetune.training import recipe_check
from finetune.training.promises import require_exports, require_protocols
from finetune.training.recipe_check import check_recipe
from finetune.utils.errors import DataError, FinetuneError

# Overrides, and a piece of what both say.
WANTED = {
    "whole meters": (["export=[huggingface]", "model.max_depth_m=9.5"], "max depth is 9.5 m, and transformers takes"),
    "no adapters": (["export=[official, adapter]"], "format adapter is for runs with model.train: lora"),
    "a crop of another size": (
        ["evaluation.protocols=[plain, nyu_eigen]"],
        "the crop nyu_eigen is defined for 480x640",
    ),
    "a crop larger than the frame": (["evaluation.protocols=[plain, kitti_eigen_garg]"], "the KB crop of KITTI cuts"),
    "nothing in range": (
        ["evaluation.protocols=[plain, plain+crop=garg+min_depth_m=9.5+max_depth_m=9.9]"],
        "no frame has a measured pixel that counts under the protocol plain+crop=garg",
    ),
}


@pytest.mark.parametrize("name", WANTED)
def test_train_and_check_say_it_before_the_first_step(
    recipe: Path, name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe_check, "_try_model", lambda *_: None)  # two seconds, and nothing of it is asked
    overrides, said = WANTED[name]
    status = train.main([str(recipe), *overrides])
    assert said in capsys.readouterr().err
    assert status in (1, 2)
    assert not (tmp_path / "runs").exists()
    checked = check_recipe(load_recipe(recipe, overrides), str(recipe), step=False)
    (finding,) = [one for one in checked.findings if one.severity == "stop"]
    assert said in finding.evidence + finding.fix


def test_every_format_is_named_at_once_with_its_line(recipe: Path) -> None:
    read = load_recipe(recipe, ["export=[huggingface, adapter]", "model.max_depth_m=9.5"])
    with pytest.raises(FinetuneError) as stopped:
        require_exports(read)
    lines = str(stopped.value).splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["command line"] * 2
    assert "format huggingface" in lines[0] and "format adapter" in lines[1]


def test_what_can_be_had_is_not_refused(recipe: Path) -> None:
    read = load_recipe(recipe, ["export=[official, adapter]", "model.train=lora"])
    require_exports(read)
    require_protocols(load_recipe(recipe, ["evaluation.protocols=[plain, plain+crop=garg]"]))
    with pytest.raises(DataError):
        require_protocols(load_recipe(recipe, ["evaluation.protocols=[nyu_eigen]"]))


def test_positions_as_transformers_samples_them_fit_up_to_the_originals_grid() -> None:
    Official().require_positions("base", 0.0, (518, 518))
    Official().require_positions("base", 0.1, (518, 686))
    with pytest.raises(FinetuneError, match=r"up to 518x518 only; here the network input is 518x686\. Export"):
        Official().require_positions("base", 0.0, (518, 686))
