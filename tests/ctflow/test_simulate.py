"""Simulated scans: units, noise, and no inverse crime."""

from __future__ import annotations

import math

import pytest
import torch

from ctflow.metal import metal_attenuation, metal_line_integrals
from ctflow.simulate import PRESETS, scan_settings, simulate_preset, simulate_scan
from ctflow.solvers import FBP
from operators.ct.geometry import ConeBeam, Detector, ImageGrid, ParallelBeam
from operators.ct.ray_transform import RayTransform
from operators.noise import GaussianNoise, PoissonTransmission


def disc(size: int) -> torch.Tensor:
    """A disc of radius 12 mm on a field of 40 mm, pixels averaged from finer ones."""
    axis = (torch.arange(4 * size) + 0.5) / (4 * size) * 40 - 20
    inside = (axis[:, None] ** 2 + axis[None] ** 2 < 144).float() * 0.03
    return inside.reshape(size, 4, size, 4).mean((1, 3))


def operator() -> RayTransform:
    return RayTransform(ParallelBeam.uniform(20, Detector(41, 1.2, offset=0.3)), ImageGrid((32, 32), 1.25))


@pytest.mark.parametrize("size", [32, 64])
def test_line_integrals_are_those_of_the_object(size: int) -> None:
    scan = simulate_scan(disc(size)[None], operator(), GaussianNoise(1e-6), torch.Generator().manual_seed(0))
    positions = torch.as_tensor(operator().geometry.detector.positions()).float()
    exact = 2 * 0.03 * (144 - positions.square()).clamp_min(0).sqrt()
    # Off the edge, where a bin's finite width counts.
    middle = positions.abs() < 10.5
    assert torch.allclose(scan.problem.measurement[0][:, middle], exact[middle].expand(20, -1), atol=0.02)
    assert scan.truth.shape == (1, 32, 32)
    assert torch.allclose(scan.truth[0], disc(32), atol=1e-6 if size == 32 else 6e-3)


def test_the_data_are_not_those_of_the_reconstruction_model() -> None:
    scan = simulate_scan(disc(64)[None], operator(), GaussianNoise(1e-6), torch.Generator().manual_seed(0))
    difference = scan.problem.residual(scan.truth)
    assert 1e-3 < float(difference.abs().max()) < 0.1


