"""A run from its recipe to its table and exports."""

from __future__ import annotations

import platform
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list, gather_object
from torch._dynamo.exc import TorchDynamoException

from finetune.evaluation.results import Chosen, Evaluation
from finetune.export.export import export_model
from finetune.inference.predictor import load_model
from finetune.recipe.load import default_notes, recipe_mapping, recipe_text
from finetune.recipe.run_dir import ENVIRONMENT_FILE, EVALUATION_FILE, REPORT_FILE, RunFolder, require_same_run
from finetune.recipe.schema import Recipe
from finetune.reporting.frames import ShownFrames
from finetune.reporting.run_report import collect_page_content, render_report_page
from finetune.reporting.text_table import format_evaluations
from finetune.reporting.verdicts import Verdict, find_verdicts
from finetune.training.build import make_augmentation, make_run, total_steps
from finetune.training.environment import (
    DETERMINISTIC_NOTE,
    determinism,
    determinism_sentence,
    environment_record,
    log_head,
    make_accelerator,
    try_compiler,
)
from finetune.training.evaluate import evaluate_with_baselines
from finetune.training.overfit_check import require_overfit
from finetune.training.preflight import beyond_range_notes, inspect_before_training, quick_warnings, skipped_notes
from finetune.training.promises import require_exports, require_protocols
from finetune.training.startup import Startup, prepare_startup, with_auto_resolved
from finetune.training.trainer import Run
from finetune.utils import registry
from finetune.utils.errors import FinetuneError, ProcessError, first_line
from finetune.utils.paths import expand_path, path_exists
from finetune.utils.resource_errors import explain_resource_error
from finetune.utils.signals import Interrupts


def run_training(recipe: Recipe, *, resume: bool, overwrite: bool) -> None:
    """
    Raises:
        FinetuneError: anything a user can cause, before step 1 where it can be known then.
    """
    folder = RunFolder(expand_path(recipe.output) / recipe.name)
    folder.require_free(resume=resume, overwrite=overwrite)
    try:
        with Interrupts() as interrupts, _sentences_for_what_machines_lack(), determinism(recipe) as met:
            _train(recipe, folder, interrupts, resume=resume, overwrite=overwrite)
            if recipe.run.deterministic:
                print(determinism_sentence(met))
    finally:
        folder.release()
        # Accelerate keeps its state for the life of the process; the next run in it may want another precision.
        AcceleratorState._reset_state(reset_partial_state=True)


def _train(recipe: Recipe, folder: RunFolder, interrupts: Interrupts, *, resume: bool, overwrite: bool) -> None:
    require_exports(recipe)
    accelerator, notes = make_accelerator(recipe)
    # Every process looks, so that a bad run ends in each of them and none waits for another.
    looked_at = inspect_before_training(recipe)
    make_augmentation(recipe)
    require_protocols(recipe)
    entries = (*recipe.data.train, *recipe.data.val)
    notes += dict.fromkeys(note for entry in entries for note in entry.source.notes)
    notes += default_notes(recipe) + skipped_notes(looked_at) + quick_warnings(looked_at, recipe)
    if recipe.run.compile:
        try_compiler(accelerator.device)
    begin = prepare_startup(recipe, accelerator)
    require_exports(recipe, begin)
    recipe = with_auto_resolved(recipe, begin.checkpoint, accelerator.mixed_precision)
    total = total_steps(recipe, accelerator.num_processes)
    record = environment_record(recipe, accelerator, begin.base["sha256"], total)
    if resume and path_exists(folder.recipe):
        require_same_run(folder, recipe_mapping(recipe), record, recipe.places)
    # Not before: until here nothing was written.
    sentence = _refusal(folder, resume=resume, overwrite=overwrite) if accelerator.is_main_process else None
    refusals = [one for one in gather_object([sentence]) if one]
    if refusals:
        raise FinetuneError(refusals[0])
    require_shared_disk(accelerator, folder)
    if accelerator.is_main_process:
        folder.prepare(recipe_text(recipe), overwrite=overwrite)
        folder.write_json(ENVIRONMENT_FILE, record)
    accelerator.wait_for_everyone()
    run = make_run(recipe, accelerator, begin, folder, resume=resume)
    run.interrupts = interrupts
    run.monitors.lasting = tuple(beyond_range_notes(looked_at, recipe))
    _run(run, begin, record, [*notes, *begin.notes, *run.notes])
    accelerator.end_training()


