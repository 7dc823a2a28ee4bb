"""Evaluations while a run trains, and the choice of ``best/`` by them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from accelerate.utils import gather_object

from finetune.data.validation_dataset import ValidationSamples
from finetune.evaluation.evaluator import PredictFunction, Row, evaluate, predict_with_network
from finetune.evaluation.metrics import TITLES, is_better
from finetune.evaluation.protocols import Protocol
from finetune.evaluation.results import Evaluation
from finetune.models.checkpoints.load import read_checkpoint
from finetune.recipe.run_dir import RunFolder
from finetune.training.console import say, warn
from finetune.training.data_loading import choose_loading
from finetune.training.monitors import Monitors, PredictionSpread, watch_predictions
from finetune.training.run_log import RunLog
from finetune.training.trainer import Trainer
from finetune.training.weights import WeightsWriter
from finetune.utils.errors import FinetuneError, first_line
from finetune.utils.paths import path_exists

# Metrics whose name people write in another way than recipes do.


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best evaluation so far."""

    value: float
    step: int


@dataclass(kw_only=True)
class Validator:
    """
    Attributes:
        trainer: whose network, or average, is scored.
        samples: what every evaluation looks at.
        protocol: the first of the recipe.
        baseline_rows: makes the predictions that cost nothing; every evaluation must beat ``constant_median``.
        monitors: learn what the predictions look like.
        weights: writes ``best/``.
        folder: of the run.
        log: of the main process; None in the others.
        best: None before the first evaluation.
    """

    trainer: Trainer
    samples: ValidationSamples
    protocol: Protocol
    baseline_rows: Callable[[], Mapping[str, Row]]
    monitors: Monitors
    weights: WeightsWriter
    folder: RunFolder
    log: RunLog | None = None
    best: Best | None = None

    @property
    def metric(self) -> str:
        """The metric that chooses ``best/``."""
        return self.trainer.recipe.evaluation.best

    def evaluate(self) -> None:
        """
        Score the network as it is now, and keep its weights if none were better; every process must call.

        Raises:
            StopAsked: a signal came meanwhile; nothing is kept of what was scored.
        """
        trainer = self.trainer
        trainer.network.eval()
        predict = predict_with_network(trainer.result)
        evaluation = self._score(predict)
        value = evaluation.rows["finetuned"][self.metric]
        is_best = is_better(self.metric, value, self.best.value if self.best else None)
        if self.log:
            say(self._line(value, is_best=is_best))
            self.log.log_evaluation(trainer.step, evaluation, predict)
        trainer.network.train()
        if is_best:
            self.best = Best(value=value, step=trainer.step)
            self.weights.write(self.folder.best, trainer.step, evaluation.to_mapping())

    def _line(self, value: float, *, is_best: bool) -> str:
        """One evaluation as the console shows it: "step 150  AbsRel 0.115 (base 0.140)  best"."""
        free = {"base": self.monitors.base_score, "constant": self.monitors.constant_score}
        name, score = next(((name, score) for name, score in free.items() if score is not None), ("", None))
        compared = "" if score is None else f" ({name} {score:.3f})"
        best = "  best" if is_best else ""
        return f"step {self.trainer.step}  {TITLES[self.metric]} {value:.3f}{compared}{best}"

    def _score(self, predict: PredictFunction) -> Evaluation:
        """The row of the network as it is now; the monitors learn what its predictions look like."""
        trainer = self.trainer
        seen: list[PredictionSpread] = []
        rows: dict[str, Row] = {"finetuned": watch_predictions(predict, trainer.network, seen)}
        # Once a run, since they do not change.
        free = dict(self.baseline_rows()) if self.monitors.constant_score is None else {}
        rows |= free
        (evaluation,) = evaluate(
            trainer.accelerator,
            self.samples,
            rows,
            [self.protocol],
            workers=choose_loading(trainer.recipe.data, trainer.accelerator.device).workers,
            batch_size=trainer.recipe.run.batch_size,
            stop=lambda: trainer.signals.interrupts.number > 0,
        )
        if free:
            self.monitors.constant_score = evaluation.rows["constant_median"][self.metric]
            if "base_fitted_scale" in free:
                self.monitors.base_score = evaluation.rows["base_fitted_scale"][self.metric]
            if self.log:
                self.log.log_baselines({row: evaluation.rows[row] for row in free})
        if trainer.accelerator.num_processes > 1:
            seen = gather_object(seen)
        value = evaluation.rows["finetuned"][self.metric]
        self.report(self.monitors.note_evaluation(trainer.step, trainer.network, value, seen))
        return evaluation.only("finetuned")

    def find_best(self) -> list[str]:
        """
        Take ``best`` from ``best/``, which may be of a later step than the resume point.

        Returns:
            A sentence about weights that are damaged.
        """
        self.best = None
        if not path_exists(self.folder.best):
            return []
        try:
            metadata = read_checkpoint(str(self.folder.best)).metadata
            (row,) = metadata["evaluation"]["rows"].values()
            self.best = Best(value=float(row[self.metric]), step=int(metadata["step"]))
        except (FinetuneError, LookupError, TypeError, ValueError, AttributeError) as error:
            return [f"{self.folder.best} is damaged ({first_line(error)}): the next evaluation writes it again"]
        return []

    def report(self, sentences: Sequence[str]) -> None:
        """Tell what the monitors found, if anything."""
        if self.log and sentences:
            for sentence in sentences:
                warn(sentence)
            self.log.log_text("warnings", "\n".join(sentences), self.trainer.step)
