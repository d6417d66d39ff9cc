"""Weights of one network as the start of another."""

from __future__ import annotations

import torch

from ctflow.flows.network import NetworkSettings, VelocityNetwork
from ctflow.flows.path import AffinePath
from ctflow.flows.warm_start import start_from


def network(seed: int, **sizes: object) -> VelocityNetwork:
    settings = NetworkSettings(**({"widths": (8, 16), "groups": 4} | sizes))  # type: ignore[arg-type]
    torch.manual_seed(seed)
    return VelocityNetwork(settings, AffinePath.linear())


def test_a_network_of_the_same_sizes_becomes_the_other() -> None:
    new, old = network(0), network(1)
    assert start_from(new, old) == []
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([0.3, 0.7])
    assert torch.equal(new(x, t), old(x, t))


def test_a_second_channel_joins_without_changing_the_first_features() -> None:
    new, old = network(0, channels=2), network(1)
    assert start_from(new, old) == []
    # The first feature looks along phase 0, and noise excites every feature as before.
    real, imaginary = new.unet.conv_in.weight.detach().chunk(2, dim=1)
    before = old.unet.conv_in.weight.detach()
    assert torch.equal(real[0], before[0])
    assert not bool(imaginary[0].any())
    assert torch.allclose(real.square() + imaginary.square(), before.square(), atol=1e-7)
    for part in new.unet.conv_out.weight.detach().chunk(2):
        assert torch.equal(part, old.unet.conv_out.weight.detach())


def test_what_does_not_fit_stays_and_is_named() -> None:
    new, old = network(0, widths=(8, 32)), network(1)
    before = {name: value.clone() for name, value in new.unet.state_dict().items()}
    missing = start_from(new, old)
    assert "conv_in.weight" not in missing
    assert any(name.startswith("mid_block") for name in missing)
    after = new.unet.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in missing)
    patched = start_from(network(0, patch=4), old)
    assert {"conv_in.weight", "conv_out.weight", "conv_out.bias"} == set(patched)
