"""Fourier operators on a GPU are those of the CPU, and their pairs are transposes there too."""

from __future__ import annotations

import pytest
import torch

from operators.linear import LinearOperator
from operators.mri import CartesianFourier, NonuniformFourier, nonuniform_fourier, radial
from tests.operators.examples import random

SHAPE = (24, 21)


def examples(dtype: torch.dtype) -> dict[str, LinearOperator]:
    """Small operators of every kind, with coil maps that differ over the batch."""
    maps = random((2, 3, *SHAPE), dtype, 1)
    mask = random(SHAPE[1:], torch.float64, 2) > 0
    path = radial(7, 32, SHAPE).frequencies
    plain = NonuniformFourier(SHAPE, path, maps)
    return {
        "cartesian": CartesianFourier(SHAPE, mask, maps),
        "nonuniform": plain,
        "toeplitz": plain.gram,
    }


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
@pytest.mark.parametrize("name", ["cartesian", "nonuniform", "toeplitz"])
def test_devices_agree_and_pairs_are_transposes(name: str, dtype: torch.dtype) -> None:
    on_cpu = examples(dtype)[name]
    on_gpu = examples(dtype)[name].to("cuda")
    x = random((2, *on_cpu.domain_shape), dtype, 3)
    y = on_cpu(random((2, *on_cpu.domain_shape), dtype, 4))
    double = dtype == torch.complex128
    # The gridding of the CPU and cuFINUFFT have errors of their own in single precision.
    within = 1e-10 if double else 1e-3 if name != "cartesian" else 1e-5
    for apply, reference, z in ((on_gpu, on_cpu, x), (on_gpu.adjoint, on_cpu.adjoint, y)):
        found, expected = apply(z.cuda()), reference(z)
        assert found.is_cuda
        assert float((found.cpu() - expected).norm()) <= within * float(expected.norm())
    forward, back = on_gpu(x.cuda()), on_gpu.adjoint(y.cuda())
    gap = torch.vdot(y.cuda().flatten(), forward.flatten()) - torch.vdot(back.flatten(), x.cuda().flatten())
    scale = float(forward.norm()) * float(y.norm())
    assert float(gap.abs()) <= (1e-12 if double else 1e-5) * scale


@pytest.mark.gpu
def test_a_trajectory_s_gradient_agrees() -> None:
    path = radial(5, 16, SHAPE).frequencies.float()
    image = random(SHAPE, torch.complex64, 5)

    def gradient(device: str) -> torch.Tensor:
        moved = path.to(device, copy=True).requires_grad_()
        nonuniform_fourier(image.to(device), moved).abs().square().sum().backward()
        assert moved.grad is not None
        return moved.grad.cpu()

    expected = gradient("cpu")
    assert float((gradient("cuda") - expected).norm()) <= 1e-2 * float(expected.norm())
