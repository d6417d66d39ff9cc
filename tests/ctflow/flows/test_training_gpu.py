"""Training on a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ctflow.flows.store import load_prior
from ctflow.flows.training import Training, train
from ctflow.flows.training_settings import read_settings
from tests.ctflow.flows.test_training import settings_file

__all__ = ["settings_file"]


@pytest.mark.gpu
def test_a_run_on_a_gpu_learns_and_goes_on_where_it_stopped(settings_file: Path) -> None:
    settings = read_settings(settings_file).model_copy(update={"device": "cuda"})
    seen: list[float] = []

    def keep(run: Training, loss: float) -> None:
        assert run.sampler.sets[0].is_cuda
        seen.append(loss)

    whole = train(settings.model_copy(update={"output": settings_file.parent / "whole"}), progress=keep)
    uninterrupted = seen.copy()
    seen.clear()
    train(settings, progress=lambda run, loss: keep(run, loss) or run.step == 5)
    resumed = train(settings, progress=keep)
    # Convolutions on a GPU add up in no fixed order; the noise and the crops are the same.
    assert seen == pytest.approx(uninterrupted, rel=1e-2)
    x, t = torch.randn(1, 1, 16, 16), torch.tensor([0.5])
    found, expected = (load_prior(prior).velocity(x, t) for prior in (resumed, whole))
    assert torch.allclose(found, expected, atol=2e-2)
