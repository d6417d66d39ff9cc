"""The priors that benchmarks run on: bundled or saved ones, and stand-ins to try a benchmark with."""

from __future__ import annotations

import torch

from ctflow.flows.analytic import GaussianFlow
from ctflow.flows.network import NetworkSettings, VelocityNetwork
from ctflow.flows.path import AffinePath
from ctflow.flows.prior import FlowPrior
from ctflow.flows.store import load_prior
from ctflow.representation import Representation

# Soft tissue at the middle of the network's range, as in the bundled priors.
_SOFT_TISSUE = Representation(0.02, 0.02)


def find_prior(name: str) -> FlowPrior:
    """`load_prior(name)`; or "untrained", a small network, or "white", a Gaussian without correlations."""
    path = AffinePath.linear()
    if name == "untrained":
        torch.manual_seed(0)
        network = VelocityNetwork(NetworkSettings(widths=(16, 32)), path).eval().requires_grad_(False)
        return FlowPrior(network, path, _SOFT_TISSUE, multiple=network.settings.multiple, name=name)
    if name == "white":
        flow = GaussianFlow(torch.tensor([[[-0.5]]]), torch.tensor([[[0.25]]]), path)

        def velocity(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            # One pixel is as good as another.
            return flow.velocity(x.reshape(-1, 1, 1, 1), t.repeat_interleave(x[0].numel())).reshape(x.shape)

        return FlowPrior(velocity, path, _SOFT_TISSUE, name=name)
    return load_prior(name)
