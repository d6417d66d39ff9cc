"""Poisson-disc masks: their acceleration, and that places keep their distance."""

from __future__ import annotations

import pytest
import torch
from scipy.spatial import cKDTree

from operators.mri.poisson_disc import poisson_disc


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("acceleration", [1.5, 2.0, 4.0, 8.0, 12.0])
@pytest.mark.parametrize("shape", [(128, 128), (97, 130)])
def test_acceleration_is_the_one_asked_for(shape: tuple[int, int], acceleration: float) -> None:
    mask = poisson_disc(shape, acceleration, 12, generator=generator())
    assert mask.acceleration == pytest.approx(acceleration, rel=0.02)
    assert mask.acceleration_outside > mask.acceleration
    assert int(mask.calibration.sum()) == 144
    assert bool(mask.mask[mask.calibration].all())
    assert bool(mask.calibration[shape[0] // 2, shape[1] // 2])


def test_distances_grow_from_the_centre() -> None:
    mask = poisson_disc((200, 200), 6, generator=generator(), slope=3.0).mask
    places = mask.nonzero().double()
    nearest = torch.from_numpy(cKDTree(places.numpy()).query(places.numpy(), k=2)[0][:, 1])
    radius = torch.linalg.vector_norm(places - 100, dim=1)
    assert float(radius.max()) <= 100
    inner, outer = nearest[radius < 25], nearest[radius > 75]
    assert float(outer.min()) > float(inner.median())
    assert float(outer.mean()) > 2 * float(inner.mean())


def test_uniform_places_keep_one_distance_and_fill_the_corners() -> None:
    mask = poisson_disc((160, 160), 9, generator=generator(), slope=0.0, corners=True).mask
    places = mask.nonzero().double().numpy()
    nearest = cKDTree(places).query(places, k=2)[0][:, 1]
    assert nearest.min() > 0.7 * nearest.mean()
    # Maximal: nowhere is there room for another.
    everywhere = torch.ones(160, 160).nonzero().double().numpy()
    assert cKDTree(places).query(everywhere)[0].max() < 1.3 * nearest.mean()
    assert bool(mask[:12, :12].any())


def test_the_generator_decides() -> None:
    first, again, other = (
        poisson_disc((64, 80), 4, (8, 10), generator=generator(seed)).mask for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"acceleration": 0.5}, "acceleration: expected at least 1"),
        ({"calibration": 40}, r"calibration: expected at most \(32, 40\), found \(40, 40\)"),
        ({"slope": -1.0}, "slope: expected at least 0, found -1"),
        ({"calibration": 20}, r"acceleration: expected 8 within 2 %, found 3\.2 at the closest"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        poisson_disc((32, 40), **{"acceleration": 8, **settings}, generator=generator())
