"""Read a recipe's file and the command line into a checked ``Recipe``, and write it as text again."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from finetune.data.drawn_frames import MAX_DRAWN_FRAMES
from finetune.recipe.cross_checks import CROSS_CHECKS, Sections
from finetune.recipe.schema import (
    DEFAULT_LOSS,
    DEFAULT_STEPS,
    LOSS_OF_RELATIVE_LABELS,
    LossTerm,
    Recipe,
    RetentionOptions,
    require_folder_name,
)
from finetune.recipe.validate import Checker, option_fields, plain_values
from finetune.recipe.yaml_source import WRONG, Document, Value, dotted, read_document, spelled, yaml_text
from finetune.utils.errors import RecipeError, RecipeFaults
from finetune.utils.paths import expand_path
from finetune.utils.plain import PlainValue


def load_recipe(path: str | Path, overrides: Sequence[str] = (), *, check_files: bool = True) -> Recipe:
    """
    Args:
        path: a recipe in YAML.
        overrides: ``optim.lr=1e-5``, each replacing or adding one key.
        check_files: also check that the files and folders it names exist.

    Returns:
        The recipe with every default filled in.

    Raises:
        RecipeFaults: everything that is wrong with it, a line each, in the order of the file.
    """
    document = read_document(path, overrides)
    _put_defaults(document, expand_path(path))
    checker = Checker(document, check_files=check_files)
    given = checker.fields(Recipe, document.values, (), "a key of the recipe")
    assert given is not None, "the document is a mapping"
    for check in CROSS_CHECKS:
        try:
            check(cast(Sections, given.values))
        except RecipeError as error:
            checker.report(error, (), given.at_fault)
    given.values["places"] = {dotted(key): place.text for key, place in document.places.items()}
    recipe = checker.construct(Recipe, given, ())
    if check_files and not document.faults and isinstance(recipe, Recipe):
        _check_detail(recipe, checker)
    if document.faults:
        raise RecipeFaults(document.sorted_faults())
    assert isinstance(recipe, Recipe), "what cannot be built is a fault"
    return recipe


def _put_defaults(document: Document, path: Path) -> None:
    """Fill in the keys whose defaults depend on something else: on the file's name, on the head, on another key."""
    if "name" not in document.values:
        document.values["name"] = path.stem if _can_name_a_run(path.stem) else WRONG
        if document.values["name"] is WRONG:
            after_file = f"the file's own, {spelled(path.stem)}, which cannot be a folder's"
            document.fault(("name",), f"name is missing, and would be {after_file}; expected name: and a word.")
    model = document.values.get("model")
    head = model.get("head", "metric") if isinstance(model, dict) else "metric"
    data = document.values.get("data")
    if isinstance(head, str) and head in DEFAULT_LOSS:
        _put_losses_of_labels(data, document.values.get("loss"), head)
        document.values.setdefault("loss", [dict(term) for term in DEFAULT_LOSS[head]])
    camera = data.get("camera") if isinstance(data, dict) else None
    if isinstance(camera, dict) and camera.get("mode") == "canonical":
        # The default, official, holds no camera; export writes it for one.
        document.values.setdefault("export", [])
    evaluation = document.values.get("evaluation")
    if isinstance(evaluation, dict) and "retention" in evaluation:
        _spell_out_retention(document, evaluation)
    run = document.values.setdefault("run", {})
    if isinstance(run, dict) and run.get("steps") is None and run.get("epochs") is None:
        run["steps"] = DEFAULT_STEPS


def _spell_out_retention(document: Document, evaluation: dict[str, Value]) -> None:
    """Replace the two words that may stand for the keys of ``evaluation.retention``."""
    found = evaluation["retention"]
    if found is None:
        evaluation["retention"] = {}
    elif found == "default":
        evaluation["retention"] = {"drawn": MAX_DRAWN_FRAMES}
    elif found is not WRONG and not isinstance(found, dict):
        keys = ", ".join(option_fields(RetentionOptions))
        expected = f"default, null, or a mapping with the keys {keys}"
        document.fault(("evaluation", "retention"), f"evaluation.retention is {spelled(found)}; expected {expected}.")
        evaluation["retention"] = WRONG