def require_shared_disk(accelerator: Accelerator, folder: RunFolder) -> None:
    """
    See, before anything else is written, that every process finds what the main one writes.

    Raises:
        FinetuneError: one does not, in each of them; says on which machine.
    """
    if accelerator.num_processes == 1:
        return
    words = [secrets.token_hex(16)]
    broadcast_object_list(words)
    if accelerator.is_main_process:
        folder.leave_word(words[0])
    accelerator.wait_for_everyone()
    fault = None
    if not folder.finds_word(words[0]):
        fault = f"process {accelerator.process_index} on {platform.node()}"
    faults = [one for one in gather_object([fault]) if one]
    if accelerator.is_main_process:
        folder.remove_word()
    if faults:
        raise FinetuneError(
            f"{folder.path}: what the main process writes there is not seen by {', '.join(faults)}. All machines of a "
            "launch need the run folder on one disk that they share, by the same path: set output=... to one."
        )


def _refusal(folder: RunFolder, *, resume: bool, overwrite: bool) -> str | None:
    """Why this launch may not have the folder now; None where it has it from now on."""
    taken = folder.claim()
    if taken:
        return taken
    try:
        # Another launch may have come and gone since it was first looked at.
        folder.require_free(resume=resume, overwrite=overwrite)
    except FinetuneError as error:
        return str(error)
    return None


def _run(run: Run, begin: Startup, record: Mapping[str, Any], notes: Sequence[str]) -> None:
    try:
        _open(run, record, notes)
        run.interrupts.patient = True
        run.train()
        run.interrupts.obey()
        if run.recipe.run.overfit_batches:
            _say_overfit(run, require_overfit(run))
        run.give_memory_back()
        evaluations, frames = evaluate_with_baselines(
            run.recipe, run.accelerator, begin, run.folder.best, run.folder.last
        )
        if run.log:
            _close(run, evaluations, frames)
    finally:
        if run.log:
            # Also after a fault: what is said of it must stand on a line of its own.
            run.log.close()


def _say_overfit(run: Run, sentence: str) -> None:
    if run.log:
        run.log.say(sentence)


def _open(run: Run, record: Mapping[str, Any], notes: Sequence[str]) -> None:
    """Say what runs, and how good it is before the first step."""
    if run.log:
        if run.step == 0:
            run.log.text("recipe", recipe_text(run.recipe), 0)
            if run.monitors.lasting:
                run.log.text("alarms", "\n".join(run.monitors.sentences()), 0)
        for note in [*notes, *run.monitors.sentences()]:
            run.log.say(note)
        if run.recipe.run.deterministic:
            run.log.say(DETERMINISTIC_NOTE)
        for line in log_head(record):
            run.log.say(line)
        run.log.say(
            f"{run.folder.path}: step {run.step} of {run.total_steps}; tensorboard --logdir {run.folder.tensorboard}"
        )
    if run.step == 0:
        run.evaluate()
        if run.log:
            run.log.end_step(0)


