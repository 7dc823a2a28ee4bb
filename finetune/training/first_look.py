"""What a run says before its first step: what is trained, from what, on what, and where the results go."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import NamedTuple

import torch

from finetune.models.checkpoints.load import license_sentence
from finetune.recipe.run_dir import REPORT_FILE, RunFolder
from finetune.recipe.schema import Recipe
from finetune.training.rehearsal import Cost
from finetune.training.run import Run
from finetune.training.startup import Startup, readers_of
from finetune.training.step_cost import cost_sentence
from finetune.training.trackers import describe_trackers
from finetune.utils.paths import is_file
from finetune.utils.text import count_noun

MAX_LINES = 12  # before the bar, besides the one that says what the run takes
_WIDTH = 8  # columns for the name of a group


class Remarks(NamedTuple):
    """Sentences about a run before its first step.

    Attributes:
        warnings: what may be wrong.
        notes: what whoever starts it should know.
        details: for ``--verbose``.
    """

    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    details: tuple[str, ...] = ()

    @property
    def marked(self) -> list[str]:
        """Warnings and notes, each with the word for what it is."""
        return [
            *(_marked("warning", sentence) for sentence in self.warnings),
            *(_marked("note", sentence) for sentence in self.notes),
        ]


def opening_lines(
    run: Run, startup: Startup, record: Mapping[str, object], remarks: Remarks
) -> tuple[list[str], list[str]]:
    """
    Args:
        run: at the step it goes on from.
        startup: what it starts from.
        record: as in ``environment.json``.
        remarks: the warnings come first; those that do not fit are counted.

    Returns:
        At most ``MAX_LINES`` lines: the groups ``trains``, ``from``, ``on`` and ``to``, then remarks; and the remarks
        that did not fit.
    """
    groups = {
        "trains": [_what(run), _where_it_runs(record)],
        "from": _origin(startup),
        "on": [
            _data(run.recipe),
            run.waits.loading.describe(),
            *([str(startup.baselines)] if startup.baselines else []),
        ],
        "to": _results(run.recipe, run.folder),
    }
    lines = [
        f"{'' if i else name:{_WIDTH}}{sentence}" for name, group in groups.items() for i, sentence in enumerate(group)
    ]
    marked, room = remarks.marked, MAX_LINES - len(lines)
    if len(marked) <= room:
        return lines + marked, []
    shown, left_out = marked[: room - 1], marked[room - 1 :]
    count = f"and {len(left_out)} more: --verbose shows them, {run.folder.environment} keeps them"
    return [*lines, *shown, count], left_out


def cost_line(cost: Cost, steps: int, device: torch.device) -> str:
    """The group ``takes``: minutes and memory of the steps that are left."""
    return f"{'takes':{_WIDTH}}{cost_sentence(cost.seconds_a_step, steps, cost.peak_bytes, device)}"


def next_line(folder: RunFolder) -> str:
    """What to do with a run that has ended, with its paths; the page only if it could be written."""
    run, recipe = (shlex.quote(str(path)) for path in (folder.path, folder.recipe))
    page = folder.path / REPORT_FILE
    steps = [
        *([f"open {shlex.quote(str(page))}"] if is_file(page) else []),
        f"finetune evaluate {run} --recipe {recipe}",
        f"finetune predict {run} IMAGES --output FOLDER",
        f"finetune export {run} --to onnx --output FILE",
    ]
    return f"next: {'; '.join(steps)}"


def _marked(word: str, sentence: str) -> str:
    return sentence if sentence.startswith(word) else f"{word}: {sentence}"


def _what(run: Run) -> str:
    """The trained weights, the steps, and the loss."""
    recipe = run.recipe
    parts = {
        "all": "every weight",
        "decoder": "decoder and head, the encoder as it is",
        "lora": f"adapters of rank {recipe.model.lora.rank} in the encoder, and decoder and head",
    }
    network = run.trainer.network
    count = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    loss = " + ".join(f"{term.weight:g} {term.name}" for term in recipe.training_terms)
    steps, images = run.total_steps, run.trainer.bad_samples.samples_of_a_step
    resumed = f"; resumed at step {run.step} of {run.total_steps}" if run.step else ""
    return (
        f"{recipe.name}: {parts[recipe.model.train]} ({count:,} values), {count_noun(steps, 'step')} of "
        f"{count_noun(images, 'image')}, loss {loss}{resumed}"
    )


def _where_it_runs(record: Mapping[str, object]) -> str:
    processes = f", {record['processes']} processes" if record["processes"] != 1 else ""
    machines = f" on {record['machines']} machines" if record["machines"] != 1 else ""
    rounding = " with TF32" if record["cuda"] and record["tf32"] else ""
    return f"on {record['device']} in {record['precision']}{rounding}{processes}{machines}"


def _origin(startup: Startup) -> list[str]:
    """The checkpoint, and what of it the network keeps."""
    checkpoint, encoder = startup.checkpoint, startup.model.encoder_name
    if checkpoint is None:
        return [f"no checkpoint: encoder {encoder}, every weight drawn from seed {startup.recipe.seed}"]
    return [
        f"{checkpoint.source} ({checkpoint.kind}, {checkpoint.encoder}, {license_sentence(checkpoint.license)})",
        startup.loaded,
    ]


def _data(recipe: Recipe) -> str:
    train, val = (
        sum(len(reader) for reader in readers_of(entries)) for entries in (recipe.data.train, recipe.data.val)
    )
    height, width = recipe.data.input_size
    return f"{count_noun(train, 'frame')} to train and {val} to validate, seen at {height}x{width} (height x width)"


def _results(recipe: Recipe, folder: RunFolder) -> list[str]:
    return [
        f"{folder.path}: weights in best/, and at the end the page {REPORT_FILE}",
        *describe_trackers(recipe, folder),
    ]
