"""Fourier operators and coil maps of other packages, for `benchmarks.fourier`, where they are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

Pair = tuple[Callable[[], Any], Callable[[], Any]]


def cartesian_pairs(images: Tensor, kspace: Tensor, maps: Tensor, mask: Tensor) -> dict[str, Pair | str]:
    """Forward and adjoint of each peer, or why there is none: images (batch, *shape), mask (width,)."""
    return {
        name: _tried(make, images, kspace, maps, mask)
        for name, make in {"sigpy": _sigpy, "mrpro": _mrpro, "deepinv": _deepinv}.items()
    }


def espirit_maps(kspace: Tensor, calibration: int) -> dict[str, Callable[[], Tensor] | str]:
    """What estimates coil maps of k-space (coils, height, width) in each peer, or why nothing does."""
    return {
        "sigpy": _tried(_sigpy_maps, kspace, calibration),
        "bart": _tried(_bart_maps, kspace, calibration),
    }


def _tried(make: Callable[..., Any], *arguments: Any) -> Any:
    # A peer may be missing, or be there and not load; either way the table goes on without it.
    try:
        return make(*arguments)
    except (ImportError, RuntimeError, AttributeError, OSError) as error:
        return str(error).strip().splitlines()[0]


def _sigpy(images: Tensor, kspace: Tensor, maps: Tensor, mask: Tensor) -> Pair:
    import sigpy

    shape = tuple(images.shape)
    coils = (shape[0], len(maps), *shape[1:])
    spread = sigpy.linop.Reshape((shape[0], 1, *shape[1:]), shape)
    sense = sigpy.linop.Multiply((shape[0], 1, *shape[1:]), maps.numpy())
    transform = sigpy.linop.FFT(coils, axes=(-2, -1))
    forward = sigpy.linop.Multiply(coils, mask.numpy().astype(np.float32)) * transform * sense * spread
    x, y, adjoint = images.numpy(), kspace.numpy(), forward.H
    return (lambda: forward(x)), (lambda: adjoint(y))


def _mrpro(images: Tensor, kspace: Tensor, maps: Tensor, mask: Tensor) -> Pair:
    _declare_torchvision()
    from mrpro.operators import FastFourierOp, SensitivityOp

    operator = FastFourierOp(dim=(-2, -1)) @ SensitivityOp(maps[None, :, None])
    x, y = images[:, None, None], kspace[:, :, None]
    kept = mask.to(torch.float32)
    return (lambda: operator(x)[0].mul_(kept)), (lambda: operator.H(y * kept)[0])


def _deepinv(images: Tensor, kspace: Tensor, maps: Tensor, mask: Tensor) -> Pair:
    _declare_torchvision()
    import deepinv

    shape = tuple(images.shape[1:])
    physics = deepinv.physics.MultiCoilMRI(
        mask=mask.to(torch.float32).expand(1, 2, *shape), coil_maps=maps[None], img_size=(2, *shape)
    )
    x = torch.view_as_real(images).movedim(-1, 1).contiguous()
    y = torch.view_as_real(kspace).movedim(-1, 1).contiguous()
    return (lambda: physics.A(x)), (lambda: physics.A_adjoint(y))


def _declare_torchvision() -> None:
    """Name the operators that torchvision's build for GPUs cannot register beside a torch without one."""
    if not hasattr(torch.ops.torchvision, "nms"):
        library = torch.library.Library("torchvision", "FRAGMENT")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT.append(library)


_KEPT: list[Any] = []


def _sigpy_maps(kspace: Tensor, calibration: int) -> Callable[[], Tensor]:
    from sigpy.mri.app import EspiritCalib

    measured = kspace.numpy()

    def run() -> Tensor:
        app = EspiritCalib(measured, calib_width=calibration, crop=0, show_pbar=False)
        return torch.from_numpy(np.ascontiguousarray(app.run()))

    return run


def _bart_maps(kspace: Tensor, calibration: int) -> Callable[[], Tensor]:
    program = shutil.which("bart")
    if program is None:
        raise ImportError("bart is not installed")
    shape = kspace.shape
    folder = tempfile.TemporaryDirectory()
    _KEPT.append(folder)
    given, made = Path(folder.name) / "kspace", Path(folder.name) / "maps"
    # BART's axes are readout, two phase encodings, coils; its first axis is the fastest.
    given.with_suffix(".hdr").write_text(f"# Dimensions\n{shape[2]} {shape[1]} 1 {shape[0]}\n")
    given.with_suffix(".cfl").write_bytes(kspace.numpy().astype(np.complex64).tobytes())
    settings = ["-m", "1", "-r", str(calibration), "-c", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}

    def run() -> Tensor:
        command = [program, "ecalib", *settings, str(given), str(made)]
        subprocess.run(command, check=True, capture_output=True, env=environment)
        return torch.from_numpy(np.fromfile(made.with_suffix(".cfl"), np.complex64).reshape(shape))

    return run
