"""Jobs on a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctflow.io.results import read_result
from ctflow.pipeline.running import run
from tests.ctflow.pipeline.test_running import job, scan
from tests.ctflow.priors import write_prior

__all__ = ["scan"]


@pytest.mark.gpu
@pytest.mark.parametrize("solver", ["fbp", "cgls", "tv", "flower"])
def test_devices_agree(scan: Path, solver: str) -> None:
    settings = {
        "fbp": {},
        "cgls": {"iterations": 5},
        "tv": {"iterations": 20},
        "flower": {"steps": 3, "tolerance": 1e-6},
    }
    prior = {"prior": str(write_prior(scan.parent))} if solver == "flower" else {}
    images = {}
    for device in ("cpu", "cuda"):
        (outcome,) = run(
            job(scan, f"{device}.h5", solver=solver, settings=settings[solver], device=device, **prior)
        )
        result = read_result(outcome.output)
        assert result.attributes["device"].startswith(device)
        images[device] = result.images
    difference = (images["cuda"] - images["cpu"]).norm() / images["cpu"].norm()
    # A network's convolutions round in another way, and conjugate gradients pass it on.
    assert float(difference) < (2e-2 if solver == "flower" else 1e-3)
