"""How fast Fourier sampling and coil maps are, beside bare transforms, FINUFFT, sigpy, mrpro, deepinv, BART.

Run ``python -m benchmarks.fourier``. Every round times every row of a table once, so that a busy moment meets
all of them; the best of the rounds counts. One thread, complex64. Peers that are not installed are named and
left out. Where a bar is missed, a line says so and the exit code is 1.

- Cartesian: an image through 15 coils, 320 x 320, every fourth column and 24 in the middle, which our
  operator makes use of, and without a mask in rows of their own; ratios to one bare FFT of the same stack of
  coil images, all columns. That writes into memory that is new for every call, which for 4 images costs more
  than the transforms themselves; a row has the same transforms one coil after another, in memory that is used
  again.
- Nonuniform: 64 golden-angle spokes of 512 samples, 256 x 256 through 8 coils; ratios to FINUFFT's own plans
  at 1e-6 with default settings, coils multiplied and combined; the error is that of an image of noise against
  sums written out, at every sixteenth sample.
- Toeplitz: A^H A of the same, over the pair of FINUFFT's and over our own.
- ESPIRiT: maps of 8 coils from 24 x 24 samples, 256 x 256, against sigpy and BART; how well they correlate
  with the true ones within the object.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from typing import Any

import finufft
import torch
from torch import Tensor

from benchmarks.fourier_peers import cartesian_pairs, espirit_maps
from operators.mri import CartesianFourier, NonuniformFourier, centred_fft, golden_angle

CARTESIAN = (1.25, 1.35)  # forward and adjoint, over a bare FFT
NONUNIFORM, NONUNIFORM_ERROR = 0.21, 1e-4
TOEPLITZ = 0.1


def timed(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Seconds of each call, the best of interleaved rounds."""
    best = dict.fromkeys(calls, float("inf"))
    with torch.no_grad():
        for call in calls.values():
            call()  # compiles, plans, or loads what was compiled
        for _ in range(rounds):
            for name, call in calls.items():
                begin = time.perf_counter()
                call()
                best[name] = min(best[name], time.perf_counter() - begin)
    return best


class Report:
    """Prints rows, and remembers the bars that were missed."""

    def __init__(self) -> None:
        self.missed: list[str] = []

    def row(self, name: str, seconds: float, ratio: float, bar: float | None = None, more: str = "") -> None:
        """Print a line; ratio to the first of its table."""
        verdict = "" if bar is None else f"  <= {bar:g}: {'met' if ratio <= bar else 'MISSED'}"
        print(f"  {name:<34}{1e3 * seconds:>10.2f} ms{ratio:>8.3f}{verdict}{more}")
        if bar is not None and ratio > bar:
            self.missed.append(f"{name}: {ratio:.3f}, expected at most {bar:g}")

    def skipped(self, name: str, reason: str) -> None:
        """Print that a peer is not there."""
        print(f"  {name:<34}skipped: {reason}")


def cartesian(batch: int, rounds: int, report: Report) -> None:
    """The table of Cartesian sampling for a batch of images."""
    shape, coils = (320, 320), 15
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(coils, *shape, dtype=torch.complex64, generator=generator)
    images = torch.randn(batch, *shape, dtype=torch.complex64, generator=generator)
    mask = torch.zeros(shape[1], dtype=torch.bool)
    mask[::4] = True
    mask[148:172] = True
    kspace = torch.randn(batch, coils, *shape, dtype=torch.complex64, generator=generator) * mask
    operator, whole = CartesianFourier(shape, mask, maps), CartesianFourier(shape, None, maps)
    stack = kspace.flatten(0, 1)
    calls: dict[str, Callable[[], Any]] = {
        "bare FFT": lambda: torch.fft.fftn(kspace, dim=(-2, -1)),
        "ours forward": lambda: operator(images),
        "ours adjoint": lambda: operator.adjoint(kspace),
        "ours A^H A": lambda: operator.gram(images),
        "ours forward, no mask": lambda: whole(images),
        "ours adjoint, no mask": lambda: whole.adjoint(kspace),
        "bare FFT, coil by coil": lambda: [torch.fft.fftn(coil) for coil in stack],
    }
    peers = cartesian_pairs(images, kspace, maps, mask)
    for name, pair in peers.items():
        if not isinstance(pair, str):
            calls[f"{name} forward"], calls[f"{name} adjoint"] = pair
    seconds = timed(calls, rounds)
    kept = f"{int(mask.sum())} of {shape[1]} columns sampled"
    print(
        f"\nCartesian, 320 x 320 x 15 coils, batch {batch}, {kept}, over one bare FFT of the stack, unmasked"
    )
    bars = dict(zip(("ours forward", "ours adjoint"), CARTESIAN, strict=True))
    for name, value in seconds.items():
        report.row(name, value, value / seconds["bare FFT"], bars.get(name))
    for name, pair in peers.items():
        if isinstance(pair, str):
            report.skipped(name, pair)


