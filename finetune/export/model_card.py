"""Write the model card of an exported folder: what it is, its training and scores, how its predictions differ."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from finetune.export.comparison import Comparison
from finetune.export.folding import FOR_CAMERA
from finetune.models.checkpoints.metadata import require_sound
from finetune.recipe.yaml_source import yaml_text
from finetune.utils.errors import CheckpointError
from finetune.utils.paths import is_file, read_text
from finetune.utils.text import count_noun

if TYPE_CHECKING:
    from finetune.inference.predictor import Predictor
    from finetune.recipe.run_dir import RunFolder

MODEL_CARD = "README.md"
# License names as the hub spells them; a license that is not listed appears in the text alone.
HUB_LICENSES = {"Apache-2.0": "apache-2.0", "CC-BY-NC-4.0": "cc-by-nc-4.0"}


@dataclass(frozen=True, kw_only=True)
class MeasuredDifferences:
    """How much the exported folder's predictions differ from ours, as shares of the spread of ours.

    Attributes:
        comparison: with the same pixels as network input, in the unit of the model.
        pipeline_median, pipeline_99th: median and 99th percentile of the absolute difference over the image, with
            transformers' own processor.
        other_size: height and width of an image of another shape, pixels.
        other_largest: the largest difference on that image, with the same pixels as network input.
    """

    comparison: Comparison
    pipeline_median: float
    pipeline_99th: float
    other_size: tuple[int, int]
    other_largest: float


def make_model_card(
    predictor: Predictor, image_size: tuple[int, int], measured: MeasuredDifferences | None, differing: Sequence[str]
) -> str:
    """
    Args:
        predictor: the exported model.
        image_size: height and width that the folder is made for, pixels.
        measured: None if nothing is measured yet.
        differing: image sizes for which the processor chooses another network size than ours.

    Returns:
        Markdown, with the header that the hub reads.
    """
    from finetune.recipe.run_dir import RunFolder

    run = RunFolder(Path(predictor.source))
    return (
        "\n\n".join(
            [
                _make_header(predictor),
                f"# {predictor.metadata.get('name', 'Depth Anything')}",
                _describe_output(predictor),
                _explain_use(predictor),
                "## Training",
                *_describe_training(predictor, run),
                "## Score",
                *_describe_score(predictor, run),
                "## License",
                _describe_license(predictor),
                "## Differences from the model it was exported from",
                *_describe_differences(image_size, measured, differing),
            ]
        ).replace("\n\n\n", "\n\n")
        + "\n"
    )


def _make_header(predictor: Predictor) -> str:
    name = HUB_LICENSES.get(str(predictor.base.get("license")), "other")
    tags = ["depth", "metric depth" if predictor.kind == "metric" else "relative depth"]
    lines = ["---", f"license: {name}", "library_name: transformers", "pipeline_tag: depth-estimation", "tags:"]
    return "\n".join([*lines, *(f"- {tag}" for tag in tags), "---"])


def _describe_output(predictor: Predictor) -> str:
    network = predictor.network
    architecture = f"Depth Anything {network.version.upper()}, encoder {network.encoder_name}"
    if network.max_depth_m is None:
        return f"{architecture}. Predicts inverse depth of unknown scale and shift; larger is nearer."
    farthest = f"{network.max_depth_m:g} m"
    meters = f"{architecture}. Predicts meters along the optical axis, at most {farthest}; larger is farther."
    camera = predictor.metadata.get(FOR_CAMERA)
    if not isinstance(camera, Mapping):
        return meters
    return (
        f"{meters} It is made for one camera: a focal length of {camera['focal_px']:g} px at images of "
        f"{camera['width']}x{camera['height']}. For another, every depth is off by the ratio of the focal lengths."
    )


def _explain_use(predictor: Predictor) -> str:
    unit = "meters" if predictor.kind == "metric" else "inverse depth"
    return f"""```python
from transformers import pipeline

depth = pipeline("depth-estimation", model="this folder")(image)["predicted_depth"]  # (H, W), {unit}
```

