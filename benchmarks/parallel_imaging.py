"""Parallel imaging of BART's analytic phantom: ours beside `bart pics` and sigpy, in dB and seconds.

Run ``python -m benchmarks.parallel_imaging [--flower]``. The phantom's k-space is computed in closed form
(``bart phantom -x 256 -k -s 8``), so that no transform of ours made it; its largest root sum of squares is
1, the noise of a complex sample 0.01. Two samplings: every fourth column with 24 in the centre, and a
variable-density Poisson disc of 8 with a centre of 24 x 24. PSNR is of magnitudes against the noiseless
root sum of squares, with a range of 1. Seconds are of one thread, without the estimation of maps; the best
of three but for BART's maps and FLOWER.

BART's rows have its own maps and four weights each, all shown. Ours have our ESPIRiT maps and the defaults;
two rows have BART's maps, which tell the maps' share of a difference. The defaults were found on this very
phantom, so that BART's best of four is what to compare with. Without BART, which makes the phantom, there
is nothing to run; without sigpy, its row is left out. ``--flower`` adds FLOWER with mr-small.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctflow.problem import InverseProblem
from ctflow.solvers import make_solver
from operators import ComplexGaussianNoise
from operators.mri import CartesianFourier, centred_ifft, espirit, poisson_disc

SIDE, COILS, STD, CALIBRATION = 256, 8, 0.01, 24
WEIGHTS = (0.002, 0.005, 0.01, 0.02)
SOLVERS = ("zero-filled", "rss", "cg-sense", "wavelet", "tv", "grappa")
# dB that our wavelets are to reach.
BARS = {"equispaced 4x": 37.0, "Poisson 8x": 38.0}


def bart(folder: Path, *words: str) -> float:
    """Run BART in a folder, in one thread; the seconds that it took."""
    start = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(["bart", *words], cwd=folder, check=True, capture_output=True, env=environment)
    return time.perf_counter() - start


def read(path: Path) -> Tensor:
    """An array of BART's, its axes reversed, without those of length 1."""
    sizes = [int(n) for n in path.with_suffix(".hdr").read_text().splitlines()[1].split()]
    values = np.fromfile(path.with_suffix(".cfl"), np.complex64).reshape(sizes, order="F").squeeze()
    return torch.from_numpy(np.ascontiguousarray(values.T))


def write(path: Path, kspace: NDArray[np.complex64]) -> None:
    """K-space (coils, y, x) as BART has it: (x, y, 1, coils), column-major."""
    values = kspace.transpose(2, 1, 0)[:, :, None]
    path.with_suffix(".hdr").write_text(f"# Dimensions\n{' '.join(map(str, values.shape))}\n")
    values.ravel(order="F").tofile(path.with_suffix(".cfl"))


