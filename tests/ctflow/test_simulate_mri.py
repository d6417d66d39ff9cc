"""Simulated k-space: what a scanner resolves, noise, masks, and no inverse crime."""

from __future__ import annotations

import pytest
import torch

from ctflow.receive_coils import birdcage_maps
from ctflow.simulate_mri import MR_PRESETS, mr_settings, simulate_kspace, simulate_mr_preset
from operators.mri.fourier import centred_fft


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def image(height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(height, width, dtype=torch.complex64, generator=generator(seed))


@pytest.mark.parametrize("shape", [(12, 16), (13, 15)])
def test_coarse_images_are_resolved_as_they_are(shape: tuple[int, int]) -> None:
    x = image(*shape)
    scan = simulate_kspace(x, None, None, 1e-6, generator())
    assert torch.allclose(scan.truth, x, atol=1e-5)
    assert torch.allclose(scan.kspace, centred_fft(x), atol=1e-4)


@pytest.mark.parametrize("shape", [(12, 16), (13, 15)])
def test_fine_waves_are_seen_at_their_place(shape: tuple[int, int]) -> None:
    height, width = shape
    # A wave of 2 and -3 periods over the field of view, on a grid twice as fine, with 0 at index n // 2.
    y, x = ((torch.arange(2 * n) - n) / (2 * n) for n in shape)
    wave = torch.exp(2j * torch.pi * (2 * y[:, None] - 3 * x))
    scan = simulate_kspace(wave, None, None, 1e-6, generator(), shape=shape)
    expected = torch.zeros(shape, dtype=torch.complex64)
    expected[height // 2 + 2, width // 2 - 3] = (height * width) ** 0.5
    assert torch.allclose(scan.kspace, expected, atol=1e-3)


@pytest.mark.parametrize("size", [24, 25])
def test_data_fit_the_reconstruction_model_but_are_not_of_it(size: int) -> None:
    maps = birdcage_maps(4, (size, size))
    smooth = torch.zeros(2 * size, 2 * size, dtype=torch.complex64)
    smooth[size // 2 : -(size // 2), size // 2 : -(size // 2)] = 1.0
    scan = simulate_kspace(smooth, maps, None, 1e-6, generator())
    error = float(scan.problem.residual(scan.truth).abs().max() / scan.kspace.abs().max())
    assert 1e-5 < error < 0.05
    assert torch.allclose(scan.coil_maps, maps, atol=1e-6)  # type: ignore[arg-type]


def test_noise_only_where_sampled_and_of_its_own_generator() -> None:
    maps, mask = birdcage_maps(3, (16, 16)), torch.arange(16) % 3 == 0
    images = torch.zeros(2, 32, 32, dtype=torch.complex64)
    both = simulate_kspace(images, maps, mask, 0.5, [generator(1), generator(2)])
    second = simulate_kspace(images[1:], maps, mask, 0.5, [generator(2)])
    assert both.kspace.shape == (2, 3, 16, 16)
    assert torch.equal(both.kspace[1:], second.kspace)
    assert not bool(both.kspace[..., ~mask].any())
    assert float(both.kspace[..., mask].abs().square().mean()) == pytest.approx(0.25, rel=0.15)


def test_maps_have_unit_power_and_follow_their_loops() -> None:
    maps = birdcage_maps(8, (40, 48))
    assert maps.shape == (8, 40, 48)
    assert maps.dtype == torch.complex64
    assert torch.allclose(maps.abs().square().sum(0), torch.ones(40, 48), atol=1e-5)
    # The first loop is at the right, the third at the bottom of the array.
    assert float(maps[0, 20, -1].abs()) > 3 * float(maps[0, 20, 0].abs())
    assert float(maps[2, -1, 24].abs()) > 3 * float(maps[2, 0, 24].abs())
    turns = (maps[:, :, 1:] * maps[:, :, :-1].conj()).angle().abs()
    assert float(turns.max()) < 0.3


def test_a_loop_on_its_axis_has_the_field_of_the_textbook() -> None:
    # Bx(d) of a loop of radius a at distance d on its axis is proportional to (a^2 + d^2)^(-3/2); two loops
    # opposite each other share the power of their sum.
    maps = birdcage_maps(2, (41, 41), distance=0.8, radius=0.3)
    along = (torch.arange(41) - 20) / 41
    first, second = ((0.09 + (0.8 + side * along) ** 2) ** -1.5 for side in (-1, 1))
    expected = first / (first**2 + second**2).sqrt()
    assert torch.allclose(maps[0, 20].abs(), expected, atol=1e-3)


@pytest.mark.parametrize("preset", MR_PRESETS)
def test_presets_sample_what_they_say(preset: str) -> None:
    settings = MR_PRESETS[preset]
    mask = settings.mask()
    assert mask is not None
    assert 1 / float(mask.float().mean()) == pytest.approx(settings.acceleration, rel=0.15)
    half = settings.calibration // 2
    middle = slice(settings.size // 2 - half, settings.size // 2 + half)
    assert bool(mask[(middle,) * mask.ndim].all())


def test_a_preset_gives_a_problem_that_can_be_solved() -> None:
    small = {"size": 48, "coils": 4}
    scan = simulate_mr_preset("mri-equispaced-4x", [5, 6], **small)
    assert scan.kspace.shape == (2, 4, 48, 48)
    assert scan.truth.shape == (2, 48, 48)
    assert scan.pixel_size == pytest.approx(0.9 * 256 / 48)
    again = simulate_mr_preset("mri-equispaced-4x", [6], **small)
    assert torch.equal(again.kspace[0], scan.kspace[1])
    full = simulate_mr_preset("mri-equispaced-4x", [5], **small, sampling="full")
    assert full.mask is None
    error = (full.problem.initial() - full.truth).abs().square().mean().sqrt()
    assert float(error) < 0.1 * float(full.truth.abs().max())
    alone = simulate_mr_preset("mri-single-coil-4x", [5], size=48)
    assert alone.coil_maps is None
    assert alone.kspace.shape == (1, 48, 48)


def test_errors_name_what_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"images: expected complex ones, found torch\.float32"):
        simulate_kspace(torch.zeros(8, 8), None, None, 0.1, generator())
    with pytest.raises(ValueError, match=r"expected shape \(..., 8, 8\) or \(..., 16, 16\), found \(9, 9\)"):
        simulate_kspace(image(9, 9), birdcage_maps(2, (8, 8)), None, 0.1, generator())
    with pytest.raises(ValueError, match="no preset 'mri'; known: mri-equispaced-4x"):
        mr_settings("mri")
    with pytest.raises(ValueError, match=r"centre_fraction: expected less than 0\.25 for acceleration 4"):
        mr_settings("mri-equispaced-4x", size=64, calibration=24).mask()
    with pytest.raises(ValueError, match="mri-equispaced-4x: no setting 'views'; known: size"):
        mr_settings("mri-equispaced-4x", views=3)
    with pytest.raises(ValueError, match="coils: expected at least 1, found 0"):
        birdcage_maps(0, (8, 8))
    with pytest.raises(ValueError, match=r"distance: expected at least 0.72, outside the field of view"):
        birdcage_maps(4, (8, 8), distance=0.5)
