"""What a run logs while it goes: the bar, ``metrics.csv``, and TensorBoard with a panel for each picked frame."""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from finetune.data.validation_dataset import ValidationSamples
from finetune.evaluation.evaluator import PredictFunction, predict_one
from finetune.evaluation.metrics import METRICS
from finetune.evaluation.results import Evaluation
from finetune.recipe.run_dir import METRICS_FILE, RunFolder
from finetune.reporting.images import make_panel
from finetune.training.console import say
from finetune.training.trackers import Trackers
from finetune.utils.files import explain_write_errors, write_file
from finetune.utils.indices import evenly_spread
from finetune.utils.paths import make_folder, path_exists, require_regular

# TensorBoard would import TensorFlow where it is installed; nothing here needs it.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
PANELS = 3


class LogEntry(NamedTuple):
    """What was logged of a step: a number of a group, which is a column too, or a text.

    Attributes:
        name: as TensorBoard shows it.
        value: the number or the text.
        column: of ``metrics.csv``; empty for a text.
    """

    name: str
    value: float | str
    column: str = ""


class RunLog:
    """The main process's log of a run."""

    def __init__(
        self,
        folder: RunFolder,
        columns: Sequence[str],
        *,
        step: int,
        total_steps: int,
        validation: ValidationSamples,
        max_depth_m: float,
        trackers: Trackers,
        tensorboard: bool = True,
        pending: Sequence[LogEntry] | None = None,
    ) -> None:
        """
        Args:
            folder: of the run.
            columns: of ``metrics.csv``, besides the step.
            step: the run goes on from here; what was logged about later steps is dropped.
            total_steps: for the bar's time left.
            validation: a few evenly picked frames of it become panels.
            max_depth_m: end of the panels' colors.
            trackers: get the same as TensorBoard, once a step.
            tensorboard: whether to write for it.
            pending: what was logged of ``step``, if its evaluation is still to come; else None.
        """
        # A run that starts, also one that was killed before its first resume point, evaluates step 0 itself.
        whole = step - (pending is not None)
        self._metrics = MetricsLog(folder, columns, from_step=whole if step else -1)
        self._folder = folder
        self._writer = _open_writer(folder.tensorboard, purge_step=whole + 1 if step else 0) if tensorboard else None
        self._trackers = trackers
        self._panels: dict[str, NDArray[np.uint8]] = {}
        # Without a terminal, which can overwrite a line, there is a line for each logged step instead.
        # It appears with the first step, below the lines that say what runs.
        self._bar: tqdm | None = None
        self._begun = step, time.monotonic()
        self._validation = validation
        self._total_steps = total_steps
        self._max_depth_m = max_depth_m
        self._entries: list[LogEntry] = []
        for said in pending or ():
            self._note(step, said)

    @property
    def pending(self) -> list[LogEntry]:
        """What was logged of the step that is not ended yet."""
        return list(self._entries)

    def log_text(self, name: str, text: str, step: int) -> None:
        """A text for TensorBoard, as it is; a resumption from before ``step`` drops it."""
        self._note(step, LogEntry(name, text))

    def advance(self, loss: float, images_per_second: float) -> None:
        """Move the bar by one step."""
        if self._bar is None:
            first, _ = self._begun
            self._begun = first, time.monotonic()
            self._bar = tqdm(total=self._total_steps, initial=first, unit="step", dynamic_ncols=True, disable=None)
        self._bar.update()
        self._bar.set_postfix_str(f"loss {loss:.4f}, {images_per_second:.1f} images/s", refresh=False)

    def log_training(self, step: int, values: Mapping[str, float]) -> None:
        """Log a step of training."""
        self._record("train", step, values)
        if self._bar is None or self._bar.disable:
            first, began_s = self._begun
            left_s = (time.monotonic() - began_s) / max(step - first, 1) * (self._total_steps - step)
            say(
                f"step {step} of {self._total_steps}: loss {values['loss']:.4f}, "
                f"{values['images_per_second']:.1f} images/s, {timedelta(seconds=round(left_s))} left"
            )

    def log_evaluation(self, step: int, evaluation: Evaluation, predict: PredictFunction) -> None:
        """The metrics of the network as it is now, and its panels."""
        self._record("validation", step, evaluation.rows["finetuned"], prefix="val_")
        for number in evenly_spread(len(self._validation), PANELS):
            shown = self._validation[number]
            sample = shown.sample
            usable = evaluation.protocol.usable(sample.depth_m, sample.valid, sample.source)
            if evaluation.protocol.aligns and not usable.any():
                continue  # there is nothing to align the prediction to
            height, width = sample.depth_m.shape
            prediction = predict_one(predict, shown.image, (height, width), shown.focal_px)
            pred_m = evaluation.protocol.depth_m(prediction, sample.depth_m, usable)
            measured = sample.valid & np.isfinite(sample.depth_m)  # sky has no error in meters
            target_m = np.where(measured, sample.depth_m, np.float32(0.0))
            picture = make_panel(sample.full_image(), target_m, measured, pred_m, self._max_depth_m)
            self._panels[f"validation/{number}"] = picture
            if self._writer:
                self._writer.add_image(f"validation/{number}", picture, step, dataformats="HWC")
        if self._writer:
            self._writer.flush()

    def log_baselines(self, rows: Mapping[str, Mapping[str, float]]) -> None:
        """
        Args:
            rows: row -> metric -> value of what costs nothing. In TensorBoard's charts of validation each row becomes a
                level line, as a run of its own with the row's name.
        """
        named = {f"baselines/{row}/{metric}": value for row, scores in rows.items() for metric, value in scores.items()}
        self._trackers.log_row(0, named, {})
        for row, scores in rows.items() if self._writer else ():
            folder = self._folder.tensorboard / row
            # A launch that was killed before its first resume point may have left one.
            shutil.rmtree(folder, ignore_errors=True)
            with _open_writer(folder) as writer:
                for metric, value in scores.items():
                    for step in (0, self._total_steps):
                        writer.add_scalar(f"validation/{metric}", value, step)

    def log_tables(self, evaluations: Sequence[Evaluation], step: int) -> None:
        """The tables at the end of a run; TensorBoard has no tables, and gets them as a text."""
        rows: list[list[str | float]] = [
            [evaluation.protocol.name, name, *(scores[metric] for metric in METRICS)]
            for evaluation in evaluations
            for name, scores in evaluation.rows.items()
        ]
        self._trackers.log_table("evaluation_table", ["protocol", "row", *METRICS], rows, step)

    def end_step(self, step: int) -> None:
        """Write the step's row, if it has one."""
        row = {said.column: said.value for said in self._entries if said.column}
        if row:
            self._metrics.write(step, row)
            numbers = {said.name: said.value for said in self._entries if isinstance(said.value, float | int)}
            self._trackers.log_row(step, numbers, self._panels)
        self._entries.clear()
        self._panels.clear()

    def close(self) -> None:
        """Finish the bar, the event file and the trackers."""
        if self._bar is not None:
            self._bar.close()
        # If the folder is gone, there is nothing to finish, and an error has said so.
        with suppress(OSError):
            if self._writer:
                self._writer.close()
        self._trackers.close()

    def _require_folder(self) -> None:
        """TensorBoard's writer opens its file anew each time, so a deleted folder would come back without a word."""
        self._folder.require_there()
        if self._writer:
            self._folder.tensorboard.mkdir(exist_ok=True)

    def _record(self, group: str, step: int, values: Mapping[str, float], prefix: str = "") -> None:
        for name, value in values.items():
            self._note(step, LogEntry(f"{group}/{name}", value, f"{prefix}{name}"))

    def _note(self, step: int, said: LogEntry) -> None:
        self._require_folder()
        if isinstance(said.value, str):
            self._trackers.log_text(said.name, said.value, step)
        if self._writer and isinstance(said.value, str):
            self._writer.add_text(said.name, f"```\n{said.value}\n```", step)
        elif self._writer:
            self._writer.add_scalar(said.name, said.value, step)
        self._entries.append(said)


