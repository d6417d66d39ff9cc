"""The velocity network: sizes, preconditioning, precision."""

from __future__ import annotations

import pytest
import torch

from ctflow.flows.network import NetworkSettings, VelocityNetwork
from ctflow.flows.path import AffinePath

TINY = NetworkSettings(widths=(8, 16), layers=1, patch=2, groups=4)


def tiny(path: AffinePath | None = None, settings: NetworkSettings = TINY) -> VelocityNetwork:
    """A small network with reproducible weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return VelocityNetwork(settings, path or AffinePath.linear()).eval()


@pytest.mark.parametrize("path", [AffinePath.linear(), AffinePath.cosine()], ids=lambda p: p.name)
def test_without_a_correction_the_velocity_is_that_of_a_gaussian(path: AffinePath) -> None:
    network = tiny(path)
    torch.nn.init.zeros_(network.unet.conv_out.weight)
    torch.nn.init.zeros_(network.unet.conv_out.bias)
    generator = torch.Generator().manual_seed(1)
    data = TINY.data_mean + TINY.data_std * torch.randn(4000, 1, 4, 4, generator=generator)
    noise = torch.randn(data.shape, generator=generator)
    for t in (0.2, 0.6):
        x = path.interpolate(noise, data, t)
        error = path.target_velocity(noise, data, t) - network(x, torch.full((len(x),), t))
        # The best linear predictor leaves an error that is uncorrelated with x, and centred.
        assert abs(float(error.detach().mean())) < 0.02
        assert abs(float((error * (x - x.mean())).detach().mean())) < 0.02


@pytest.mark.parametrize("size", [(4, 4), (8, 12), (20, 4)])
def test_any_multiple_is_a_size(size: tuple[int, int]) -> None:
    x = torch.randn(2, 1, *size, generator=torch.Generator().manual_seed(0))
    assert tiny()(x, torch.tensor([0.1, 0.9])).shape == x.shape
    assert TINY.multiple == 4


def test_a_sample_does_not_depend_on_its_batch() -> None:
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.0, 0.5, 1.0])
    together = tiny()(x, t)
    alone = torch.cat([tiny()(x[i : i + 1], t[i : i + 1]) for i in range(3)])
    assert torch.allclose(together, alone, atol=1e-5)


def test_differentiable_in_x_and_t() -> None:
    x = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    t = torch.tensor([0.4], requires_grad=True)
    tiny()(x, t).square().sum().backward()
    assert x.grad is not None
    assert t.grad is not None
    assert float(x.grad.abs().sum()) > 0
    assert float(t.grad.abs()) > 0


def test_bfloat16_is_close_to_single_precision() -> None:
    single, half = tiny(), tiny()
    half.precision = "bfloat16"
    x = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.5])
    assert half(x, t).dtype == torch.float32
    assert torch.allclose(half(x, t), single(x, t), atol=0.05)
    assert not torch.equal(half(x, t), single(x, t))


def test_double_precision_input_keeps_its_dtype() -> None:
    x = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert tiny()(x, torch.tensor([0.5], dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"widths": (9,)}, "widths: expected multiples of 8, found"),
        ({"patch": 0}, "patch: expected at least 1, found 0"),
        ({"data_std": 0.0}, "data_std: expected a positive value"),
    ],
)
def test_bad_settings(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NetworkSettings(**settings)


def test_bad_precision() -> None:
    with pytest.raises(ValueError, match="expected float32 or bfloat16, found 'float16'"):
        VelocityNetwork(TINY, AffinePath.linear(), "float16")
