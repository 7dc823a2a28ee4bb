"""A run from its recipe to its table and exports."""

from __future__ import annotations

import platform
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list, gather_object
from torch._dynamo.exc import TorchDynamoException

from finetune.evaluation.metrics import TITLES
from finetune.evaluation.results import Chosen, Evaluation
from finetune.evaluation.retention import Retention
from finetune.export.export import export_model
from finetune.inference.predictor import load_model
from finetune.recipe.load import default_notes, recipe_mapping, recipe_text
from finetune.recipe.run_dir import ENVIRONMENT_FILE, EVALUATION_FILE, REPORT_FILE, RunFolder, require_same_run
from finetune.recipe.schema import Recipe
from finetune.reporting.frames import ShownFrames
from finetune.reporting.run_report import collect_page_content, render_report_page
from finetune.reporting.text_table import format_evaluations
from finetune.reporting.verdicts import Verdict, find_verdicts
from finetune.training.build import make_augmentation, make_batches, make_run
from finetune.training.console import console_log, detail, say, warn
from finetune.training.environment import (
    DETERMINISTIC_NOTE,
    describe_environment,
    determinism_sentence,
    environment_record,
    make_accelerator,
    try_compiler,
    watch_determinism,
)
from finetune.training.evaluate import evaluate_with_baselines
from finetune.training.first_look import Remarks, cost_line, next_line, opening_lines
from finetune.training.overfit_check import require_overfit
from finetune.training.preflight import beyond_range_notes, inspect_before_training, quick_warnings, skipped_notes
from finetune.training.promises import require_exports, require_protocols
from finetune.training.rehearsal import rehearse
from finetune.training.retention import KEY, GeneralData, load_general_data, measure_kept
from finetune.training.run import Run
from finetune.training.startup import Startup, prepare_startup, readers_of
from finetune.training.trackers import require_trackers
from finetune.utils import registry
from finetune.utils.errors import FinetuneError, ProcessError, first_line
from finetune.utils.paths import expand_path, path_exists
from finetune.utils.resource_errors import explain_resource_error
from finetune.utils.signals import Interrupts
from finetune.utils.text import count_noun


def run_training(recipe: Recipe, *, resume: bool, overwrite: bool, verbose: bool = False) -> None:
    """
    Args:
        recipe: as read.
        resume, overwrite: what to do with a run that is in the run folder already.
        verbose: also print the details that help to find a fault.

    Raises:
        FinetuneError: anything a user can cause, before step 1 where it can be known then.
    """
    folder = RunFolder(expand_path(recipe.output) / recipe.name)
    folder.require_free(resume=resume, overwrite=overwrite)
    try:
        with console_log(verbose=verbose), Interrupts() as interrupts, _explained_resource_errors():
            with watch_determinism(recipe) as met:
                _train(recipe, folder, interrupts, resume=resume, overwrite=overwrite)
            if recipe.run.deterministic:
                say(determinism_sentence(met))
    finally:
        folder.release()
        # Accelerate keeps its state for the life of the process; the next run in it may want another precision.
        AcceleratorState._reset_state(reset_partial_state=True)


def _train(recipe: Recipe, folder: RunFolder, interrupts: Interrupts, *, resume: bool, overwrite: bool) -> None:
    require_exports(recipe)
    require_trackers(recipe)
    accelerator, warnings = make_accelerator(recipe)
    # Every process looks, so that a bad run ends in each of them and none waits for another.
    looked_at = inspect_before_training(recipe)
    make_augmentation(recipe)
    require_protocols(recipe)
    warnings += skipped_notes(looked_at) + quick_warnings(looked_at, recipe)
    if recipe.run.compile:
        try_compiler(accelerator.device)
    startup = prepare_startup(recipe, accelerator)
    require_exports(recipe, startup)
    general = load_general_data(recipe, startup.checkpoint, say) if accelerator.is_main_process else []
    record = environment_record(startup.recipe, accelerator, startup.base["sha256"], startup.total_steps)
    if resume and path_exists(folder.recipe):
        require_same_run(folder, recipe_mapping(startup.recipe), record, recipe.places)
    _take_folder(startup, folder, record, resume=resume, overwrite=overwrite)
    run = make_run(startup, folder, interrupts=interrupts, resume=resume)
    run.monitors.lasting = tuple(beyond_range_notes(looked_at, recipe))
    readers = readers_of((*recipe.data.train, *recipe.data.val))
    remarks = Remarks(
        warnings=(*warnings, *startup.warnings, *run.warnings, *run.monitors.sentences()),
        notes=(
            *dict.fromkeys(note for reader in readers for note in reader.notes),
            *startup.notes,
        ),
        details=(*default_notes(recipe), *startup.details, *run.details, *describe_environment(record)),
    )
    _train_and_evaluate(run, startup, record, remarks, general)
    accelerator.end_training()