The picture that the pipeline also returns, `depth`, is stretched from black to white in each image: it has no unit."""


def _describe_training(predictor: Predictor, run: RunFolder) -> list[str]:
    digest = predictor.metadata.get("recipe_sha256")
    if is_file(run.recipe):
        text, shortened = _publish_recipe(read_text(run.recipe))
        but = "; of absolute paths only the last name is kept" if shortened else ""
        said = f"The recipe as it ran (sha256 {digest}), with its data and its base{but}:"
        return [said, f"```yaml\n{text.rstrip()}\n```"]
    base = published_source(predictor.base.get("source"))
    made = f"Recipe with sha256 {digest}." if digest else "Not trained with this toolkit."
    return [f"{made} Made from {base}." if base else made]


def _publish_recipe(text: str) -> tuple[str, bool]:
    """A recipe's text without the folders of the training machine, and whether it had some."""
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError):
        return "(it cannot be read)", True
    shortened = _without_folders(content)
    if shortened == content or not isinstance(shortened, Mapping):
        return text, False
    return yaml_text(shortened), True


def _without_folders(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _without_folders(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_folders(inner) for inner in value]
    return published_source(value)


def published_source(source: object) -> object:
    """A source as it is published: an absolute path without its folders, which are of interest on one machine only."""
    if not isinstance(source, str) or not re.match(r"/|~|[A-Za-z]:[\\/]", source):
        return source
    return re.split(r"[\\/]", source.rstrip("\\/"))[-1]


def _describe_score(predictor: Predictor, run: RunFolder) -> list[str]:
    table = run.path / "evaluation.json"
    found = predictor.metadata.get("evaluation")
    if is_file(table):
        try:
            found = json.loads(read_text(table))
            require_sound({"evaluation": found}, str(table))
        except (ValueError, RecursionError, OSError, CheckpointError):
            return [f"{table.name} of the run cannot be read."]
    evaluations = found if isinstance(found, list) else [found] if isinstance(found, Mapping) else []
    return [part for each in evaluations for part in _format_score(each)] or ["Not scored."]


def _format_score(evaluation: Mapping[str, Any]) -> list[str]:
    rows = evaluation["rows"]
    metrics = list(next(iter(rows.values()), {}))
    lines = [f"| | {' | '.join(metrics)} |", f"| --- |{' --- |' * len(metrics)}"]
    lines += [
        f"| {name} | {' | '.join(_format_cell(row.get(metric)) for metric in metrics)} |" for name, row in rows.items()
    ]
    protocol = ", ".join(f"{key} {value}" for key, value in evaluation.get("protocol", {}).items())
    images = evaluation.get("images_used")
    on = f" on {count_noun(images, 'image')}" if images is not None else ""
    return [f"Protocol: {protocol}{on}.", "\n".join(lines)]


def _format_cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _describe_license(predictor: Predictor) -> str:
    base, name = published_source(predictor.base.get("source")), predictor.base.get("license")
    if not name:
        return f"That of the base ({base}), which is unknown." if base else "Unknown."
    return (f"{name}, that of the base, {base}." if base else f"{name}.") + (
        " No commercial use." if "-NC" in name else ""
    )


def _describe_differences(
    image_size: tuple[int, int], measured: MeasuredDifferences | None, differing: Sequence[str]
) -> list[str]:
    height, width = image_size
    parts = []
    if measured:
        comparison, (other_height, other_width) = measured.comparison, measured.other_size
        unit, spread = comparison.unit, comparison.spread
        parts = [
            f"On an image of {width}x{height}, given the same `pixel_values`: largest {comparison.largest:.2g} {unit}, "
            f"mean {comparison.mean:.2g} {unit}; the prediction's spread is {spread:.3g} {unit} "
            f"({comparison.largest / spread:.1e} of it). Stored as {comparison.stored_as}.",
            f"Through the pipeline, which resizes differently (bicubic): median {measured.pipeline_median:.1e}, 99th "
            f"percentile {measured.pipeline_99th:.1e} of the spread.",
            f"On an image of {other_width}x{other_height}, given the same `pixel_values`: largest "
            f"{measured.other_largest:.1e} of the spread. transformers samples the position embedding without the "
            "offset that the original adds; the stored embedding makes up for it at the first size only.",
        ]
    parts.append(
        "For these image sizes (width x height) the processor chooses another network size than in training: "
        f"{'; '.join(differing)}."
        if differing
        else "For all common image sizes the processor chooses the same network size as in training."
    )
    return parts
