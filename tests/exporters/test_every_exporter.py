"""What each exporter of the registry must hold; a new one is found here by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from finetune import registry
from finetune.exporters.exporter import Exporter
from finetune.exporting import Comparison, export_model
from finetune.predictor import load_model
from tests.small_models import write_adapted, write_model

EXPORTERS = sorted(registry.EXPORTERS)


@pytest.fixture(params=EXPORTERS)
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


@pytest.mark.parametrize("max_depth_m", [10.0, None])
def test_writes_its_targets_and_nothing_else(
    name: str, exporter: Exporter, tmp_path: Path, max_depth_m: float | None
) -> None:
    model = load_model(source(name, tmp_path, max_depth_m))
    output = tmp_path / "aside" / f"model{exporter.suffix}"
    output.parent.mkdir()
    exporter.write(model, output)
    targets = exporter.targets(output)
    assert targets[-1] == output
    assert sorted(targets) == sorted(output.parent.iterdir())


@pytest.mark.parametrize("max_depth_m", [10.0, None])
def test_what_comes_out_is_what_went_in(name: str, tmp_path: Path, max_depth_m: float | None) -> None:
    exporter = registry.find(registry.EXPORTERS, name)()
    model = load_model(source(name, tmp_path, max_depth_m))
    output = tmp_path / "new" / f"model{exporter.suffix}"
    comparison = export_model(model, name, output, image())
    assert isinstance(comparison, Comparison)
    assert comparison.acceptable
    own, other = model.predict(image()), exporter.read(output, "cpu")(image())
    assert (other.shape, other.dtype) == (own.shape, np.float32)
    assert np.abs(other - own).max() <= exporter.limit * np.ptp(own)
    # Other weights would have been told apart.
    stranger = load_model(write_model(tmp_path / "s.safetensors", max_depth_m, seed=1)).predict(image())
    assert np.abs(other - stranger).max() > exporter.limit * np.ptp(own)
