"""Imagined bodies: reproducible, of any size, in physical units."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ctflow.canvas import WATER, Canvas
from ctflow.phantoms import KINDS, random_anatomy


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_is_a_body_at_any_size(kind: str) -> None:
    coarse, fine = (random_anatomy(3, (size, size), kind=kind) for size in (64, 256))
    assert torch.equal(fine, random_anatomy(3, (256, 256), kind=kind))
    assert not torch.equal(fine, random_anatomy(4, (256, 256), kind=kind))
    averaged = torch.nn.functional.avg_pool2d(fine[None, None], 4)[0, 0]
    # The edges differ, the body does not.
    assert float((averaged - coarse).abs().mean()) < 0.1 * float(coarse.mean())


@pytest.mark.parametrize("kind", KINDS)
def test_values_are_attenuations(kind: str) -> None:
    for seed in range(3):
        image = random_anatomy(seed, (96, 96), kind=kind)
        assert image.dtype == torch.float32
        assert float(image.min()) == 0.0
        assert 1.2 * WATER < float(image.max()) < 0.075
        border = torch.cat((image[0], image[-1], image[:, 0], image[:, -1]))
        assert float(border.abs().max()) == 0.0


def test_soft_tissue_is_about_water() -> None:
    image = random_anatomy(0, kind="abdomen")
    middle = image[96:160, 96:160]
    assert 0.9 * WATER < float(middle.median()) < 1.15 * WATER


def test_the_pixel_size_sets_the_field_of_view() -> None:
    wide, narrow = (random_anatomy(1, (128, 128), pixel_size=size, kind="abdomen") for size in (4.0, 2.0))
    ratio = int((narrow > 0).sum()) / int((wide > 0).sum())
    assert ratio == pytest.approx(4, rel=0.05)


def test_an_unknown_kind() -> None:
    with pytest.raises(ValueError, match="kind: expected one of head, chest, abdomen, object, found 'foot'"):
        random_anatomy(0, kind="foot")  # type: ignore[arg-type]


def canvas(shape: tuple[int, int] = (200, 200)) -> Canvas:
    return Canvas(np.random.default_rng(0), shape, None)


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.5), (0.6, 0.3), (0.4, 0.05)])
def test_an_ellipse_covers_its_area(a: float, b: float) -> None:
    drawn = canvas()
    cover = drawn.cover(0.1, -0.05, a, b, 0.7)
    assert float(cover.sum()) * drawn.spacing**2 == pytest.approx(math.pi * a * b, rel=0.01)
    assert 0 <= cover.min() <= cover.max() <= 1


def test_paint_covers_and_texture_has_its_strength() -> None:
    drawn = canvas()
    cover = drawn.cover(0, 0, 0.5, 0.5)
    drawn.paint(cover, 3.0)
    drawn.paint(drawn.cover(0, 0, 0.2, 0.2), 1.0)
    assert (drawn.image[100, 100], drawn.image.max()) == (1.0, pytest.approx(3.0))
    texture = drawn.texture(0.02, 2.0)
    assert texture.shape == (200, 200)
    assert 1.0 < texture.std() < 2.2


def test_a_contour_outside_the_image_draws_nothing() -> None:
    assert canvas().cover(5.0, 5.0, 0.5, 0.5).max() == 0