def test_noise_and_seeds() -> None:
    images, noise = disc(32).expand(2, 32, 32), PoissonTransmission(5000.0)

    def generators(*seeds: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    both = simulate_scan(images, operator(), noise, generators(1, 2))
    second = simulate_scan(images[1:], operator(), noise, generators(2))
    assert torch.equal(both.problem.measurement[1:], second.problem.measurement)
    assert not torch.equal(both.problem.measurement[0], both.problem.measurement[1])
    assert torch.allclose(both.problem.data_fit(both.truth), torch.ones(2), atol=0.15)


def test_presets() -> None:
    lodopab = PRESETS["lodopab-like"]
    transform = lodopab.operator()
    assert (transform.domain_shape, transform.range_shape) == ((362, 362), (1000, 513))
    assert transform.geometry.angles[0] == pytest.approx(math.pi / 2000)
    assert transform.geometry.detector.bins * transform.geometry.detector.pitch == pytest.approx(260 * 2**0.5)
    assert lodopab.noise() == PoissonTransmission(4096.0)
    assert scan_settings("sparse-view", views=30, photons=1e5).operator().range_shape == (30, 363)


def test_a_preset_gives_a_problem_that_can_be_solved() -> None:
    small = {"size": 64, "pixel_size": 4.0, "bins": 91, "pitch": 4.0, "views": 90, "photons": 1e5}
    scan = simulate_preset("sparse-view", [5, 6], **small)
    image = FBP(filter="hann")(scan.problem).image
    assert image.shape == scan.truth.shape == (2, 64, 64)
    assert float((image - scan.truth).square().mean().sqrt()) < 0.15 * float(scan.truth.max())
    again = simulate_preset("sparse-view", [6], **small)
    assert torch.equal(again.problem.measurement[0], scan.problem.measurement[1])
    assert torch.equal(again.truth[0], scan.truth[1])


def test_a_changed_size_keeps_the_field_of_view() -> None:
    for preset in ("metal", "cone"):
        standard, small = scan_settings(preset), scan_settings(preset, size=32)
        assert small.size * small.pixel_size == pytest.approx(standard.size * standard.pixel_size)
        assert small.bins * small.pitch == pytest.approx(standard.bins * standard.pitch)
        assert small.bins == round(standard.bins * 32 / standard.size)
    assert scan_settings("metal", size=32, pixel_size=1.0, bins=40, pitch=1.0).pixel_size == 1.0


def test_limited_angles_and_truncation() -> None:
    limited = simulate_preset("limited-angle", [3], size=32).problem.operator
    turned = limited.geometry.angles  # type: ignore[union-attr]
    assert (turned[-1] - turned[0]) * 120 / 119 == pytest.approx(2 * math.pi / 3)
    interior = simulate_preset("interior", [3], size=64, views=40)
    shadow = interior.problem.measurement[0]
    # Rays at both ends of the detector still run through the body.
    assert float(shadow[:, [0, -1]].median()) > 0.5
    assert float(interior.truth.max()) > 0.02


def test_metal_hardens_the_beam_and_takes_its_photons() -> None:
    body, pin = 0.5 * disc(64), disc(64) / 0.03
    clean = GaussianNoise(1e-6)
    generator = torch.Generator().manual_seed(0)
    scan = simulate_scan(body[None], operator(), clean, generator, 0.6 * pin[None])
    positions = torch.as_tensor(operator().geometry.detector.positions()).float()
    chord = 2 * (144 - positions.square()).clamp_min(0).sqrt()
    exact = 0.4 * 0.015 * chord + metal_line_integrals(0.6 * chord)
    middle = positions.abs() < 10.0
    assert torch.allclose(scan.problem.measurement[0][:, middle], exact[middle].expand(20, -1), rtol=0.01)
    assert float(scan.truth[0, 16, 16]) == pytest.approx(0.4 * 0.015 + 0.6 * metal_attenuation(), rel=1e-4)
    starved = simulate_preset("metal", [4], size=64, views=60)
    tissue = simulate_preset("metal", [4], size=64, views=60, metal=False)
    assert float(starved.truth.max()) == pytest.approx(metal_attenuation(), rel=0.01)
    counts = [scan.problem.noise.counts(scan.problem.measurement).min() for scan in (starved, tissue)]  # type: ignore[attr-defined]
    assert 3 * float(counts[0]) < float(counts[1])


def test_a_volume_is_measured_by_cones() -> None:
    axis = (torch.arange(96) + 0.5) / 96 * 40 - 20
    squares = axis.square()
    inside = squares[:, None, None] + squares[:, None] + squares < 144
    ball = 0.03 * inside.float().reshape(48, 2, 48, 2, 48, 2).mean((1, 3, 5))
    geometry = ConeBeam.circular(
        8, source_to_axis=100.0, source_to_detector=150.0, detector=Detector((20, 24), 2.0, (0.5, -0.3))
    )
    transform = RayTransform(geometry, ImageGrid((24, 24, 24), 40 / 24))
    scan = simulate_scan(ball, transform, GaussianNoise(1e-6), torch.Generator().manual_seed(0))
    row, bin_ = (
        torch.as_tensor(x).float() for x in (geometry.detector.row_positions(), geometry.detector.positions())
    )
    aside = row[:, None].square() + bin_.square()
    # Distance of a ray from the middle of the ball, which is on the axis.
    nearest = 100.0**2 * aside / (aside + 150.0**2)
    exact = 0.06 * (144 - nearest).clamp_min(0).sqrt()
    middle = nearest < 100
    assert torch.allclose(scan.problem.measurement[:, middle], exact[middle].expand(8, -1), atol=0.015)
    assert torch.allclose(scan.truth, ball.reshape(24, 2, 24, 2, 24, 2).mean((1, 3, 5)), atol=1e-7)
    assert 1e-3 < float(scan.problem.residual(scan.truth).abs().max()) < 0.15
    again = simulate_scan(scan.truth, transform, GaussianNoise(1e-6), torch.Generator().manual_seed(0))
    assert torch.allclose(again.problem.measurement, scan.problem.measurement, atol=0.1)


def test_errors() -> None:
    with pytest.raises(ValueError, match="no preset 'lodopab'; known: lodopab-like, sparse-view, limited"):
        scan_settings("lodopab")
    with pytest.raises(ValueError, match="sparse-view: no setting 'angles'; known: size"):
        scan_settings("sparse-view", angles=3)
    with pytest.raises(
        ValueError,
        match=r"images: expected shape \(\.\.\., 32, 32\) or \(\.\.\., 64, 64\), found \(1, 40, 40\)",
    ):
        simulate_scan(torch.zeros(1, 40, 40), operator(), GaussianNoise(1.0), torch.Generator())
