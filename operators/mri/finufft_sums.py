"""Fourier sums at nonuniform frequencies by FINUFFT, or cuFINUFFT on a GPU."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from operators.mri.products import as_array

_WORK_A_THREAD = 2**14  # samples or pixels; fewer are not worth waking one
_PLANS = 8  # kept for each operator
_IMAGES = 64  # transformed at once
# What FINUFFT can do on a grid of 1.25 times the size; better needs 2, at up to five times the cost.
_SMALL_GRID = {torch.complex64: 4e-5, torch.complex128: 1e-8}


class FinufftSums:
    """y_j = sum_n x_n exp(-2 pi i k_j n / N) / sqrt(N0 N1 ...) for images (count, *N), n from -(N // 2) on.

    FINUFFT's types 2 and 1 (Barnett, Magland and af Klinteberg, SIAM J. Sci. Comput. 41(5), 2019), which are
    transposes of each other to rounding at any tolerance. Plans are kept for each precision, number of images
    and thread that calls.

    Parameters
    ----------
    image_shape
        One to three axes.
    trajectory
        Frequencies k in cycles per field of view, shape (samples, axes), on the device of the images.
    tolerance
        Relative error asked of FINUFFT; for None 1e-4 in single precision and 1e-12 in double.
    """

    def __init__(self, image_shape: tuple[int, ...], trajectory: Tensor, tolerance: float | None) -> None:
        self.image_shape, self._tolerance = image_shape, tolerance
        extent = torch.tensor(image_shape, dtype=torch.float64, device=trajectory.device)
        self._phases = 2 * math.pi * trajectory.double() / extent
        self._scale = 1 / math.sqrt(math.prod(image_shape))
        self._plans: OrderedDict[Any, Any] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_plans": OrderedDict(), "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def forward(self, images: Tensor) -> Tensor:
        """Images (count, *image_shape) to samples (count, samples)."""
        samples = images.new_empty((len(images), len(self._phases)))
        return self._apply(2, images, samples)

    def adjoint(self, samples: Tensor) -> Tensor:
        """The conjugate transpose of forward: (count, samples) to (count, *image_shape)."""
        return self._apply(1, samples, samples.new_empty((len(samples), *self.image_shape)))

    def _apply(self, kind: int, given: Tensor, result: Tensor) -> Tensor:
        for begin in range(0, len(given), _IMAGES):
            some, out = given[begin : begin + _IMAGES], result[begin : begin + _IMAGES]
            plan = self._plan(kind, given.dtype, len(some))
            if given.device.type == "cpu":
                plan.execute(as_array(some), out=out.numpy())
            else:
                plan.execute(some.detach().resolve_conj().contiguous(), out=out)
        return result.mul_(self._scale)

    def _plan(self, kind: int, dtype: torch.dtype, count: int) -> Any:
        device, work = self._phases.device, count * max(len(self._phases), math.prod(self.image_shape))
        threads = min(torch.get_num_threads(), max(work // _WORK_A_THREAD, 1))
        stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else None
        key = (kind, dtype, count, threads, threading.get_ident(), stream)
        with self._lock:
            if key in self._plans:
                self._plans.move_to_end(key)
                return self._plans[key]
        tolerance = self._tolerance or (1e-4 if dtype == torch.complex64 else 1e-12)
        columns = [column.to(dtype.to_real()).contiguous() for column in self._phases.unbind(-1)]
        sign = -1 if kind == 2 else 1
        what = (kind, self.image_shape, count, tolerance, sign, str(dtype).removeprefix("torch."))
        if device.type == "cuda":
            plan = _library("cufinufft").Plan(*what, gpu_device_id=device.index or 0, gpu_stream=stream)
            plan.setpts(*columns)
        else:
            oversampling = 1.25 if tolerance >= _SMALL_GRID[dtype] else 2.0
            plan = _library("finufft").Plan(*what, upsampfac=oversampling, nthreads=threads)
            plan.setpts(*(column.numpy() for column in columns))
        with self._lock:
            self._plans[key] = plan
            while len(self._plans) > _PLANS:
                self._plans.popitem(last=False)
        return plan


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        extra = "finufft" if name == "finufft" else "'ctflow[gpu]'"
        raise ImportError(
            f"nonuniform Fourier sums need {name}, which is not installed: pip install {extra}"
        ) from error