def _take_folder(
    startup: Startup, folder: RunFolder, record: Mapping[str, object], *, resume: bool, overwrite: bool
) -> None:
    """
    Make the run folder that of this launch. Until here nothing was written.

    Raises:
        FinetuneError: another launch has it, or not every process sees it.
    """
    accelerator = startup.accelerator
    refusal = _claim_folder(folder, resume=resume, overwrite=overwrite) if accelerator.is_main_process else None
    refusals = [sentence for sentence in gather_object([refusal]) if sentence]
    if refusals:
        raise FinetuneError(refusals[0])
    require_shared_disk(accelerator, folder)
    if accelerator.is_main_process:
        folder.prepare(recipe_text(startup.recipe), overwrite=overwrite)
        folder.write_json(ENVIRONMENT_FILE, record)
    accelerator.wait_for_everyone()


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
    faults = [fault for fault in gather_object([fault]) if fault]
    if accelerator.is_main_process:
        folder.remove_word()
    if faults:
        raise FinetuneError(
            f"{folder.path}: what the main process writes there is not seen by {', '.join(faults)}. All machines of a "
            "launch need the run folder on one disk that they share, by the same path: set output=... to one."
        )


def _claim_folder(folder: RunFolder, *, resume: bool, overwrite: bool) -> str | None:
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


def _train_and_evaluate(
    run: Run,
    startup: Startup,
    record: Mapping[str, object],
    remarks: Remarks,
    general: Sequence[GeneralData],
) -> None:
    try:
        if run.log:
            _say_start(run, startup, record, remarks)
        cost = rehearse(run.trainer, make_batches(startup, run.step))
        if run.log and cost:
            say(cost_line(cost, run.total_steps - run.step, startup.accelerator.device))
        if run.step == 0:
            run.validator.evaluate()
            if run.log:
                run.log.end_step(0)
        run.interrupts.patient = True
        run.train()
        run.interrupts.obey()
        if run.recipe.run.overfit_batches:
            sentence = require_overfit(run, startup)
            if run.log:
                say(sentence)
        run.trainer.give_memory_back()
        evaluations, frames = evaluate_with_baselines(startup, run.folder.best, run.folder.last)
        if run.log:
            _write_results(run, evaluations, frames, _measure_kept(run, startup, general))
    finally:
        if run.log:
            # Also after a fault, so that the bar has ended before the sentence about it.
            run.log.close()


def _say_start(run: Run, startup: Startup, record: Mapping[str, object], remarks: Remarks) -> None:
    """Say what runs; the main process alone calls."""
    assert run.log is not None
    if run.step == 0:
        run.log.log_text("recipe", recipe_text(run.recipe), 0)
        if run.monitors.lasting:
            run.log.log_text("warnings", "\n".join(run.monitors.sentences()), 0)
    if run.recipe.run.deterministic:
        remarks = remarks._replace(details=(*remarks.details, DETERMINISTIC_NOTE))
    run.folder.write_json(ENVIRONMENT_FILE, {**record, "remarks": remarks._asdict()})
    lines, left_out = opening_lines(run, startup, record, remarks)
    for line in lines:
        (warn if line.startswith("warning") else say)(line)
    for sentence in (*left_out, *remarks.details):
        detail(sentence)


def _measure_kept(run: Run, startup: Startup, general: Sequence[GeneralData]) -> list[Retention]:
    """What was kept of the base; a fault in that must not cost anything else of the run."""
    try:
        return measure_kept(startup, run.folder.best, general)
    except FinetuneError as error:
        warn(f"{KEY} is not measured ({first_line(error)}); all else is")
        return []


