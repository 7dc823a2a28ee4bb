"""A run from its recipe to its table and exports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import yaml

from finetune.assembly import Start, evaluate_with_baselines, make_run, resolved, start
from finetune.environment import environment_record, make_accelerator
from finetune.errors import ResultError
from finetune.evaluation import Evaluation
from finetune.exporting import export_model
from finetune.inspection import inspect_before_training
from finetune.loop import Run
from finetune.metrics import is_better
from finetune.predictor import load_model
from finetune.recipe import Recipe, recipe_mapping, recipe_text
from finetune.run_folder import RunFolder, require_same_recipe


def run_training(recipe: Recipe, *, resume: bool, overwrite: bool) -> None:
    """
    Raises:
        FinetuneError: anything a user can cause, before step 1 where it can be known then.
    """
    folder = RunFolder(Path(recipe.output) / recipe.name)
    folder.require_free(resume=resume, overwrite=overwrite)
    accelerator, notes = make_accelerator(recipe)
    # Every process looks, so that a bad run ends in each of them and none waits for another.
    inspect_before_training(recipe)
    with _advice_when_memory_runs_out():
        begin = start(recipe, accelerator)
        recipe = resolved(recipe, begin.checkpoint, accelerator.mixed_precision)
        if resume and folder.recipe.exists():
            require_same_recipe(yaml.safe_load(folder.recipe.read_text()), recipe_mapping(recipe), folder)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            folder.prepare(recipe_text(recipe), overwrite=overwrite)
        accelerator.wait_for_everyone()
        run = make_run(recipe, accelerator, begin, folder, resume=resume)
        _open(run, begin, [*notes, *begin.notes])
        run.train()
        evaluation = evaluate_with_baselines(recipe, accelerator, begin, folder.best)
    if run.log:
        _close(run, evaluation)
    accelerator.end_training()


def _open(run: Run, begin: Start, notes: Sequence[str]) -> None:
    """Say what runs, and how good it is before the first step."""
    if run.log:
        record = environment_record(run.recipe, run.accelerator, begin.checkpoint.sha256, run.total_steps)
        run.folder.write_json("environment.json", record)
        run.log.text("recipe", recipe_text(run.recipe))
        for note in notes:
            run.log.say(note)
        run.log.say(
            f"{run.folder.path}: step {run.step} of {run.total_steps} on {record['device']}, {record['precision']}, "
            f"{record['processes']} process(es), {record['threads']} threads; "
            f"tensorboard --logdir {run.folder.tensorboard}"
        )
    if run.step == 0:
        run.evaluate()
        if run.log:
            run.log.end_step(0)


def _close(run: Run, evaluation: Evaluation) -> None:
    """The table, and the exports that the recipe asks for."""
    assert run.log is not None
    run.folder.write_json("evaluation.json", [evaluation.to_mapping()])
    run.log.text("evaluation", evaluation.table())
    run.log.close()
    print(evaluation.table())
    metric = run.recipe.evaluation.best
    finetuned, base = (evaluation.rows[row][metric] for row in ("finetuned", "base_fitted_scale"))
    if not is_better(metric, finetuned, base):
        print(
            f"finetuned does not beat base_fitted_scale ({metric} {finetuned:.4f} against {base:.4f}): "
            "train longer, or look at the panels and at data.train"
        )
    if run.best and run.best.step == 0:
        print(f"no evaluation beat the start ({metric} {run.best.value:.4f}): best/ holds the weights of step 0")
    _, _, sample = run.validation[0]
    for name in run.recipe.export:
        target = run.folder.path / "export" / f"{run.recipe.name}.pth"
        # A resumed run ends a second time; what stands there is its own.
        print(export_model(load_model(str(run.folder.path)), name, target, sample.image, force=True))
    print(f"weights: {run.folder.best} (step {run.best.step if run.best else run.step})")


@contextmanager
def _advice_when_memory_runs_out() -> Iterator[None]:
    """
    Raises:
        ResultError: memory ran out; names the next steps to try.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        # PyTorch has no class of its own for memory that a CPU lacks.
        if type(error) is RuntimeError and "can't allocate memory" not in str(error):
            raise
        raise ResultError(
            "Memory ran out. Try in this order: run.gradient_checkpointing=true; half of run.batch_size with twice "
            "run.accumulate (the same samples a step); model.train=decoder."
        ) from error
