"""What each exporter of the registry must hold; a new one is found here by itself."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from finetune.export.base import Exporter
from finetune.export.export import Comparison, export_model
from finetune.inference.predictor import Predictor, load_model
from finetune.utils import registry
from tests.small_models import write_adapted, write_model

# That of openvino writes an ONNX file first, and runs three runtimes.
EXPORTERS = [
    pytest.param(name, marks=pytest.mark.slow) if name == "openvino" else name for name in sorted(registry.EXPORTERS)
]


@pytest.fixture(scope="module", params=EXPORTERS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def exporter(name: str) -> Exporter:
    return registry.find(registry.EXPORTERS, name)()


def source(name: str, folder: Path, max_depth_m: float | None) -> Path:
    """Weights that the format can hold: adapters come from a run that has some."""
    return (
        write_adapted(folder, max_depth_m) if name == "adapter" else write_model(folder / "m.safetensors", max_depth_m)
    )


def image() -> np.ndarray:
    y, x = np.mgrid[0:40, 0:50]
    return np.stack([x * 5, y * 6, x + y], axis=-1).astype(np.uint8)


def test_says_its_suffix_and_limit(exporter: Exporter) -> None:
    assert exporter.suffix == "" or exporter.suffix.startswith(".")
    assert 0 < exporter.limit <= 1e-3
    assert type(exporter).__doc__


class Exported(NamedTuple):
    """A model, and what export made of it; ``left``: all that was next to the output before targets were moved."""

    exporter: Exporter
    model: Predictor
    output: Path
    comparison: Comparison
    left: list[str]


@pytest.fixture(scope="module", params=[10.0, None], ids=["metric", "relative"])
def max_depth_m(request: pytest.FixtureRequest) -> float | None:
    return request.param


@pytest.fixture(scope="module")
def exported(name: str, max_depth_m: float | None, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("exported")
    kind = registry.find(registry.EXPORTERS, name)
    exporter, write = kind(), kind.write
    left: list[str] = []

    def watched(self: Exporter, predictor: Predictor, output: Path) -> None:
        write(self, predictor, output)
        left.extend(path.name for path in output.parent.iterdir())

    model = load_model(source(name, folder, max_depth_m))
    output = folder / "new" / f"model{exporter.suffix}"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(kind, "write", watched)
        comparison = export_model(model, name, output, image())
    return Exported(exporter, model, output, comparison, left)


def test_writes_its_targets_and_nothing_else(exported: Exported) -> None:
    targets = exported.exporter.targets(exported.output)
    assert targets[-1] == exported.output
    assert sorted(target.name for target in targets) == sorted(exported.left)
    assert sorted(targets) == sorted(exported.output.parent.iterdir())


def test_what_comes_out_is_what_went_in(exported: Exported, tmp_path: Path, max_depth_m: float | None) -> None:
    exporter, model, output, comparison, _ = exported
    assert isinstance(comparison, Comparison)
    assert comparison.acceptable
    own, other = model.predict(image()), exporter.read(output, "cpu")(image())
    assert (other.shape, other.dtype) == (own.shape, np.float32)
    assert np.abs(other - own).max() <= exporter.limit * np.ptp(own)
    # Other weights would have been told apart.
    stranger = load_model(write_model(tmp_path / "s.safetensors", max_depth_m, seed=1)).predict(image())
    assert np.abs(other - stranger).max() > exporter.limit * np.ptp(own)