def _open_writer(folder: Path, purge_step: int | None = None) -> SummaryWriter:
    """
    Raises:
        FinetuneError: nothing can be written there. TensorBoard's writer has a thread, which would print a traceback.
    """
    fix = "Make it a folder that this user may write to, or start another run with name=..."
    with explain_write_errors(folder, fix):
        make_folder(folder)
        tempfile.TemporaryFile(dir=folder).close()
    return SummaryWriter(str(folder), purge_step=purge_step)


class MetricsLog:
    """``metrics.csv``: one row a logged step."""

    def __init__(self, folder: RunFolder, columns: Sequence[str], *, from_step: int) -> None:
        """
        Args:
            folder: of the run.
            columns: besides ``step``.
            from_step: rows of later steps are dropped: they are about to be written again.
        """
        self._folder = folder
        self._path = folder.path / METRICS_FILE
        self._columns = ["step", *columns]
        text = io.StringIO(newline="")
        # Columns that somebody added are left out, and a missing value stays empty.
        writer = csv.DictWriter(text, self._columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(row for row in self._rows() if int(row["step"]) <= from_step)
        write_file(self._path, text.getvalue())

    def _rows(self) -> list[dict[str, str]]:
        """The whole rows of the file as it is."""
        if not path_exists(self._path):
            return []
        try:
            require_regular(self._path)
            with self._path.open(newline="", encoding="utf-8", errors="replace") as file:
                # A row cut off by a kill lacks its last columns; it is of a step that will be written again.
                rows = [row for row in csv.DictReader(file) if None not in row.values()]
        except csv.Error:  # what follows quotation marks that are never closed is too long for it
            return []
        # Up to as many digits as a step may have.
        return [row for row in rows if re.fullmatch("[0-9]{1,18}", row.get("step", ""))]

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """
        Append a row; columns that ``values`` lacks stay empty.

        Raises:
            ProcessError: the run folder is gone.
        """
        self._folder.require_there()
        with self._path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns).writerow({"step": step, **values})
