"""Start a velocity network from the weights of another one, of as many channels or of fewer."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ctflow.flows.network import VelocityNetwork


@torch.no_grad()
def start_from(network: VelocityNetwork, other: VelocityNetwork) -> list[str]:
    """Copy every parameter that fits from `other` into `network`; the names of those that do not fit.

    Parameters of the same name and shape are copied. Between networks of one and of two channels, whose
    images are real and complex, the first and last convolutions are copied too: each feature of the first
    one sees the complex image along a phase of its own, cos(a) real + sin(a) imaginary, with a from 0 to pi
    over the features, so that white noise excites it as before and no two features see the same; the last
    one predicts either channel as it did the one. What does not fit stays as it is.
    """
    theirs, missing = other.unet.state_dict(), []
    widened = network.settings.channels == 2 and other.settings.channels == 1
    same_patch = network.settings.patch == other.settings.patch
    for name, value in network.unet.state_dict().items():
        found = theirs.get(name)
        if found is not None and widened and same_patch:
            if name == "conv_in.weight":
                found = _along_phases(found)
            elif name in ("conv_out.weight", "conv_out.bias"):
                found = torch.cat((found, found))
        if found is None or found.shape != value.shape:
            missing.append(name)
        else:
            value.copy_(found)
    return missing


def _along_phases(weights: Tensor) -> Tensor:
    """(features, folded, ...) for a real image to (features, 2 folded, ...) for a complex one."""
    angles = math.pi * torch.arange(len(weights), dtype=weights.dtype, device=weights.device) / len(weights)
    angles = angles.reshape(-1, *(1,) * (weights.ndim - 1))
    return torch.cat((angles.cos() * weights, angles.sin() * weights), dim=1)
