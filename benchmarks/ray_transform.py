"""How fast the ray transforms are: ms per image, and the ratio to ASTRA's on the same machine.

Run ``python -m benchmarks.ray_transform``. Every round times every row once, so that a busy moment meets all
of them; the best of the rounds counts. ASTRA works image by image in one thread, with its projector kept and
its arrays linked, so its time per image is that of a batch of one: `linear` for parallel rays, and
`line_fanflat` for fans.

``--all`` asks more, in about two minutes: parallel and fan beams of LoDoPaB's size against fixed times, a
cone beam, and how the time grows with the image, the views and the threads, as a table and as a plot in
runs/scaling.png, or where ``--plot`` says.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.resident import peak, reset_peak
from operators import Detector, FanBeam, ImageGrid, ParallelBeam, RayTransform

REFERENCE = "astra"
TARGETS = {"forward": 0.06, "adjoint": 0.12}  # at batch 8, with two threads
MILLISECONDS = {"parallel": 20.0, "fan": 30.0}  # an image, at batch 8 and LoDoPaB's size
SINGLE = 0.15  # of ASTRA's time, at batch 1


@dataclass(frozen=True)
class Case:
    """A scan of one image size."""

    name: str
    size: int
    views: int
    bins: int
    beam: str = "parallel"

    def operator(self, engine: str) -> RayTransform:
        """Return the scan's ray transform."""
        grid = ImageGrid((self.size, self.size))
        if self.beam == "parallel":
            parallel = ParallelBeam.uniform(self.views, Detector(self.bins, pitch=1.0))
            return RayTransform(parallel, grid, projector=engine)
        # A fan that sees as much of the image as the parallel rays.
        near, far = 2.0 * self.size, 3.0 * self.size
        detector = Detector(self.bins, pitch=1.05 * far / near)
        fan = FanBeam.circular(self.views, source_to_axis=near, source_to_detector=far, detector=detector)
        return RayTransform(fan, grid, projector=engine)


CASES = (Case("256", 256, 180, 363), Case("LoDoPaB", 362, 1000, 513))
BOTH = (CASES[1], Case("fan", 362, 1000, 513, "fan"))


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


def relative(row: Row, ratio: float) -> str:
    """Say whether our engine is as fast as it should be beside ASTRA."""
    if row.engine != "joseph" or row.batch != 8:
        return ""
    wanted = TARGETS[row.direction]
    return f"<= {wanted:g}: {'met' if ratio <= wanted else 'MISSED'}"


def absolute(row: Row, ratio: float) -> str:
    """Say whether our engine is as fast as it should be by the clock, and one image beside ASTRA."""
    if row.engine != "joseph" or row.batch not in (1, 8):
        return ""
    if row.batch == 1:
        return f"ratio <= {SINGLE:g}: {'met' if ratio <= SINGLE else 'MISSED'}"
    wanted = MILLISECONDS[row.case.beam]
    return f"<= {wanted:g} ms: {'met' if 1e3 * row.seconds <= wanted else 'MISSED'}"


def table(measured: list[Row], verdict: Callable[[Row, float], str] = relative) -> str:
    """Return the rows as text, with what a verdict says of each."""
    head = "{:<9}{:<10}{:<8}{:>5}{:>10}{:>8}{:>10}  {}"
    lines = [head.format("case", "direction", "engine", "batch", "ms/image", "ratio", "extra MB", "target")]
    for row in measured:
        reference = next(
            other.seconds
            for other in measured
            if (other.case, other.direction, other.engine) == (row.case, row.direction, REFERENCE)
        )
        ratio = row.seconds / reference
        lines.append(
            f"{row.case.name:<9}{row.direction:<10}{row.engine:<8}{row.batch:>5}{1e3 * row.seconds:>10.2f}"
            f"{ratio:>8.3f}{row.extra_bytes / 1e6:>10.1f}  {verdict(row, ratio)}"
        )
    return "\n".join(lines)


def measure(cases: tuple[Case, ...], engines: list[str], batches: list[int], rounds: int) -> list[Row]:
    """Return the rows of some cases, measured."""
    measured: list[Row] = []
    for case in cases:
        some = rows(case, engines, batches)
        for row in some:
            row.call(row.argument)  # compiles, or loads what was compiled
        for row in some:
            row.measure_memory()
        for _ in range(rounds):
            for row in some:
                row.measure()
        measured += some
    return measured


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time the ray transforms against ASTRA's projectors.")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7, help="how often each row is timed; the best counts")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--engines", nargs="+", default=["joseph"], help="beside astra: joseph, odl, sparse")
    parser.add_argument("--cases", nargs="+", default=[case.name for case in CASES])
    parser.add_argument("--all", action="store_true", help="fans, a cone beam and how times grow, as well")
    parser.add_argument(
        "--plot",
        type=Path,
        default=Path("runs/scaling.png"),
        help="with --all: the PNG file of how times grow",
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.all:
        from benchmarks.ray_transform_scaling import report

        print(f"{arguments.threads} threads, best of {arguments.rounds} interleaved rounds, float32")
        print(table(measure(BOTH, arguments.engines, [1, 8], arguments.rounds), absolute))
        print(report(arguments.rounds, arguments.plot))
        return
    cases = tuple(case for case in CASES if case.name in arguments.cases)
    measured = measure(cases, arguments.engines, arguments.batches, arguments.rounds)
    print(f"{arguments.threads} threads, best of {arguments.rounds} interleaved rounds, float32")
    print(table(measured))


if __name__ == "__main__":
    main()
