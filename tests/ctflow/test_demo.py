"""The demonstration, at a small size and with a prior in closed form."""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.image import imread

from ctflow.demo import demo
from ctflow.flows.analytic import GaussianFlow


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