def _write_results(run: Run, evaluations: Sequence[Evaluation], frames: ShownFrames, kept: Sequence[Retention]) -> None:
    """The tables, the page, and the exports that the recipe asks for."""
    assert run.log is not None
    warnings = [*run.monitors.sentences(), *(sentence for found in kept if (sentence := found.warning()))]
    metric = run.recipe.evaluation.best
    evaluations = [replace(evaluation, chosen=_describe_choice(run)) for evaluation in evaluations]
    found = find_verdicts(
        evaluations[0],
        "finetuned",
        metric,
        history=run.monitors.history,
        training_frames=sum(len(entry.source) for entry in run.recipe.data.train),
    )
    said = [str(verdict) for verdict in found]
    contents = [evaluation.to_mapping() | {"alarms": warnings, "verdicts": said} for evaluation in evaluations]
    if kept:
        contents[0]["retention"] = [retention.to_mapping() for retention in kept]
    run.folder.write_json(EVALUATION_FILE, contents)
    table = "\n".join([format_evaluations(evaluations), *map(str, kept), *said, *warnings])
    # One step beyond the last: a finished run that is resumed drops it and writes it again.
    run.log.log_text("evaluation", table, run.total_steps + 1)
    run.log.log_tables(evaluations, run.total_steps + 1)
    run.log.close()
    bad_samples = run.trainer.bad_samples.seen
    if bad_samples.count:
        warn(bad_samples.summary(run.trainer.samples_asked))
    print(table)
    if run.best and run.best.step == 0:
        print(
            f"no evaluation beat the start ({TITLES[metric]} {run.best.value:.4f}): best/ holds the weights of step 0"
        )
    _write_page(run, evaluations, frames, warnings, found, kept)
    sample = run.validator.samples[0].sample
    for name, target in _find_export_targets(run).items():
        # Forced, because a resumed run ends a second time and finds its own exports.
        print(export_model(load_model(str(run.folder.path)), name, target, sample.full_image(), force=True))
    print(f"weights: {run.folder.best} (step {run.best.step if run.best else run.step})")
    if warnings:
        print(f"{count_noun(len(warnings), 'warning')}, above")
    print(next_line(run.folder))


def _describe_choice(run: Run) -> Chosen | None:
    """How ``best/`` came to be."""
    if run.best is None:
        return None
    on = run.recipe.evaluation.choose_on
    return Chosen(evaluations=len(run.monitors.history), step=run.best.step, on=on or "data.val", shown=on is None)


def _find_export_targets(run: Run) -> dict[str, Path]:
    """Format -> the file or folder it goes to."""
    suffixes = {name: registry.find(registry.EXPORTERS, name).suffix for name in run.recipe.export}
    folder = run.folder.path / "export"
    return {name: folder / (f"{run.recipe.name}{suffix}" if suffix else name) for name, suffix in suffixes.items()}


def _write_page(
    run: Run,
    evaluations: Sequence[Evaluation],
    frames: ShownFrames,
    warnings: Sequence[str],
    found: Sequence[Verdict],
    kept: Sequence[Retention],
) -> None:
    """Write ``report.html``; a fault in it must not cost anything else of the run."""
    folder = run.folder
    weights = f"weights, step {run.best.step if run.best else run.step}"
    files = {weights: folder.best, **{f"export, {name}": target for name, target in _find_export_targets(run).items()}}
    try:
        title = f"Run {run.recipe.name}"
        content = collect_page_content(
            title,
            str(folder.path),
            run.recipe,
            str(folder.recipe),
            evaluations,
            frames,
            monitors=warnings,
            found=found,
            files=files,
            kept=kept,
        )
        folder.write_text(REPORT_FILE, render_report_page(content))
    except Exception as error:  # noqa: BLE001  whatever it is, after hours of training the exports must still be written
        warn(
            f"{folder.path / REPORT_FILE} is not written ({first_line(error)}); all else is. "
            f"finetune evaluate {folder.path} --recipe {folder.recipe} --html FILE makes it again."
        )


@contextmanager
def _explained_resource_errors() -> Iterator[None]:
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
