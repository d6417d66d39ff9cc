"""Two images in one measurement: their sum, and what one set of maps cannot explain."""

from __future__ import annotations

import pytest
import torch

from operators import CartesianFourier, SoftSENSE, espirit
from tests.operators.examples import random
from tests.operators.mri.receive_coils import coil_kspace, coil_maps, ellipses


def test_measurements_add_up() -> None:
    maps, mask = random((2, 3, 5, 4), torch.complex128), torch.tensor([True, False, True, True])
    each = [CartesianFourier((5, 4), mask, one) for one in maps]
    operator = SoftSENSE(each)
    x = random((6, 2, 5, 4), torch.complex128, 1)
    assert torch.allclose(operator(x), each[0](x[:, 0]) + each[1](x[:, 1]))
    assert torch.equal(operator.sampled, each[0].sampled)
    assert "2 x [CartesianFourier" in repr(operator)


def test_two_images_explain_a_field_of_view_that_is_too_small() -> None:
    shape = (48, 48)
    truth, image = coil_maps(8, shape), ellipses(shape)
    folded = coil_kspace(image, truth, std=1e-4)[..., ::2]
    maps = espirit(folded, maps=2)

    def misfit(sets: int) -> float:
        operator = SoftSENSE([CartesianFourier((48, 24), None, maps[m]) for m in range(sets)])
        found = operator.solve(folded, max_iterations=30, rtol=1e-8).x
        return float((operator(found) - folded).norm() / folded.norm())

    alone, both = misfit(1), misfit(2)
    assert alone > 0.05
    assert both < 0.2 * alone


def test_operators_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="expected at least one, found none"):
        SoftSENSE([])
    with pytest.raises(ValueError, match=r"expected one domain_shape, found \(4, 4\) and \(4, 5\)"):
        SoftSENSE([CartesianFourier((4, 4)), CartesianFourier((4, 5))])
