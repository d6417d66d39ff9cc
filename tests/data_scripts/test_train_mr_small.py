"""The data of `mr-small`: which slices, of which planes, and what is kept out."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from ctflow.flows.training_settings import TrainingSettings
from data_scripts.train_mr_small import MR_SMALL, VOLUMES, collect


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every volume as blocks of 10, 12 and 14 voxels with an empty first slice."""
    for name in ("PHANTOMS", "PROCESSES"):
        monkeypatch.setattr(f"data_scripts.train_mr_small.{name}", 1)
    monkeypatch.setattr("data_scripts.bundled_prior.VALIDATION_PHANTOMS", 1)
    random = np.random.default_rng(0)
    with h5py.File(tmp_path / "mr_slices.h5", "w") as file:
        for name in (*VOLUMES, "seg3d_t1"):
            volume = random.integers(50, 200, (10, 12, 14)).astype(np.int16)
            volume[0] = 0
            file[name] = volume
    return tmp_path


def test_slices_of_all_planes_without_empty_ones(data: Path) -> None:
    found = collect(data)
    assert found.sets["head_t2_axial"].shape == (9, 12, 14)
    assert found.sets["head_t2_coronal"].shape == (12, 10, 14)
    assert found.sets["head_t2_sagittal"].shape == (14, 10, 12)
    # Its voxels are not cubes.
    assert "studyforrest_t1_coronal" not in found.sets
    with h5py.File(data / "mr_slices.h5") as file:
        volume = file["head_t2"][:]
    axial = found.sets["head_t2_axial"]
    assert np.allclose(axial / axial.max(), volume[1:] / volume.max(), atol=1e-6)


def test_the_evaluation_subject_is_validated_on_only(data: Path) -> None:
    found = collect(data)
    assert set(MR_SMALL.weights) == set(found.sets) - {"validation", "validation_phantoms"}
    assert set(MR_SMALL.weights) == set(found.about)
    assert not any("seg3d" in name for name in MR_SMALL.weights)
    assert found.sets["validation"].shape == (9, 12, 14)
    assert sum(MR_SMALL.weights.values()) == pytest.approx(1)


def test_the_settings_are_those_of_a_complex_training(data: Path) -> None:
    settings = TrainingSettings(**MR_SMALL.training(data / "images.h5", "cpu"))
    assert settings.phase is not None
    assert settings.initial == "ct-small"
    assert {entry.unit for entry in settings.images} == {"arbitrary"}