def _put_losses_of_labels(data: Value, of_recipe: Value, head: str) -> None:
    """
    Fill in the losses of entries with a teacher's labels that name none.

    Gradient matching sharpens on exact labels and gives nothing on a teacher's, and the pixels where such a label is
    most off are left out: Yang et al. 2024, arXiv:2406.09414, sections 5 and 7.
    """
    entries = data.get("train") if isinstance(data, dict) else None
    terms: Sequence[Value] | None = of_recipe if isinstance(of_recipe, list) else None
    if of_recipe is None and head != "metric":
        wanted: list[Value] = [dict(term) for term in LOSS_OF_RELATIVE_LABELS]
    else:
        wanted = [term for term in terms or () if not (isinstance(term, dict) and term.get("kind") == "gradient")]
        if len(wanted) in (0, len(terms or ())):
            return
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and entry.get("reader") == "pseudo" and entry.get("loss") is None:
            entry["loss"] = copy.deepcopy(wanted)


def _check_detail(recipe: Recipe, checker: Checker) -> None:
    """Add as faults the entries whose frames have less detail than the recipe needs, and keys that are for entries with
    a teacher's labels where there is none."""
    if recipe.augment.strong.is_on and not any(entry.source.has_pseudo_labels for entry in recipe.data.train):
        nobody = "0 for color, blur and cutmix, since no entry of data.train has a teacher's labels (reader pseudo)"
        checker.report(RecipeError("augment.strong", plain_values(recipe.augment.strong), nobody), (), set())
    from finetune.data.preprocessing import Preprocessing

    network = Preprocessing(input_size=recipe.data.input_size, decode=recipe.data.decode)
    for path, entries in (
        (("data", "train"), recipe.data.train),
        (("data", "val"), recipe.data.val),
        (("evaluation", "retention", "entries"), recipe.evaluation.retention.entries),
    ):
        for i, entry in enumerate(entries):
            try:
                entry.source.decoded_for(network)
                entry.source.check_detail(recipe.data.input_size, recipe.augment.zoom[1], trains="train" in path)
            except RecipeError as error:
                checker.report(error, (*path, i), set())


def _can_name_a_run(name: str) -> bool:
    try:
        return bool(require_folder_name(name).encode())
    except (RecipeError, UnicodeEncodeError):
        return False


def default_notes(recipe: Recipe) -> list[str]:
    """A sentence about the defaults that decide the result of a run and that its recipe does not write."""
    taken = []
    if not recipe.places.keys() & {"run.steps", "run.epochs"}:
        taken.append(f"run.steps: {recipe.run.steps}")
    if "loss" not in recipe.places:
        taken.append(f"loss: {sum_in_words(recipe.loss)}")
    for i, entry in enumerate(recipe.data.train):
        if entry.loss is not None and not any(place.startswith(f"data.train.{i}.loss") for place in recipe.places):
            taken.append(f"data.train.{i}.loss: {sum_in_words(entry.loss)}, since a teacher labeled it")
    if "export" not in recipe.places and not recipe.export:
        taken.append("export: [], since finetune export needs the camera: --for-camera FX")
    return [f"by default, since the recipe says nothing else: {', '.join(taken)}"] if taken else []


def sum_in_words(terms: Sequence[LossTerm]) -> str:
    """Losses with their weights, such as ``1 silog + 0.1 l1``."""
    return " + ".join(f"{term.weight:g} {term.kind}" for term in terms)


def recipe_mapping(recipe: Recipe) -> dict[str, PlainValue]:
    """The recipe as mappings, lists and scalars, with every default; equal recipes give equal mappings."""
    return plain_values(recipe)


def recipe_text(recipe: Recipe) -> str:
    """The recipe as YAML, with every default. ``load_recipe`` reads an equal recipe from it."""
    return yaml_text(recipe_mapping(recipe))
