"""The demonstration, at a small size and with a prior in closed form."""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.image import imread

from ctflow.demo import demo, demo_mri
from ctflow.flows.analytic import GaussianFlow
from ctflow.flows.path import AffinePath
from ctflow.flows.prior import FlowPrior
from ctflow.representation import Representation


def test_three_solvers_one_table_one_picture(tmp_path: Path) -> None:
    prior = GaussianFlow(torch.full((32, 32), 0.01), torch.full((32, 32), 1e-4))
    lines: list[str] = []
    scores = demo(prior, tmp_path / "demo.png", size=32, steps=4, say=lines.append)
    assert [score.solver for score in scores] == ["FBP", "TV", "FLOWER"]
    assert all(score.psnr > 10 for score in scores)
    assert all(0 < score.ssim < 1 for score in scores)
    assert lines[0] == "60 views, 4000 photons a bin, 32 x 32 pixels"
    assert lines[-1] == f"picture: {tmp_path / 'demo.png'}"
    assert len(lines) == 6
    height, width = imread(tmp_path / "demo.png").shape[:2]
    assert width > 3 * height


def test_undersampled_k_space_has_its_table_and_picture(tmp_path: Path) -> None:
    gaussian = GaussianFlow(torch.zeros(2, 32, 32), torch.full((2, 32, 32), 0.1))
    representation = Representation(complex=True, calibration="data")
    prior = FlowPrior(gaussian.velocity, AffinePath.linear(), representation)
    lines: list[str] = []
    scores = demo_mri(prior, tmp_path / "mri.png", size=32, steps=4, say=lines.append)
    assert [score.solver for score in scores] == ["zero-filled", "CG-SENSE", "FLOWER"]
    assert all(score.psnr > 10 for score in scores)
    assert all(0 < score.ssim < 1 for score in scores)
    assert lines[0] == "8 coils, 4-fold undersampling, 32 x 32 pixels"
    assert lines[-1] == f"picture: {tmp_path / 'mri.png'}"
    height, width = imread(tmp_path / "mri.png").shape[:2]
    assert width > 3 * height
