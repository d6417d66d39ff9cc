"""The phase of maps is that of the coils' principal component."""

from __future__ import annotations

import torch

from operators.mri.phase_reference import principal_coil, rotate_to
from tests.operators.examples import random


def test_principal_coil_is_found_at_any_scale_and_phase() -> None:
    one = torch.tensor([0.6j, -0.8, 0.0], dtype=torch.complex128)
    signals = one[:, None] * random((30,), torch.complex128) + 1e-9 * random((3, 30), torch.complex128, 1)
    both = torch.stack((signals, 1e-12j * signals))
    expected = one * -1  # its largest part has phase 0
    found = principal_coil(both)
    assert torch.allclose(found, expected.expand(2, 3), rtol=0, atol=1e-7)
    assert bool(principal_coil(torch.zeros_like(signals)).isfinite().all())


def test_reference_sees_every_pixel_with_phase_zero() -> None:
    maps, reference = random((4, 2, 5, 6), torch.complex128), random((4, 1, 5, 1), torch.complex128, 1)
    maps[1, 1, :, 3] = 0
    turned = rotate_to(reference, maps)
    assert torch.allclose(turned.abs(), maps.abs(), atol=1e-14)
    seen = (reference.conj() * turned).sum(-2)
    assert torch.allclose(seen, seen.abs().to(seen.dtype), atol=1e-14)
    assert not turned[1, 1, :, 3].any()
