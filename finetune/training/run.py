"""The loop of a run: when to step, log, evaluate, save and stop."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass, field
from typing import NoReturn

from accelerate import Accelerator

from finetune.recipe.run_dir import RunFolder
from finetune.recipe.schema import Recipe
from finetune.training.checkpointing import ResumePoints, ResumeState
from finetune.training.console import say
from finetune.training.data_loading import WaitWatch
from finetune.training.monitors import Monitors
from finetune.training.run_log import LogEntry, RunLog
from finetune.training.trainer import StepValues, Trainer
from finetune.training.validation import Best, Validator
from finetune.training.weights import WeightsWriter
from finetune.utils.signals import Interrupted, Interrupts, StopAsked


@dataclass(kw_only=True)
class Run:
    """The parts of a run, put together by ``build``, and the loop over its steps.

    Attributes:
        trainer: takes the steps.
        validator: evaluates, and keeps the best weights.
        resume_points: saves and loads.
        weights: writes ``last/``.
        log: of the main process; None in the others.
        waits: notices that steps wait for data.
        details: sentences about what it trains.
        warnings: sentences about resume points and weights that could not be used.
        unlogged: sums over the steps since the last logged one; part of every resume point.
        evaluation_due: the weights are to be evaluated before the next step; part of every resume point.
    """

    folder: RunFolder
    trainer: Trainer
    validator: Validator
    resume_points: ResumePoints
    weights: WeightsWriter
    waits: WaitWatch
    log: RunLog | None = None
    details: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unlogged: dict[str, float] = field(default_factory=dict)
    evaluation_due: bool = False

    @property
    def recipe(self) -> Recipe:
        """As it runs."""
        return self.trainer.recipe

    @property
    def accelerator(self) -> Accelerator:
        """The sum over all parts."""
        return self.trainer.accelerator

    @property
    def monitors(self) -> Monitors:
        """What is wrong with the run, in plain words."""
        return self.validator.monitors

    @property
    def interrupts(self) -> Interrupts:
        """The signals that came in this process."""
        return self.trainer.signals.interrupts

    @property
    def step(self) -> int:
        """Optimizer steps taken."""
        return self.trainer.step

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.trainer.total_steps

    @property
    def best(self) -> Best | None:
        """The best evaluation so far."""
        return self.validator.best

    def train(self) -> None:
        """
        Take the steps until the last one, then write the last weights, which every process may read from then on.

        Raises:
            Interrupted: a signal came; a resume point is written.
        """
        try:
            self._take_steps()
            self.weights.write(self.folder.last, self.step, {})
            if self.validator.best is None:
                # Resumed after its last step, and best/ is gone.
                self.validator.evaluate()
            # The main process writes the weights, and every process reads them next.
            self.accelerator.wait_for_everyone()
        except StopAsked:
            self._leave()

    def _take_steps(self) -> None:
        """
        Raises:
            StopAsked: a signal came, between two micro-batches, after a step, or while the weights were evaluated.
        """
        if self.evaluation_due:
            self._evaluate_as_due()
        while self.step < self.total_steps:
            started = time.perf_counter()
            values = self.trainer.take_step()
            self._log_step(values, time.perf_counter() - started)
            self.evaluation_due = self._is_due(self.recipe.run.evaluate_every_steps)
            if self.trainer.signals.number:
                raise StopAsked
            self._evaluate_as_due()
            if self._is_due(self.recipe.run.save_every_steps):
                self.save_checkpoint()

    def _evaluate_as_due(self) -> None:
        """The evaluation of a step, if it has one, and its row."""
        if self.evaluation_due:
            self.validator.evaluate()
            self.evaluation_due = False
        if self.log:
            # Before the resume point: a resumed run drops rows of later steps and must find this one.
            self.log.end_step(self.step)

    def _leave(self) -> NoReturn:
        """Save first, since whoever sent the signal may not wait; an evaluation that is still due is done later.

        Raises:
            Interrupted: always.
        """
        # A process that got no signal learns of it from the others.
        number = self.trainer.signals.number or self.interrupts.number or signal.SIGTERM
        self.trainer.drop_unfinished_step()
        if self.log and not self.evaluation_due:
            self.log.end_step(self.step)
        if self.step == 0:
            raise Interrupted(number, "No step was taken yet: --resume begins again.")
        if self.resume_points.saved_step != self.step:
            self.save_checkpoint()
        raise Interrupted(number, f"{self.folder.checkpoint(self.step)} is saved: go on with --resume.")

    def save_checkpoint(self) -> None:
        """Write a resume point; every process must call.

        Raises:
            ProcessError: it cannot be written; the earlier ones are as they were.
        """
        self.resume_points.save(
            ResumeState(
                step=self.step,
                unlogged=self.unlogged,
                bad_samples=self.trainer.bad_samples.seen,
                alarms=self.monitors.state(),
                recipe_sha256=self.resume_points.recipe_sha256,
                evaluation_due=self.evaluation_due,
                pending=self.log.pending if self.log and self.evaluation_due else [],
            )
        )

    def resume(self) -> list[LogEntry] | None:
        """
        Go on from the newest whole resume point, if there is one; every process must call.

        Returns:
            What was logged of its step, where the evaluation of the step is still due; else None.

        Raises:
            FinetuneError: there are resume points, but none to go on from; or the run is beyond its last step.
        """
        state, left_out = self.resume_points.load_newest()
        self.warnings += left_out
        if state is None:
            return None
        self.trainer.step = state.step
        self.trainer.bad_samples.seen = state.bad_samples
        self.unlogged = dict(state.unlogged)
        self.monitors.restore(state.alarms)
        self.evaluation_due = state.evaluation_due
        self.warnings += self.validator.find_best()
        return state.pending if state.evaluation_due else None

    def _log_step(self, values: StepValues, seconds: float) -> None:
        """Move the bar; at a logged step, write the means since the last one."""
        total = sum(term.weight * value for term, value in zip(self.trainer.terms, values.terms, strict=True))
        names = self.trainer.loss_names
        losses = {f"loss_{name}": value for name, value in zip(names, values.terms, strict=True)}
        now = {"loss": total, **losses, "grad_norm": values.grad_norm, "seconds": seconds, "steps": 1}
        self.unlogged = {name: self.unlogged.get(name, 0.0) + value for name, value in now.items()}
        self.monitors.note_step(total, values.head_gradient_norm, values.output)
        images = self.trainer.bad_samples.samples_of_a_step
        self.waits.add_step(self.trainer.waited_s, seconds)
        if self.log:
            self.log.advance(total, images / seconds)
        if self._is_due(self.recipe.run.log_every_steps):
            means = self._means_since_logged()
            if self.log:
                speed = {"images_per_second": images / means.pop("seconds")}
                self.log.log_training(self.step, {**means, **self.trainer.learning_rates, **speed})
            sentence = self.waits.note_logged_step()
            if self.log and sentence:
                say(sentence)
            self.validator.report(self.monitors.note_logged_step(self.step))

    def _means_since_logged(self) -> dict[str, float]:
        steps = self.unlogged.pop("steps")
        means = {name: value / steps for name, value in self.unlogged.items()}
        self.unlogged = {}
        return means

    def _is_due(self, every_steps: int) -> bool:
        return self.step % every_steps == 0 or self.step == self.total_steps
