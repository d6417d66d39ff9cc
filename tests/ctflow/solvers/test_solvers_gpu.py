"""Every solver gives on a GPU what it gives on the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ctflow.solvers import make_solver
from tests.ctflow.solvers.test_operators import BATCH, SETTINGS, case, law


@pytest.mark.gpu
@pytest.mark.parametrize(("solver", "settings"), SETTINGS, ids=lambda value: str(value))
def test_devices_agree(solver: str, settings: dict[str, Any]) -> None:
    posed = case("fourier")
    mean, covariance = law(posed.matrix.shape[1])

    def run(device: str) -> torch.Tensor:
        generators = [torch.Generator().manual_seed(i) for i in range(BATCH)]
        prior = posed.prior(mean.to(device), covariance.to(device))
        result = make_solver(solver, settings)(posed.problem.to(device), prior, generator=generators)
        assert result.image.device.type == device
        return result.image.cpu()

    # Adam and L-BFGS pass rounding on.
    loose = solver in ("d-flow", "fm-plug", "ictm") or settings.get("jacobian") == "exact"
    assert torch.allclose(run("cuda"), run("cpu"), atol=1e-4 if loose else 1e-6)
