"""Triton's kernels without a GPU: interpreted in a process of their own, or compiled for a GPU elsewhere."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from operators import ImageGrid, RayTransform
from operators.ct.geometry import Geometry


@contextmanager
def interpreter() -> Iterator[ProcessPoolExecutor]:
    """Start a process in which Triton interprets its kernels; Triton reads the variable when imported."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TRITON_INTERPRET", "1")
            pool.submit(abs, 0).result()
        yield pool


def project(
    geometry: Geometry, grid: ImageGrid, images: np.ndarray, sinograms: np.ndarray, device: str = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """Line integrals of the images, and the adjoint of the sinograms."""
    operator = RayTransform(geometry, grid, projector="triton")
    image, sinogram = torch.from_numpy(images).to(device), torch.from_numpy(sinograms).to(device)
    return operator(image).cpu().numpy(), operator.adjoint(sinogram).cpu().numpy()


class Recorder:
    """Stands in for a module of kernels and keeps what it was asked to launch."""

    INTERPRETED = True

    def __init__(self, kernels: Any) -> None:
        self.kernels = kernels
        self.launches: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        if not hasattr(getattr(self.kernels, name), "run"):
            return getattr(self.kernels, name)
        return _Launch(self, name)


class _Launch:
    def __init__(self, recorder: Recorder, name: str) -> None:
        self.recorder, self.name = recorder, name

    def __getitem__(self, launch_grid: tuple[int, ...]) -> Any:
        assert all(size > 0 for size in launch_grid)
        return lambda *args, **constants: self.recorder.launches.append((self.name, args, constants))


def compiled(kernel: Any, arguments: tuple[Any, ...], constants: dict[str, Any], capability: int) -> Any:
    """Compile a kernel for a GPU of some compute capability, as a launch with these arguments would."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    pointers = {torch.float32: "*fp32", torch.int32: "*i32", torch.int64: "*i64"}
    signature, fixed = {}, {}
    options = {name: value for name, value in constants.items() if name not in kernel.arg_names}
    for name, value in zip(kernel.arg_names, arguments, strict=False):
        if isinstance(value, Tensor):
            signature[name] = pointers[value.dtype]
        elif isinstance(value, int) and value == 1:
            signature[name], fixed[name] = "constexpr", 1
        else:
            signature[name] = "i32" if isinstance(value, int) else "fp32"
    for name in kernel.arg_names[len(arguments) :]:
        signature[name], fixed[name] = "constexpr", constants[name]
    source = ASTSource(kernel, signature, fixed)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
