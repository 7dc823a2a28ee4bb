"""Checks of several keys of a recipe together: keys that contradict each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, TypedDict

from finetune.evaluation.protocol_settings import protocol_settings
from finetune.recipe.validate import Contradiction
from finetune.utils.errors import RecipeError
from finetune.utils.kinds import Kind

if TYPE_CHECKING:
    from finetune.recipe.schema import DataOptions, EvaluationOptions, LossTerm, ModelOptions, OptimOptions, RunOptions


class Sections(TypedDict, total=False):
    """The sections of a recipe, by name. In a recipe with faults, those that cannot be built are missing."""

    model: ModelOptions
    data: DataOptions
    loss: tuple[LossTerm, ...]
    optim: OptimOptions
    run: RunOptions
    evaluation: EvaluationOptions


def require_warmup_within_run(sections: Sections) -> None:
    """
    Raises:
        RecipeError: the run ends before the learning rate has reached its peak.
    """
    optim, run = sections.get("optim"), sections.get("run")
    if optim is not None and run is not None and run.steps and (optim.warmup_steps or 0) >= run.steps:
        raise Contradiction(
            "optim.warmup_steps",
            optim.warmup_steps,
            f"fewer warm-up steps, such as {run.steps // 10}, or null",
            other="run.steps",
            other_value=run.steps,
        )


def require_range_within_model(sections: Sections) -> None:
    """
    Raises:
        RecipeError: scoring begins farther away than the model can predict.
    """
    model, evaluation = sections.get("model"), sections.get("evaluation")
    if model is None or evaluation is None or model.max_depth_m is None:
        return
    if evaluation.min_depth_m >= model.max_depth_m:
        raise Contradiction(
            "evaluation.min_depth_m",
            evaluation.min_depth_m,
            "less than the max depth of the model",
            other="model.max_depth_m",
            other_value=model.max_depth_m,
        )


def require_entries_within_model(sections: Sections) -> None:
    """
    Raises:
        RecipeError: an entry begins farther away than the model can predict, so none of its depth would be learned.
    """
    model, data = sections.get("model"), sections.get("data")
    if model is None or data is None or model.max_depth_m is None:
        return
    for i, entry in enumerate(data.train):
        least_m = entry.source.min_depth_m
        if least_m >= model.max_depth_m and entry.out_of_range == "ignore":
            raise Contradiction(
                f"data.train.{i}.min_depth_m",
                least_m,
                "less than the max depth of the model, which all entries share",
                other="model.max_depth_m",
                other_value=model.max_depth_m,
            )


def require_one_scored_range(sections: Sections) -> None:
    """
    Raises:
        RecipeError: a range is given, but every protocol has a range of its own.
    """
    evaluation = sections.get("evaluation")
    if evaluation is None or evaluation.protocols is None or evaluation.max_depth_m is None:
        return
    ends_m = [protocol_settings(name).max_depth_m for name in evaluation.protocols]
    if None not in ends_m and evaluation.max_depth_m not in ends_m:
        name = f"{evaluation.protocols[0]}+max_depth_m={evaluation.max_depth_m:g}"
        raise Contradiction(
            "evaluation.max_depth_m",
            evaluation.max_depth_m,
            f"null, since each protocol has its own range; to change it write {name}",
            other="evaluation.protocols",
            other_value=list(evaluation.protocols),
        )


def require_scored_range(sections: Sections) -> None:
    """
    Raises:
        RecipeError: nothing says up to which depth to score.
    """
    model, evaluation = sections.get("model"), sections.get("evaluation")
    if model is None or evaluation is None or model.head == "metric":  # which has a max depth
        return
    if model.max_depth_m is None and evaluation.max_depth_m is None:
        raise Contradiction(
            "evaluation.max_depth_m",
            None,
            "meters for one of them, such as evaluation.max_depth_m: 10.0, up to which depth is scored",
            other="model.max_depth_m",
            other_value=None,
        )


def require_entry_to_choose_on(sections: Sections) -> None:
    """
    Raises:
        RecipeError: the entry that chooses best/ does not exist, or no other entry is left to score.
    """
    data, evaluation = sections.get("data"), sections.get("evaluation")
    if data is None or evaluation is None or evaluation.choose_on is None:
        return
    count = len(data.val)
    if int(evaluation.choose_on.rpartition(".")[2]) >= count or count == 1:
        right = (
            "a second entry of data.val, so that one chooses and one is scored"
            if count == 1
            else f"one of data.val.0 to data.val.{count - 1}"
        )
        raise RecipeError("evaluation.choose_on", evaluation.choose_on, right)


def require_protocols_of_head(sections: Sections) -> None:
    """
    Raises:
        RecipeError: inverse depth would be scored as meters, or meters after a fit that hides their error.
    """
    model, evaluation = sections.get("model"), sections.get("evaluation")
    if model is None or evaluation is None or evaluation.protocols is None:
        return
    found = [protocol_settings(name) for name in evaluation.protocols]
    if model.head == "metric":
        wrong = found[0].align != "none"
        right = "a first protocol, by which best/ is chosen, that does not align, such as [plain, ...]"
    elif model.head == "relative":
        wrong = any(protocol.align != "scale_shift_inverse" for protocol in found)
        right = "protocols that align inverse depth, such as [plain+align=scale_shift_inverse]"
    else:
        wrong = any(protocol.align == "none" for protocol in found)
        right = "protocols that align, such as [plain+align=scale_shift]"
    if wrong:
        raise Contradiction(
            "evaluation.protocols", list(evaluation.protocols), right, other="model.head", other_value=model.head
        )


def require_losses_of_head(sections: Sections) -> None:
    """
    Raises:
        RecipeError: a loss is for another kind of prediction, such as inverse depth instead of meters.
    """
    model = sections.get("model")
    if model is None:
        return
    # Losses that know no scale and shift serve inverse depth and relative depth alike.
    head = "metric" if model.head == "metric" else "relative"
    for place, term in _losses(sections):
        if term.loss.head not in (None, head):
            # Gradient matching serves all heads.
            key, found = ("of", term.loss.of) if hasattr(term.loss, "of") else ("kind", term.kind)
            right = _LOSSES_OF_HEAD[model.head][key]
            raise Contradiction(f"{place}.{key}", found, right, other="model.head", other_value=model.head)


def require_encoder_of_features(sections: Sections) -> None:
    """
    Raises:
        RecipeError: features are compared, but the run starts from no encoder, or does not change it.
    """
    model, run = sections.get("model"), sections.get("run")
    for place, term in _losses(sections):
        if term.kind != "feature":
            continue
        if model is not None and model.checkpoint is None:
            other, value, why = "model.checkpoint", None, "which has no encoder to stay near to"
        elif model is not None and model.train == "decoder":
            other, value, why = "model.train", "decoder", "which does not change the encoder"
        elif run is not None and run.compile:
            other, value, why = "run.compile", "true", "which hides the features"
        else:
            continue
        raise Contradiction(
            f"{place}.kind",
            term.kind,
            f"no loss feature with it, {why}; remove one of them",
            other=other,
            other_value=value,
        )


def require_losses_of_training(sections: Sections) -> None:
    """
    Raises:
        RecipeError: an entry that is scored, and not trained on, has losses.
    """
    data, evaluation = sections.get("data"), sections.get("evaluation")
    scored = {
        "data.val": data.val if data is not None else (),
        "evaluation.retention.entries": evaluation.retention.entries if evaluation is not None else (),
    }
    for place, entries in scored.items():
        for i, entry in enumerate(entries):
            if entry.loss is not None:
                kinds = [term.kind for term in entry.loss]
                nothing = f"nothing, since entries of {place} are scored and not trained on; leave it out"
                raise RecipeError(f"{place}.{i}.loss", kinds, nothing)


def _losses(sections: Sections) -> Iterator[tuple[str, LossTerm]]:
    """The dotted key of each loss, and the loss: those of the recipe, then those of entries."""
    for i, term in enumerate(sections.get("loss", ())):
        yield f"loss.{i}", term
    data = sections.get("data")
    for number, entry in enumerate(data.train if data is not None else ()):
        for i, term in enumerate(entry.loss or ()):
            yield f"data.train.{number}.loss.{i}", term


def require_labels_of_head(sections: Sections) -> None:
    """
    Raises:
        RecipeError: inverse depth without a unit would teach, or score, meters or relative depth; or nothing says what
            depth out of range becomes.
    """
    model, data = sections.get("model"), sections.get("data")
    if model is not None and data is not None and model.head == "relative_depth" and model.max_depth_m is None:
        for i, entry in enumerate(data.train):
            if entry.out_of_range == "ceiling":
                at = "a number of meters: the depth that what is out of range becomes"
                raise Contradiction(
                    "model.max_depth_m", None, at, other=f"data.train.{i}.out_of_range", other_value="ceiling"
                )
    if model is None or data is None or model.head == "relative":
        return
    for part, entries in (("train", data.train), ("val", data.val)):
        for i, entry in enumerate(entries):
            if entry.source.depth_is != "affine_inverse":
                continue
            if entry.source.has_option("depth_is"):
                raise Contradiction(
                    f"data.{part}.{i}.depth_is",
                    "affine_inverse",
                    _LABELS_OF_HEAD[model.head],
                    other="model.head",
                    other_value=model.head,
                )
            raise Contradiction(
                f"data.{part}.{i}.root",
                entry.source.root,
                "labels in meters, which finetune label --anchor makes: these have no unit, which teaches no meters",
                other="model.head",
                other_value=model.head,
            )


def require_head_of_camera(sections: Sections) -> None:
    """
    Raises:
        RecipeError: depth or inverse depth of unknown scale would be scaled to a canonical camera.
    """
    model, data = sections.get("model"), sections.get("data")
    if model is not None and data is not None and model.head != "metric" and data.camera.mode == "canonical":
        raise Contradiction(
            "data.camera.mode",
            "canonical",
            "none, since what is of unknown scale is the same for every lens",
            other="model.head",
            other_value=model.head,
        )


def require_base_of_retention(sections: Sections) -> None:
    """
    Raises:
        RecipeError: there is no base of which anything could be kept.
    """
    model, evaluation = sections.get("model"), sections.get("evaluation")
    if model is not None and evaluation is not None and evaluation.retention.is_on and model.checkpoint is None:
        raise Contradiction(
            "evaluation.retention",
            None,
            "null, since random weights have nothing to forget",
            other="model.checkpoint",
            other_value=None,
        )


PROTOCOL_OF_HEAD: Mapping[Kind, str] = {
    "metric": "plain",
    "relative": "plain+align=scale_shift_inverse",
    "relative_depth": "plain+align=scale_shift",
}
_LABELS_OF_HEAD: Mapping[Kind, str] = {
    "metric": "labels in meters, or inverse with inverse_per_unit: numbers without a unit teach no meters",
    "relative_depth": "labels in meters, or inverse with inverse_per_unit: a shift of inverse depth is none of depth",
}
_LOSSES_OF_HEAD: Mapping[Kind, Mapping[str, str]] = {
    "metric": {"kind": "a loss of depth in meters, such as silog", "of": "log"},
    "relative": {"kind": "a loss of inverse depth, such as ssi", "of": "aligned"},
    "relative_depth": {"kind": "a loss without scale and shift, such as ssi", "of": "aligned"},
}
CROSS_CHECKS: tuple[Callable[[Sections], None], ...] = (
    require_warmup_within_run,
    require_range_within_model,
    require_entries_within_model,
    require_one_scored_range,
    require_scored_range,
    require_protocols_of_head,
    require_entry_to_choose_on,
    require_losses_of_head,
    require_encoder_of_features,
    require_losses_of_training,
    require_labels_of_head,
    require_head_of_camera,
    require_base_of_retention,
)
