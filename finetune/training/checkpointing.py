"""Resume points: what a run saves to go on from, written whole or not at all, and how it goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pickle import UnpicklingError

from accelerate import Accelerator
from accelerate.utils import gather_object
from pydantic import NonNegativeInt, TypeAdapter
from safetensors import SafetensorError

from finetune.data.reader import BadSamples
from finetune.recipe.run_dir import RunFolder
from finetune.training.console import say
from finetune.training.ema import AverageWeights
from finetune.training.monitors import MonitorState
from finetune.training.run_log import LogEntry
from finetune.utils.errors import FinetuneError, ProcessError, first_line
from finetune.utils.files import write_error_reason, write_fault
from finetune.utils.manifest import has_checksums, verify_manifest, write_manifest
from finetune.utils.resource_errors import is_of_a_worker, is_of_another_process

# What reading a damaged resume point raises, in one library or another.
_OF_DAMAGE = (
    SafetensorError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    EOFError,
    UnpicklingError,
)


@dataclass(frozen=True, kw_only=True)
class ResumeState:
    """What a resume point keeps in addition to weights, optimizer and random generators.

    Attributes:
        step: optimizer steps taken.
        unlogged: sums over the steps since the last logged one.
        bad_samples: those of all steps, where they are skipped.
        alarms: what the monitors found so far; under this name since the first version.
        recipe_sha256: of what a recipe must keep from a run to its resumption.
        evaluation_due: the weights are to be evaluated before the next step. Older versions evaluated before saving.
        pending: what was logged of a step whose evaluation is still due.
    """

    step: NonNegativeInt
    unlogged: dict[str, float]
    bad_samples: BadSamples
    alarms: MonitorState
    recipe_sha256: str
    evaluation_due: bool = False
    pending: list[LogEntry] = field(default_factory=list)


@dataclass(kw_only=True)
class ResumePoints:
    """Saves resume points into a run folder, and finds the one to go on from.

    Attributes:
        accelerator: has prepared the model and the optimizer, which it saves and loads.
        total_steps: a resume point beyond them is refused.
        recipe_sha256: as in ``ResumeState``.
        keep: so many of the newest stay on disk.
        average: of the weights; None where the run has none.
        saved_step: of the newest resume point; -1: there is none.
    """

    accelerator: Accelerator
    folder: RunFolder
    total_steps: int
    recipe_sha256: str
    keep: int
    average: AverageWeights | None = None
    saved_step: int = -1

    def save(self, state: ResumeState) -> None:
        """Write a resume point, whole or not at all; every process must call.

        Raises:
            ProcessError: it cannot be written; the earlier ones are as they were.
        """
        try:
            self._write(state)
        except (OSError, RuntimeError, SafetensorError) as error:
            # PyTorch raises a plain RuntimeError for a file that it cannot write. Subclasses of RuntimeError are about
            # memory and the like, and the errors of workers and other processes are explained elsewhere.
            elsewhere = is_of_a_worker(error) or is_of_another_process(error)
            if isinstance(error, RuntimeError) and (type(error) is not RuntimeError or elsewhere):
                raise
            if self.accelerator.is_main_process:
                self.folder.drop_unfinished()
            fix = "Free space on the disk, or fix what else is wrong with it, and go on with --resume: " + (
                "the earlier resume points are whole"
                if self.folder.newest_first()
                else "there is no earlier resume point, so that the run begins again"
            )
            reason = write_error_reason(error) or first_line(error)
            fault = write_fault(self.folder.checkpoint(state.step), reason, fix)
            raise ProcessError(str(fault)) from error

    def _write(self, state: ResumeState) -> None:
        is_main = self.accelerator.is_main_process
        if is_main:
            self.folder.require_there()
            self.folder.start_writing(state.step)
        self.accelerator.wait_for_everyone()
        writing = self.folder.writing(state.step)
        self.accelerator.save_state(str(writing))
        if self.average and is_main:
            self.average.save(writing)
        self.accelerator.wait_for_everyone()
        if is_main:
            write_manifest(writing, asdict(state))
            self.folder.sync_metrics()
            for note in self.folder.finish_writing(state.step, self.keep):
                say(note)
        self.accelerator.wait_for_everyone()
        self.saved_step = state.step

    def load_newest(self) -> tuple[ResumeState | None, Sequence[str]]:
        """
        Load the newest whole resume point into model, optimizer and generators; every process must call.

        Returns:
            What else it keeps, or None if there is no resume point; and sentences about those that are left out,
            because they are damaged or of another recipe, and about one of an older version.

        Raises:
            FinetuneError: there are some, but none to go on from; or the run is beyond its last step.
        """
        left_out: list[str] = []
        for path in self.folder.newest_first():
            loaded = self.load(path)
            # If one process cannot read it, no process may go on from it.
            faults = [fault for fault in gather_object([loaded if isinstance(loaded, str) else None]) if fault]
            if not faults:
                assert isinstance(loaded, ResumeState)
                self.saved_step = loaded.step
                if not has_checksums(path):
                    left_out.append(
                        f"{path} is of an older version, which wrote no checksums: the sizes of its files are right, "
                        "their content could not be checked. From here on the run does what this version does"
                    )
                return loaded, left_out
            left_out.append(f"{path} is left out: {faults[0]}")
        if left_out:
            raise FinetuneError("; ".join(left_out) + ". There is no other: start again with --overwrite or name=...")
        return None, ()

    def load(self, path: Path) -> ResumeState | str:
        """Load one resume point; the answer is what else it keeps, or what is wrong with it.

        Raises:
            FinetuneError: the run is beyond its last step.
        """
        try:
            state = TypeAdapter(ResumeState).validate_python(verify_manifest(path))
            # An older version made its digest of other keys; the recipe in the run folder was compared before.
            if has_checksums(path) and state.recipe_sha256 != self.recipe_sha256:
                return "it is of another recipe"
            if state.step > self.total_steps:
                raise FinetuneError(
                    f"{path}: the run is at step {state.step}, beyond run.steps {self.total_steps}. Raise run.steps."
                )
            self.accelerator.load_state(str(path))
            if self.average:
                self.average.load(path)
        except _OF_DAMAGE as error:
            closed = isinstance(error, PermissionError) or isinstance(error.__cause__, PermissionError)
            return f"it {'cannot be read' if closed else 'is damaged'} ({first_line(error)})"
        return state
