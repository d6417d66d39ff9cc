"""The diffusion model in a flow prior."""

from __future__ import annotations

import pytest
import torch

from ctflow.flows.analytic import GaussianFlow
from ctflow.flows.ddpm import DDPM
from ctflow.flows.path import AffinePath
from tests.ctflow.flows.test_path import each_path
from tests.operators.examples import random

MEAN = random((4,), torch.float64, 0)
SPREAD = torch.tensor([4.0, 1.0, 0.25, 0.04], dtype=torch.float64)


@each_path
@pytest.mark.parametrize("level", [50, 300, 500])
def test_clean_images_are_those_of_the_diffusion_model_on_every_path(path: AffinePath, level: int) -> None:
    model = DDPM(GaussianFlow(MEAN, SPREAD, path))
    signal, x = model.signal[level], random((3, 4), torch.float64, 1)
    gain = signal**0.5 * SPREAD / (signal * SPREAD + 1 - signal)
    expected = MEAN + gain * (x - signal**0.5 * MEAN)
    assert torch.allclose(model.clean(x, level), expected, rtol=1e-6)


def test_signal_is_that_of_ho_et_al() -> None:
    signal = DDPM(GaussianFlow(MEAN, SPREAD)).signal
    assert len(signal) == 1000
    assert signal[0] == pytest.approx(1 - 1e-4)
    assert signal[-1] == pytest.approx(4.04e-5, rel=1e-2)


def test_noise_and_mixed_are_inverse() -> None:
    model = DDPM(GaussianFlow(MEAN, SPREAD))
    clean, noise = random((2, 4), torch.float64, 2), random((2, 4), torch.float64, 3)
    assert torch.allclose(model.noise(model.mixed(clean, noise, 400), clean, 400), noise)


def test_ancestral_steps_keep_the_law_of_the_levels() -> None:
    """Of x_500 around a known clean image the step makes x_200 around it."""
    model = DDPM(GaussianFlow(MEAN, SPREAD))
    clean = random((1, 4), torch.float64, 2)
    at_mean, std = model.ancestral(model.signal[500] ** 0.5 * clean, clean, 500, 200)
    slope = (model.ancestral(clean + 1, clean, 500, 200)[0] - model.ancestral(clean, clean, 500, 200)[0])[
        0, 0
    ]
    assert torch.allclose(at_mean, model.signal[200] ** 0.5 * clean)
    assert float(slope**2 * (1 - model.signal[500]) + std**2) == pytest.approx(1 - model.signal[200])


def test_levels() -> None:
    model = DDPM(GaussianFlow(MEAN, SPREAD))
    assert model.levels(1000) == list(range(999, -1, -1))
    assert model.levels(3) == [999, 500, 0]
    assert model.levels(1) == [999]
    quadratic = model.levels(5, "quadratic")
    assert (quadratic[0], quadratic[-1]) == (999, 0)
    assert quadratic[1] < 999 - 250
    with pytest.raises(ValueError, match="levels: expected between 1 and 1000, found 0"):
        model.levels(0)