def best_of_three(run: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """The image, and the shortest time."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        image = run()
        times.append(time.perf_counter() - start)
    return image, min(times)


def masks() -> dict[str, Tensor]:
    """Where k-space is sampled, (SIDE, SIDE)."""
    columns = torch.zeros(SIDE, dtype=torch.bool)
    columns[::4] = True
    centre = slice((SIDE - CALIBRATION) // 2, (SIDE + CALIBRATION) // 2)
    columns[centre] = True
    generator = torch.Generator().manual_seed(0)
    disc = poisson_disc((SIDE, SIDE), 8.0, calibration=CALIBRATION, generator=generator).mask
    return {"equispaced 4x": columns.expand(SIDE, SIDE).contiguous(), "Poisson 8x": disc}


def main() -> int:
    """Print the table; 1 where our wavelets stay below their bar."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--flower", action="store_true", help="FLOWER with mr-small, which takes minutes")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if shutil.which("bart") is None:
        print("bart is not installed, which makes the phantom: apt-get install bart")
        return 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        bart(folder, "phantom", "-x", str(SIDE), "-k", "-s", str(COILS), "phantom")
        kspace = read(folder / "phantom")
        truth = torch.linalg.vector_norm(centred_ifft(kspace), dim=0)
        kspace, truth = kspace / truth.max(), truth / truth.max()
        noise = torch.randn(kspace.shape, generator=torch.Generator().manual_seed(0), dtype=kspace.dtype)

        def line(case: str, name: str, image: Tensor, seconds: float) -> float:
            error = (image.abs() - truth).square().mean()
            decibels = float(-10 * torch.log10(error))
            print(f"{case:15}{name:28}{decibels:8.2f}{seconds:9.2f}", flush=True)
            return decibels

        missed = []
        print(f"{'sampling':15}{'method':28}{'dB':>8}{'seconds':>9}")
        for case, mask in masks().items():
            print(f"{case}: {mask.numel() / mask.sum():.2f} fold in all")
            measured = (kspace + STD * noise) * mask
            maps, seconds = best_of_three(lambda y=measured: espirit(y, calibration=CALIBRATION, crop=0.0))
            print(f"{case:15}{'maps (ESPIRiT)':28}{'':8}{seconds:9.2f}")
            operator = CartesianFourier((SIDE, SIDE), mask, maps)
            problem = InverseProblem(operator, measured, ComplexGaussianNoise(STD, operator.sampled))
            whole_lines = bool((mask == mask[0]).all())
            for name in SOLVERS:
                if name == "grappa" and not whole_lines:
                    continue
                solver = make_solver(name)

                def ours(solver: object = solver, problem: InverseProblem = problem) -> Tensor:
                    return solver(problem, generator=torch.Generator().manual_seed(0)).image  # type: ignore[operator]

                decibels = line(case, name, *best_of_three(ours))
                if name == "wavelet" and decibels < BARS[case]:
                    missed.append(f"{case}: wavelet {decibels:.2f} dB, expected {BARS[case]}")
            if arguments.flower:
                from ctflow.flows.store import load_prior

                start = time.perf_counter()
                generator = torch.Generator().manual_seed(0)
                image = make_solver("flower")(problem, load_prior("mr-small"), generator=generator).image
                line(case, "flower, mr-small", image, time.perf_counter() - start)
            peers(folder, problem, lambda name, *found, case=case: line(case, name, *found))
    for text in missed:
        print(f"MISSED {text}")
    return 1 if missed else 0


def peers(folder: Path, problem: InverseProblem, line: Callable[[str, Tensor, float], float]) -> None:
    """BART's reconstructions with its own maps, ours with the same, and sigpy's where it is installed."""
    measured = problem.measurement
    write(folder / "samples", measured.numpy())
    bart(folder, "ecalib", "-m", "1", "-r", str(CALIBRATION), "-c", "0", "samples", "maps")
    operator = CartesianFourier((SIDE, SIDE), problem.operator.mask, read(folder / "maps"))
    theirs = InverseProblem(operator, measured, problem.noise)
    for name in ("wavelet", "tv"):
        start = time.perf_counter()
        image = make_solver(name)(theirs, generator=torch.Generator().manual_seed(0)).image
        line(f"{name}, BART's maps", image, time.perf_counter() - start)
    for name, kind in (("wavelets", "W:3:0"), ("total variation", "T:3:0")):
        for weight in WEIGHTS:
            words = ("pics", "-R", f"{kind}:{weight}", "-i100", "-S", "samples", "maps", "image")
            seconds = min(bart(folder, *words) for _ in range(3))
            line(f"bart {name} {weight:g}", read(folder / "image"), seconds)
    try:
        import sigpy.mri as peer
    except ImportError:
        print("sigpy is not installed: pip install sigpy")
        return
    samples = measured.numpy()
    maps = peer.app.EspiritCalib(samples, calib_width=CALIBRATION, crop=0, show_pbar=False).run()

    def wavelets() -> Tensor:
        app = peer.app.L1WaveletRecon(samples, maps, 0.002, max_iter=100, show_pbar=False)
        return torch.from_numpy(app.run())

    line("sigpy wavelets 0.002", *best_of_three(wavelets))


if __name__ == "__main__":
    sys.exit(main())