def nonuniform(rounds: int, report: Report) -> None:
    """The tables of nonuniform sampling and of its Gram."""
    n, coils = 256, 8
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(coils, n, n, dtype=torch.complex64, generator=generator)
    image = torch.randn(n, n, dtype=torch.complex64, generator=generator)
    path = golden_angle(64, 512, n).frequencies
    operator = NonuniformFourier((n, n), path, maps)
    library = NonuniformFourier((n, n), path, maps, engine="finufft")
    kspace = operator(image)
    gram = operator.gram
    forward, adjoint = finufft_pair(n, path, maps, image, kspace)
    calls: dict[str, Callable[[], Any]] = {
        "FINUFFT 1e-6 forward": forward,
        "FINUFFT 1e-6 adjoint": adjoint,
        "ours forward": lambda: operator(image),
        "ours adjoint": lambda: operator.adjoint(kspace),
        'ours forward, engine="finufft"': lambda: library(image),
        'ours adjoint, engine="finufft"': lambda: library.adjoint(kspace),
        "ours Toeplitz A^H A": lambda: gram(image),
    }
    seconds = timed(calls, rounds)
    print("\nNonuniform, 256 x 256 x 8 coils, 64 x 512 samples, over FINUFFT at 1e-6 with default settings")
    for name in list(calls)[:-1]:
        base = seconds["FINUFFT 1e-6 adjoint" if "adjoint" in name else "FINUFFT 1e-6 forward"]
        report.row(
            name, seconds[name], seconds[name] / base, NONUNIFORM if name in list(calls)[2:4] else None
        )
    some = path.reshape(-1, 2)[::16]
    lines = torch.arange(-(n // 2), n - n // 2, dtype=torch.float64)
    rows, columns = (torch.exp(-2j * math.pi / n * some[:, i : i + 1] * lines) for i in range(2))
    exact = torch.einsum("ma,cab,mb->cm", rows, (maps * image).to(torch.complex128), columns) / n
    for name, values in (("ours", kspace), ('engine="finufft"', library(image))):
        found = values.reshape(coils, -1)[:, ::16].to(torch.complex128)
        error = float((found - exact).norm() / exact.norm())
        fine = error < NONUNIFORM_ERROR
        print(
            f"  {f'{name}, error':<34}{error:>13.1e}  < {NONUNIFORM_ERROR:g}: {'met' if fine else 'MISSED'}"
        )
        if not fine:
            report.missed.append(f"{name}, error: {error:.1e}, expected below {NONUNIFORM_ERROR:g}")
    print("\nToeplitz A^H A of the same")
    value = seconds["ours Toeplitz A^H A"]
    pairs = {
        "over FINUFFT's pair at 1e-6": seconds["FINUFFT 1e-6 forward"] + seconds["FINUFFT 1e-6 adjoint"],
        "over our own pair": seconds["ours forward"] + seconds["ours adjoint"],
    }
    for i, (name, pair) in enumerate(pairs.items()):
        report.row(f"Toeplitz {name}", value, value / pair, TOEPLITZ if i == 0 else None)
    normal = operator.adjoint(kspace)
    print(f"  {'difference from the pair':<34}{float((gram(image) - normal).norm() / normal.norm()):>13.1e}")


def finufft_pair(
    n: int, path: Tensor, maps: Tensor, image: Tensor, kspace: Tensor
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Forward and adjoint by FINUFFT's plans alone, made beforehand."""
    phases = (2 * math.pi / n * path.reshape(-1, 2)).to(torch.float32).T.contiguous().numpy()
    plans = []
    for kind, sign in ((2, -1), (1, 1)):
        plan = finufft.Plan(kind, (n, n), len(maps), 1e-6, sign, dtype="complex64", nthreads=1)
        plan.setpts(*phases)
        plans.append(plan)
    shares, pixels, samples = maps.numpy(), image.numpy(), kspace.reshape(len(maps), -1).numpy()
    conjugates = shares.conj()
    return (
        lambda: plans[0].execute(shares * pixels),
        lambda: (conjugates * plans[1].execute(samples)).sum(0),
    )


def coil_maps(rounds: int, report: Report) -> None:
    """The table of ESPIRiT."""
    from operators.mri.espirit import espirit

    n, coils, calibration = 256, 8, 24
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, n, dtype=torch.float64)] * 2, indexing="ij")
    angles = 2 * math.pi * torch.arange(coils, dtype=torch.float64).reshape(-1, 1, 1) / coils
    east, north = x - 1.3 * angles.cos(), y - 1.3 * angles.sin()
    maps = torch.polar(1 / (east.square() + north.square()), torch.atan2(north, east) + angles)
    maps = maps / torch.linalg.vector_norm(maps, dim=0)
    inside = (x / 0.7).square() + (y / 0.85).square() < 1
    image = inside * (1 + 0.5 * torch.cos(9 * x) * torch.sin(7 * y)) + 0.3 * ((x - 0.2).square() + y**2 < 0.1)
    kspace = centred_fft(maps * image).to(torch.complex64)
    generator = torch.Generator().manual_seed(0)
    kspace += (
        0.005 * float(image.max()) * torch.randn(kspace.shape, dtype=torch.complex64, generator=generator)
    )
    peers = espirit_maps(kspace, calibration)
    calls: dict[str, Callable[[], Any]] = {
        "ours": lambda: espirit(kspace, calibration=calibration, crop=0.0),
        **{name: run for name, run in peers.items() if not isinstance(run, str)},
    }
    seconds = timed(calls, max(rounds // 5, 1))
    print("\nESPIRiT, 256 x 256 x 8 coils, 24 x 24 samples: times over ours; correlation with the true maps")
    for name, call in calls.items():
        likeness = correlation(call(), maps)[inside]
        more = f"   mean {float(likeness.mean()):.5f}, least {float(likeness.min()):.4f}"
        report.row(name, seconds[name], seconds[name] / seconds["ours"], more=more)
    for name, run in peers.items():
        if isinstance(run, str):
            report.skipped(name, run)


def correlation(found: Tensor, maps: Tensor) -> Tensor:
    """|<found, maps>| over their norms, for each pixel."""
    found = found.to(maps.dtype)
    norms = torch.linalg.vector_norm(found, dim=0) * torch.linalg.vector_norm(maps, dim=0)
    return (found.conj() * maps).sum(0).abs() / norms.clamp_min(1e-30)


def main() -> int:
    """Measure and print."""
    tables = ("cartesian", "nonuniform", "espirit")
    parser = argparse.ArgumentParser(description="Time Fourier sampling and coil maps against their peers.")
    parser.add_argument("--rounds", type=int, default=25, help="how often each row is timed; the best counts")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4], help="of the Cartesian tables")
    parser.add_argument("--tables", nargs="+", choices=tables, default=tables)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    report = Report()
    print(f"one thread, best of {arguments.rounds} interleaved rounds, complex64")
    if "cartesian" in arguments.tables:
        for batch in arguments.batches:
            cartesian(batch, arguments.rounds, report)
    if "nonuniform" in arguments.tables:
        nonuniform(arguments.rounds, report)
    if "espirit" in arguments.tables:
        coil_maps(arguments.rounds, report)
    for line in report.missed:
        print(f"missed: {line}")
    return 1 if report.missed else 0


if __name__ == "__main__":
    sys.exit(main())
