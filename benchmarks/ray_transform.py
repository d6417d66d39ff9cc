"""How fast the ray transforms are: ms per image, and the ratio to ASTRA's `linear` on the same machine.

Run ``python -m benchmarks.ray_transform``. Every round times every row once, so that a busy moment meets all
of them; the best of the rounds counts. ASTRA works image by image in one thread, with its projector kept and
its arrays linked, so its time per image is that of a batch of one.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from benchmarks.resident import peak, reset_peak
from operators import Detector, ImageGrid, ParallelBeam, RayTransform

REFERENCE = "astra"
TARGETS = {"forward": 0.06, "adjoint": 0.12}  # at batch 8, with two threads


@dataclass(frozen=True)
class Case:
    """A scan of one image size."""

    name: str
    size: int
    views: int
    bins: int

    def operator(self, engine: str) -> RayTransform:
        """Return the scan's ray transform."""
        geometry = ParallelBeam.uniform(self.views, Detector(self.bins, pitch=1.0))
        return RayTransform(geometry, ImageGrid((self.size, self.size)), projector=engine)


CASES = (Case("256", 256, 180, 363), Case("LoDoPaB", 362, 1000, 513))


@dataclass
class Row:
    """One line of the table: a call on a batch, and what it took."""

    case: Case
    direction: str
    engine: str
    batch: int
    call: Callable[[Tensor], Tensor]
    argument: Tensor
    seconds: float = field(default=float("inf"))
    extra_bytes: float = field(default=0.0)

    def measure(self) -> None:
        """Time the call once and keep the best."""
        begin = time.perf_counter()
        self.call(self.argument)
        self.seconds = min(self.seconds, (time.perf_counter() - begin) / self.batch)

    def measure_memory(self) -> None:
        """Note the peak of resident memory during a call, beyond the input and the output."""
        before = reset_peak()
        result = self.call(self.argument)
        self.extra_bytes = peak() - before - result.numel() * result.element_size()


def rows(case: Case, engines: list[str], batches: list[int]) -> list[Row]:
    """Return the rows of one case, the reference first."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for engine in [REFERENCE, *(name for name in engines if name != REFERENCE)]:
        operator = case.operator(engine)
        for batch in [1] if engine == REFERENCE else batches:
            image = torch.rand(batch, *operator.domain_shape, generator=generator)
            sinogram = torch.rand(batch, *operator.range_shape, generator=generator)
            made.append(Row(case, "forward", engine, batch, operator, image))
            made.append(Row(case, "adjoint", engine, batch, operator.adjoint, sinogram))
    return made


def table(measured: list[Row]) -> str:
    """Return the rows as text."""
    head = "{:<9}{:<10}{:<8}{:>5}{:>10}{:>8}{:>10}  {}"
    lines = [head.format("case", "direction", "engine", "batch", "ms/image", "ratio", "extra MB", "target")]
    for row in measured:
        reference = next(
            other.seconds
            for other in measured
            if (other.case, other.direction, other.engine) == (row.case, row.direction, REFERENCE)
        )
        ratio = row.seconds / reference
        verdict = ""
        if row.engine == "joseph" and row.batch == 8:
            wanted = TARGETS[row.direction]
            verdict = f"<= {wanted:g}: {'met' if ratio <= wanted else 'MISSED'}"
        lines.append(
            f"{row.case.name:<9}{row.direction:<10}{row.engine:<8}{row.batch:>5}{1e3 * row.seconds:>10.2f}"
            f"{ratio:>8.3f}{row.extra_bytes / 1e6:>10.1f}  {verdict}"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time the ray transforms against ASTRA's linear projector.")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7, help="how often each row is timed; the best counts")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--engines", nargs="+", default=["joseph"], help="beside astra: joseph, odl")
    parser.add_argument("--cases", nargs="+", default=[case.name for case in CASES])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    measured: list[Row] = []
    for case in CASES:
        if case.name not in arguments.cases:
            continue
        some = rows(case, arguments.engines, arguments.batches)
        for row in some:
            row.call(row.argument)  # compiles, or loads what was compiled
        for row in some:
            row.measure_memory()
        for _ in range(arguments.rounds):
            for row in some:
                row.measure()
        measured += some
    print(f"{arguments.threads} threads, best of {arguments.rounds} interleaved rounds, float32")
    print(table(measured))


if __name__ == "__main__":
    main()
