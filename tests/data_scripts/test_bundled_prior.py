"""How a bundled prior is trained: collected once, resumed, described."""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from ctflow.flows.store import load_prior
from data_scripts.bundled_prior import BundledPrior, ImageCollection, phantoms, write_images


@pytest.fixture
def collected() -> list[Path]:
    """Folders that images were collected from."""
    return []


@pytest.fixture
def tiny(collected: list[Path]) -> BundledPrior:
    """Three steps on random squares."""

    def collect(data: Path) -> ImageCollection:
        collected.append(data)
        images = np.zeros((3, 20, 20), np.float32)
        images[:, 5:12, 5:12] = 0.02
        return ImageCollection(
            {"squares": images, "held_out": images[:1]}, {"squares": "of a kind"}, {"remark": "no more"}
        )

    return BundledPrior(
        name="tiny",
        files="nothing",
        collect=collect,
        unit="1/mm",
        weights={"squares": 1.0},
        validation=("held_out",),
        settings={
            "network": {"widths": [8, 16], "groups": 4},
            "steps": 3,
            "crops": [16],
            "batch": 2,
            "log_every": 1,
            "checkpoint_every": 1,
        },
        card="# tiny\n\n{sets}\n\n{steps} steps, {losses}, {remark}\n",
    )


def test_a_run_leaves_a_prior_with_its_card_and_resumes(
    tiny: BundledPrior, collected: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "run"
    arguments = ["script", "--data", str(tmp_path), "--output", str(output), "--minutes", "5"]
    monkeypatch.setattr(sys, "argv", arguments)
    tiny.run("What it does.")
    card = (output / "tiny.md").read_text()
    assert "- 3 slices: of a kind (weight 1)" in card
    assert "3 steps, " in card
    assert card.endswith("no more\n")
    assert load_prior(output / "tiny").name == "tiny"
    weights = (output / "tiny.safetensors").read_bytes()
    tiny.run("What it does.")
    assert collected == [tmp_path]
    assert (output / "tiny.safetensors").read_bytes() == weights


def test_images_are_written_whole_with_their_unit(tmp_path: Path) -> None:
    small, large = np.full((1, 2, 2), 0.5, np.float32), np.full((1, 2, 2), 70003.25, np.float32)
    write_images({"small": small, "large": large}, tmp_path / "images.h5", "arbitrary")
    with h5py.File(tmp_path / "images.h5") as file:
        assert file["small"].dtype == np.float16
        assert np.array_equal(file["large"][:], large)
        assert file["large"].attrs["units"] == "arbitrary"
    assert [path.name for path in tmp_path.iterdir()] == ["images.h5"]


def test_phantoms_of_training_and_validation_have_no_seed_in_common(monkeypatch: pytest.MonkeyPatch) -> None:

    drawn: list[int] = []

    def draw(seed: int) -> np.ndarray:
        drawn.append(seed)
        return np.full((2, 2), float(seed))

    sets = phantoms(draw, 100, processes=1)
    assert len(set(drawn)) == len(sets["phantoms"]) + len(sets["validation_phantoms"])
    assert sets["phantoms"].max() < 900_000_000 <= sets["validation_phantoms"].min()
