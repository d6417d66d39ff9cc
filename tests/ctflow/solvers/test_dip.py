"""The deep image prior: what it fits, in which units, and when it stops."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ctflow.problem import InverseProblem
from ctflow.solvers import DeepImagePrior
from operators.linear import Identity, Matrix
from operators.noise import ComplexGaussianNoise, GaussianNoise
from tests.operators.examples import random

SMALL: dict[str, Any] = {"channels": 8, "levels": 2, "input_channels": 4}


def disc(dtype: torch.dtype = torch.float64) -> Tensor:
    axis = torch.linspace(-1, 1, 16, dtype=torch.float64)
    return (0.3 + (axis.square() + axis[:, None].square() < 0.5)).to(dtype)


def run(posed: InverseProblem, **settings: Any) -> Any:
    return DeepImagePrior(**{**SMALL, **settings})(posed, generator=torch.Generator().manual_seed(0))


def test_an_image_is_fitted_before_its_noise() -> None:
    noisy = disc() + 0.3 * random((16, 16), torch.float64)
    posed = InverseProblem(Identity((16, 16), dtype=torch.float64), noisy, GaussianNoise(0.3))
    result = run(posed, iterations=150, window=10, patience=150)
    assert float(result.history[0]) > 2
    assert float(result.history[-1]) < 1.1
    error = float((result.image - disc()).square().mean().sqrt())
    assert error < 0.7 * 0.3


def test_results_scale_with_their_unit() -> None:
    image, factor = disc(), 1e-3
    noise = 0.1 * random((16, 16), torch.float64)
    first = InverseProblem(Identity((16, 16), dtype=torch.float64), image + noise, GaussianNoise(0.1))
    second = InverseProblem(
        (1 / factor) * Identity((16, 16), dtype=torch.float64), image + noise, GaussianNoise(0.1)
    )
    images = [run(posed, iterations=20).image for posed in (first, second)]
    assert torch.allclose(images[1], factor * images[0], rtol=1e-5)


def test_complex_images() -> None:
    image = disc(torch.complex128) * torch.exp(torch.tensor(0.7j))
    posed = InverseProblem(
        Identity((16, 16), dtype=torch.complex128), image.expand(2, 16, 16), ComplexGaussianNoise(0.1)
    )
    result = run(posed, iterations=200, input_noise=0.0)
    assert result.image.dtype == torch.complex128
    assert torch.allclose(result.image.angle()[:, 4:12, 4:12].mean(), torch.tensor(0.7).double(), atol=0.05)


def test_stops_early() -> None:
    posed = InverseProblem(Identity((16, 16), dtype=torch.float64), disc(), GaussianNoise(0.1))
    result = run(posed, iterations=100, window=3, patience=4)
    assert len(result.history) < 100
    assert result.evaluations["network"] == len(result.history)


def test_odd_sizes_are_cropped() -> None:
    posed = InverseProblem(
        Identity((5, 13), dtype=torch.float64), torch.ones(5, 13).double(), GaussianNoise(0.1)
    )
    assert run(posed, iterations=2).image.shape == (5, 13)


def test_errors() -> None:
    with pytest.raises(
        ValueError, match="deep-image-prior: expected an operator on images of two dimensions"
    ):
        run(InverseProblem(Matrix(torch.ones(3, 4)), torch.ones(3), GaussianNoise(1.0)))
    for settings, message in (
        ({"iterations": 0}, "deep-image-prior: iterations: expected at least 1, found 0"),
        ({"learning_rate": 0.0}, "deep-image-prior: learning_rate: expected a positive number"),
        ({"channels": 0}, "deep-image-prior: channels: expected at least 1"),
        ({"skip_channels": 0}, "deep-image-prior: skip_channels: expected at least 1"),
        ({"levels": 0}, "deep-image-prior: levels: expected at least 1"),
        ({"input_channels": 0}, "deep-image-prior: input_channels: expected at least 1"),
        ({"input_noise": -1.0}, "deep-image-prior: input_noise: expected at least 0"),
        ({"window": 1}, "deep-image-prior: window: expected at least 2"),
        ({"patience": 0}, "deep-image-prior: patience: expected at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            DeepImagePrior(**settings)
