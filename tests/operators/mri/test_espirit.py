"""ESPIRiT finds the maps that the k-space was made with."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from operators.mri import centred_fft, espirit
from tests.operators.mri.receive_coils import coil_kspace, coil_maps, ellipses

SHAPES = [(64, 48), (45, 51)]


def alignment(found: Tensor, truth: Tensor) -> Tensor:
    return (found.conj() * truth).sum(0).abs()


@pytest.mark.parametrize("shape", SHAPES)
def test_maps_are_the_true_ones_up_to_a_smooth_phase(shape: tuple[int, int]) -> None:
    truth, image = coil_maps(6, shape), ellipses(shape)
    found = espirit(coil_kspace(image, truth, std=1e-3))
    inside = image.abs() > 0.1
    agreement = alignment(found, truth)[inside]
    assert float(agreement.min()) > 0.999
    assert float(agreement.mean()) > 0.9999
    power = found.abs().square().sum(0)
    assert torch.allclose(power[inside], torch.ones_like(power[inside]), atol=1e-12)
    assert set(power.round(decimals=9).unique().tolist()) == {0.0, 1.0}
    # Far from the object nothing is a map: the corners.
    assert not found[:, :4, :4].any()
    # A jump of phase between neighbours would be of order one.
    turned = (found.conj() * truth).sum(0)
    steps = torch.diff(turned, dim=1)[(inside[:, 1:] & inside[:, :-1])].abs()
    assert float(steps.max()) < 0.35


def test_sense_of_direction_and_undersampling() -> None:
    """Lines missing outside of the centre change nothing, and flipped k-space gives flipped maps."""
    shape = (48, 64)
    kspace = coil_kspace(ellipses(shape), coil_maps(5, shape), std=1e-3)
    mask = torch.zeros(64, dtype=torch.float64)
    mask[::4] = 1
    mask[32 - 12 : 32 + 12] = 1
    full = espirit(kspace)
    assert torch.equal(espirit(kspace * mask), full)


def test_batches_scale_and_dtype() -> None:
    shape = (40, 40)
    maps, image = coil_maps(4, shape), ellipses(shape)
    kspace = torch.stack(
        [coil_kspace(image, maps, std=1e-3), 1e-5 * coil_kspace(image, maps.flip(0), std=1e-3)]
    )
    both = espirit(kspace.reshape(2, 1, 4, *shape))
    assert both.shape == (2, 1, 4, *shape)
    for each, one in zip(both[:, 0], kspace, strict=True):
        assert torch.allclose(each, espirit(one), rtol=0, atol=1e-12)
    single = espirit(kspace.to(torch.complex64))
    assert single.dtype == torch.complex64
    inside = image.abs() > 0.1
    for each, one in zip(single, both[:, 0], strict=True):
        assert torch.allclose(each[:, inside].to(one.dtype), one[:, inside], rtol=0, atol=2e-4)


def test_an_empty_slice_has_no_maps() -> None:
    shape = (32, 32)
    kspace = coil_kspace(ellipses(shape), coil_maps(4, shape), std=1e-3)
    found = espirit(torch.stack([torch.zeros_like(kspace), kspace]), crop=0)
    assert not found[0].any()
    assert torch.allclose(found[1], espirit(kspace, crop=0))


def test_two_sets_explain_an_image_that_folds_over() -> None:
    """With a field of view of half the object, each pixel sees two places: two sets of maps span both."""
    shape = (48, 48)
    truth, image = coil_maps(8, shape), ellipses(shape)
    # Every other line along x is a field of view of half: x and x + 24 fold onto each other.
    folded = coil_kspace(image, truth, std=1e-4)[..., ::2]
    found = espirit(folded, maps=2)
    assert found.shape == (2, 8, 48, 24)
    columns = (torch.arange(24) + 12) % 48, (torch.arange(24) + 36) % 48
    seen = [truth[..., part] for part in columns]
    inside = (image[:, columns[0]].abs() > 0.1) & (image[:, columns[1]].abs() > 0.1)
    assert int(inside.sum()) > 50
    for place in seen:
        within = (found.conj() * place).sum(1).abs().square().sum(0).sqrt()
        assert float(within[inside].min()) > 0.99
    overlap = (found[0].conj() * found[1]).sum(0).abs()
    assert float(overlap.max()) < 1e-10


def test_volumes() -> None:
    shape = (12, 20, 18)
    truth, image = coil_maps(4, shape), ellipses(shape)
    kspace = coil_kspace(image, truth, std=1e-3).to(torch.complex64)
    found = espirit(kspace, calibration=(8, 14, 14), kernel=(3, 4, 4), dimensions=3)
    agreement = alignment(found, truth.to(found.dtype))[image.abs() > 0.1]
    assert float(agreement.mean()) > 0.998


def test_rows_at_once_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    kspace = coil_kspace(ellipses((32, 30)), coil_maps(4, (32, 30)), std=1e-3)
    whole = espirit(kspace)
    monkeypatch.setitem(espirit.__globals__["_BYTES_AT_ONCE"], "cpu", 1)
    assert torch.allclose(espirit(kspace), whole, rtol=0, atol=1e-12)


def test_noise_is_no_direction() -> None:
    """Strong noise, which a cut at a fixed threshold would take for signal."""
    shape = (64, 64)
    truth, image = coil_maps(6, shape), ellipses(shape)
    found = espirit(coil_kspace(image, truth, std=0.1), crop=0)
    agreement = alignment(found, truth)[image.abs() > 0.1]
    assert float(agreement.mean()) > 0.99


@pytest.mark.parametrize(("calibration", "mean"), [(12, 0.999), ((24, 10), 0.999), ((24, 15), 0.9995)])
def test_small_centres(calibration: int | tuple[int, int], mean: float) -> None:
    """Where signal takes most of the directions, none of it counts as noise."""
    shape = (64, 56)
    truth, image = coil_maps(8, shape), ellipses(shape)
    found = espirit(coil_kspace(image, truth, std=0.01), calibration=calibration)
    agreement = alignment(found, truth)[image.abs() > 0.1]
    assert float(agreement.mean()) > mean
    assert float(agreement.min()) > 0.99


def test_what_cannot_be_calibrated_is_refused() -> None:
    kspace = coil_kspace(ellipses((32, 32)), coil_maps(3, (32, 32)))
    with pytest.raises(ValueError, match=r"expected a complex torch.Tensor, found torch\.float64"):
        espirit(kspace.real)
    with pytest.raises(ValueError, match=r"maps: expected 1 to 3 sets for 3 coils, found 4"):
        espirit(kspace, maps=4)
    with pytest.raises(ValueError, match=r"crop: expected a number from 0 to below 1, found 1\.5"):
        espirit(kspace, crop=1.5)
    with pytest.raises(ValueError, match="threshold: expected a number between 0 and 1, found 0"):
        espirit(kspace, threshold=0)
    narrow = torch.zeros(32, dtype=torch.float64)
    narrow[14:18] = 1
    with pytest.raises(ValueError, match=r"at least the kernel's \(6, 6\), found \(24, 4\)"):
        espirit(kspace * narrow)
    with pytest.raises(ValueError, match=r"expected a measured centre, at \(16, 16\) of \(32, 32\)"):
        espirit(centred_fft(torch.zeros_like(kspace)))
    kspace[0, 16, 16] = math.nan
    with pytest.raises(ValueError, match="expected finite values, found others"):
        espirit(kspace)