def _close(run: Run, evaluations: Sequence[Evaluation], frames: ShownFrames) -> None:
    """The tables, the page, and the exports that the recipe asks for."""
    assert run.log is not None
    monitors = run.monitors.sentences()
    metric = run.recipe.evaluation.best
    evaluations = [replace(one, chosen=_chosen(run)) for one in evaluations]
    found = find_verdicts(
        evaluations[0],
        "finetuned",
        metric,
        history=run.monitors.history,
        training_frames=sum(len(entry.source) for entry in run.recipe.data.train),
    )
    said = [str(one) for one in found]
    contents = [one.to_mapping() | {"alarms": monitors, "verdicts": said} for one in evaluations]
    run.folder.write_json(EVALUATION_FILE, contents)
    table = "\n".join([format_evaluations(evaluations), *said, *monitors])
    # One step beyond the last: a finished run that is resumed drops it and writes it again.
    run.log.text("evaluation", table, run.total_steps + 1)
    run.log.close()
    if run.bad_samples.count:
        print(run.bad_samples.summary(run.samples_asked))
    print(table)
    if run.best and run.best.step == 0:
        print(f"no evaluation beat the start ({metric} {run.best.value:.4f}): best/ holds the weights of step 0")
    _write_page(run, evaluations, frames, monitors, found)
    sample = run.validation[0].sample
    for name, target in _exports(run).items():
        # A resumed run ends a second time; what stands there is its own.
        print(export_model(load_model(str(run.folder.path)), name, target, sample.image, force=True))
    print(f"weights: {run.folder.best} (step {run.best.step if run.best else run.step})")
    if monitors:
        print(f"{len(monitors)} alarm(s) stood at the end of the run; they are below the table")


def _chosen(run: Run) -> Chosen | None:
    """How ``best/`` came to be."""
    if run.best is None:
        return None
    on = run.recipe.evaluation.choose_on
    return Chosen(evaluations=len(run.monitors.history), step=run.best.step, on=on or "data.val", shown=on is None)


def _exports(run: Run) -> dict[str, Path]:
    """Format -> the file or folder it goes to."""
    suffixes = {name: registry.find(registry.EXPORTERS, name).suffix for name in run.recipe.export}
    folder = run.folder.path / "export"
    return {name: folder / (f"{run.recipe.name}{suffix}" if suffix else name) for name, suffix in suffixes.items()}


def _write_page(
    run: Run,
    evaluations: Sequence[Evaluation],
    frames: ShownFrames,
    monitors: Sequence[str],
    found: Sequence[Verdict],
) -> None:
    """``report.html``, by which nothing of a run may be lost."""
    folder = run.folder
    weights = f"weights, step {run.best.step if run.best else run.step}"
    files = {weights: folder.best, **{f"export, {name}": target for name, target in _exports(run).items()}}
    try:
        title = f"Run {run.recipe.name}"
        content = collect_page_content(
            title,
            str(folder.path),
            run.recipe,
            str(folder.recipe),
            evaluations,
            frames,
            monitors=monitors,
            found=found,
            files=files,
        )
        folder.write_text(REPORT_FILE, render_report_page(content))
    except Exception as error:  # noqa: BLE001  whatever it is: after hours of training the exports are still to come
        print(
            f"{folder.path / REPORT_FILE} is not written ({first_line(error)}); all else is. "
            f"finetune evaluate {folder.path} --recipe {folder.recipe} --html FILE makes it again."
        )
        return
    print(f"page: {folder.path / REPORT_FILE}")


@contextmanager
def _sentences_for_what_machines_lack() -> Iterator[None]:
    """
    Raises:
        ProcessError: memory or the disk ran out, a loader's worker died, or run.compile cannot; names the next steps to
            try.
    """
    try:
        yield
    except TorchDynamoException as error:
        raise ProcessError(
            f"run.compile: the network could not be compiled ({first_line(error)}). Set run.compile: false."
        ) from error
    except Exception as error:
        short = explain_resource_error(
            error,
            of_disk="Free space and go on with --resume: the resume points in the run folder are whole.",
            of_memory="Try in this order: run.gradient_checkpointing=true; half of run.batch_size with twice "
            "run.accumulate (the same samples a step); model.train=decoder.",
        )
        if short is None:
            raise
        raise short from error
