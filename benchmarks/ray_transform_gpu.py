"""How fast the ray transforms are on a GPU: ms per image or volume, and the ratio to ASTRA's CUDA kernels.

Run ``python -m benchmarks.ray_transform_gpu`` on a machine with a CUDA device. Times are those of device
events around a call, on tensors that are on the device already; every round times every row once, and the
best of the rounds counts. ASTRA runs as projector "astra", on the memory of the tensors; its fan beams go
slice by slice, because a stack of them would be a cone beam. Its adjoint is approximate, and its projections
interpolate with 8-bit fractions; ours are exact transposes of each other: the column "match" is
|<A x, y> - <x, A' y>| / (|A x| |y|).
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from operators import ConeBeam, Detector, FanBeam, ImageGrid, ParallelBeam, RayTransform
from operators.ct.geometry import Geometry


@dataclass(frozen=True)
class Case:
    """A scan, and how many images of it are projected at once."""

    name: str
    geometry: Geometry
    grid: ImageGrid
    batch: int


def cases() -> list[Case]:
    """Parallel and fan beams at LoDoPaB's size in batches of 16, and a cone beam of 256^3 voxels."""
    distances: dict[str, Any] = {"source_to_axis": 595.0, "source_to_detector": 1085.6}
    fan = FanBeam.circular(1000, **distances, detector=Detector(736, 1.29))
    cone = ConeBeam.circular(360, **distances, detector=Detector((384, 384), 1.6))
    return [
        Case("parallel", ParallelBeam.uniform(1000, Detector(513, 1.0)), ImageGrid((362, 362)), 16),
        Case("fan", fan, ImageGrid((362, 362), 0.7), 16),
        Case("cone", cone, ImageGrid((256, 256, 256), 1.0), 1),
    ]


@dataclass
class Row:
    """One line of the table: a call on a batch, and what it took."""

    case: Case
    direction: str
    engine: str
    call: Callable[[Tensor], Tensor]
    argument: Tensor
    match: float
    ms: float = field(default=math.inf)

    def measure(self) -> None:
        """Time the call once between two device events and keep the best, per image."""
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        self.call(self.argument)
        end.record()
        end.synchronize()
        self.ms = min(self.ms, begin.elapsed_time(end) / self.case.batch)


def rows(case: Case) -> list[Row]:
    """Return the rows of one case, ASTRA's first; every call has run once."""
    generator = torch.Generator("cuda").manual_seed(0)
    ours = RayTransform(case.geometry, case.grid, projector="triton")
    image = torch.rand(case.batch, *ours.domain_shape, device="cuda", generator=generator)
    sinogram = torch.rand(case.batch, *ours.range_shape, device="cuda", generator=generator)
    made = []
    theirs = RayTransform(case.geometry, case.grid, projector="astra")
    for engine, operator in (("astra", theirs), ("triton", ours)):
        forward, adjoint = operator, operator.adjoint
        projected, back = forward(image).double(), adjoint(sinogram).double()
        gap = float((projected * sinogram).sum() - (image * back).sum())
        match = abs(gap) / float(projected.norm() * sinogram.double().norm())
        made.append(Row(case, "forward", engine, forward, image, match))
        made.append(Row(case, "adjoint", engine, adjoint, sinogram, match))
    return made


def table(measured: list[Row]) -> str:
    """Return the rows as text."""
    lines = [
        f"{'case':<10}{'direction':<10}{'engine':<8}{'batch':>5}{'ms/image':>10}{'ratio':>8}{'match':>10}"
    ]
    for row in measured:
        reference = next(
            other.ms
            for other in measured
            if (other.case.name, other.direction, other.engine) == (row.case.name, row.direction, "astra")
        )
        lines.append(
            f"{row.case.name:<10}{row.direction:<10}{row.engine:<8}{row.case.batch:>5}{row.ms:>10.3f}"
            f"{row.ms / reference:>8.3f}{row.match:>10.1e}"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time the ray transforms on a GPU against ASTRA's.")
    parser.add_argument("--rounds", type=int, default=10, help="how often each row is timed; the best counts")
    parser.add_argument("--cases", nargs="+", default=["parallel", "fan", "cone"])
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("benchmarks.ray_transform_gpu needs a CUDA device, and PyTorch finds none")
    measured: list[Row] = []
    for case in cases():
        if case.name not in arguments.cases:
            continue
        some = rows(case)
        for _ in range(arguments.rounds):
            for row in some:
                row.measure()
        measured += some
    print(f"{torch.cuda.get_device_name()}, best of {arguments.rounds} interleaved rounds, float32")
    print(table(measured))


if __name__ == "__main__":
    main()
