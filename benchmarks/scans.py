"""The scans that solvers are compared on: computed tomography and magnetic resonance, of held-out images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from benchmarks import sparse_view, undersampled
from ctflow.problem import InverseProblem
from ctflow.simulate import scan_settings, simulate_scan
from ctflow.solvers import ZeroFilled

PHOTONS = 1e4


@dataclass(frozen=True)
class Data:
    """A problem of several images, and the true ones."""

    problem: InverseProblem
    truth: Tensor

    def on(self, device: str) -> Data:
        """The same on a device."""
        return Data(self.problem.to(device), self.truth.to(device))


class Case(Protocol):
    """One way to scan."""

    name: str
    modality: str

    def images(self, folder: Path | None, size: int, tuning: int, test: int) -> tuple[Tensor, Tensor]:
        """Images to tune baselines on and to test with, as `scan` takes them."""
        ...

    def scan(self, images: Tensor, size: int, seed: int) -> Data:
        """Scans of the images, with a generator for each."""
        ...

    def tuned(self, data: Data) -> dict[str, Any]:
        """The classical solvers with the setting of the best mean PSNR."""
        ...


@dataclass(frozen=True)
class Tomography:
    """Parallel beams at so many views over an angle, 10^4 photons a bin; see `benchmarks.sparse_view`."""

    name: str
    views: int
    span: float = math.pi
    modality = "ct"

    def images(self, folder: Path | None, size: int, tuning: int, test: int) -> tuple[Tensor, Tensor]:
        """Phantoms at twice the size, or slices at the size."""
        if folder is not None:
            both = sparse_view.slices(folder, max(tuning, test))
        else:
            both = sparse_view.phantoms(tuning, 1000), sparse_view.phantoms(test, 0)
        scale = size / sparse_view.SIZE
        if scale != 1:
            resized = [
                torch.nn.functional.interpolate(
                    x[:, None], scale_factor=scale, mode="bilinear", antialias=True
                )
                for x in both
            ]
            both = resized[0][:, 0], resized[1][:, 0]
        return both[0][:tuning], both[1][:test]

    def scan(self, images: Tensor, size: int, seed: int) -> Data:
        """Scans of the images."""
        standard = scan_settings("sparse-view")
        settings = scan_settings(
            "sparse-view",
            views=self.views,
            photons=PHOTONS,
            span=self.span,
            size=size,
            bins=standard.bins * size // standard.size,
        )
        generators = [torch.Generator().manual_seed(seed + i) for i in range(len(images))]
        found = simulate_scan(images, settings.operator(), settings.noise(), generators)
        return Data(found.problem, found.truth)

    def tuned(self, data: Data) -> dict[str, Any]:
        """Filtered backprojection, SIRT, CGLS and total variation."""
        return sparse_view.tuned(data)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Resonance:
    """A preset of `ctflow.simulate_mri`; see `benchmarks.undersampled`."""

    name: str
    preset: str
    modality = "mri"

    def images(self, folder: Path | None, size: int, tuning: int, test: int) -> tuple[Tensor, Tensor]:
        """Heads: phantoms at twice the size, or slices at the size."""
        if folder is not None:
            both = undersampled.slices(folder, max(tuning, test), size)
        else:
            both = undersampled.phantoms(tuning, 1000, size), undersampled.phantoms(test, 0, size)
        return both[0][:tuning], both[1][:test]

    def scan(self, images: Tensor, size: int, seed: int) -> Data:
        """Scans of the images."""
        found = undersampled.scan(images, self.preset, size, seed)
        return Data(found.problem, found.truth)

    def tuned(self, data: Data) -> dict[str, Any]:
        """Zero-filling, and CG-SENSE, wavelets and total variation with the setting of the best mean PSNR."""
        found: dict[str, Any] = {"zero-filled": ZeroFilled()}
        for name, solvers in undersampled.own().items():
            methods = {setting: undersampled.method_of(solver) for setting, solver in solvers.items()}
            found[name] = solvers[undersampled.best(methods, data)]  # type: ignore[arg-type]
        return found


CASES: tuple[Case, ...] = (
    Tomography("60 views", 60),
    Tomography("30 views", 30),
    Tomography("120 degrees", 120, math.radians(120)),
    Resonance("mri 4x", "mri-random-4x"),
    Resonance("mri 8x", "mri-random-8x"),
)
