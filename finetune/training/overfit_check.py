"""Whether a run that repeats a few batches overfits them: if it cannot, data or loss forbid it at any rate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from accelerate.utils import gather_object

from finetune.evaluation.evaluator import predict_one, predict_with_network
from finetune.recipe.cross_checks import PROTOCOL_OF_HEAD
from finetune.training.build import make_batches
from finetune.training.run import Run
from finetune.training.startup import Startup
from finetune.utils.errors import ResultError
from finetune.utils.text import count_noun

MAX_ABS_REL = 0.05  # AbsRel on overfitted frames: ten times a sensor's noise, a third of a usable model's


def require_overfit(run: Run, startup: Startup) -> str:
    """
    Score the trained network on its repeated batches, as it saw them; every process must call.

    Args:
        run: after its last step, with ``run.overfit_batches``.

    Returns:
        A sentence with the error that was reached.

    Raises:
        ResultError: the error is not small; names the frames with the largest.
    """
    scored = list(_errors(run, startup))
    if run.accelerator.num_processes > 1:
        scored = gather_object(scored)
    steps, batches = run.total_steps, run.recipe.run.overfit_batches
    if not scored:
        raise ResultError(
            f"run.overfit_batches {batches}: none of the repeated frames has a pixel that is scored. Check "
            "evaluation.min_depth_m and evaluation.max_depth_m, or repeat more batches."
        )
    mean = sum(error for error, _ in scored) / len(scored)
    reached = (
        f"run.overfit_batches {batches}: AbsRel {mean:.4f} on the {count_noun(len(scored), 'repeated sample')} after "
        f"{count_noun(steps, 'step')}"
    )
    if mean <= MAX_ABS_REL:
        return f"{reached}, at most {MAX_ABS_REL}: data and loss can be learned; held-out frames are another matter"
    worst = dict.fromkeys(f"{source} {error:.3f}" for error, source in sorted(scored, reverse=True))
    raise ResultError(
        f"{reached}, more than {MAX_ABS_REL}; largest on {', '.join(list(worst)[:3])}. If the loss still falls in "
        "metrics.csv, give it more run.steps or higher learning rates; if not, look at the loss, at "
        "model.max_depth_m, and whether these images and their depth belong together."
    )


def _errors(run: Run, startup: Startup) -> Iterator[tuple[float, str]]:
    """AbsRel and source of this process's repeated samples."""
    recipe = run.recipe
    assert recipe.run.overfit_batches is not None
    network = run.trainer.network
    batches = make_batches(startup, 0)
    network.eval()
    # Samples as the network saw them, so labels are canonical where its output is.
    predict = predict_with_network(network, assume_training_camera=True)
    # Not the recipe's protocol, whose crops are of whole frames: these are windows at the size the network sees.
    protocol = replace(run.validator.protocol, name=PROTOCOL_OF_HEAD[recipe.model.head])
    for batch in islice(batches, recipe.run.overfit_batches * recipe.run.accumulate):
        samples = zip(
            run.trainer.normalize(batch.image), batch.depth_m[:, 0].numpy(), batch.valid[:, 0].numpy(), strict=True
        )
        for (image, depth_m, valid), source in zip(samples, batch.sources, strict=True):
            usable = protocol.usable(depth_m, valid)
            if usable.any():
                height, width = depth_m.shape
                pred_m = protocol.depth_m(predict_one(predict, image[None], (height, width)), depth_m, usable)
                yield protocol.score(pred_m, depth_m, usable)["abs_rel"], source
    network.train()
