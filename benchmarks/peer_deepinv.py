"""DPS and DiffPIR of deepinv beside ours: the same network, ray transform, data and number of steps.

Run ``python -m benchmarks.peer_deepinv [--prior ct-small] [--size 256] [--steps 100] [--images 2]``, where
deepinv is installed (``pip install 'ctflow[peers]'``); where it is not, one line says so and the exit code
is 0. Held-out phantoms, parallel beam, 60 views, white Gaussian noise of one percent of the largest line
integral; the operator is scaled to unit norm. Each library runs with its own defaults but for the steps:
deepinv works on images in [0, 1] and ours in [-1, 1], so that step lengths and weights, which neither paper
fixes for tomography, do not mean quite the same; a second row of our DiffPIR has deepinv's weight. PSNR is
relative to the largest value of each true image, seconds are per image.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.priors import find_prior
from benchmarks.sparse_view import SIZE, phantoms
from ctflow.flows.prior import FlowPrior
from ctflow.metrics import psnr, ssim
from ctflow.problem import InverseProblem
from ctflow.simulate import scan_settings
from ctflow.solvers import DPS, DiffPIR
from operators import GaussianNoise

# Of DiffPIR in our units, what deepinv's default of 7 is in its own: it weighs twice in the proximal, and a
# variance in [0, 1] is a fourth of that in [-1, 1].
THEIR_WEIGHT = 7 * 2 / 4


def deepinv() -> Any:
    """The package, or None where it is not installed."""
    if importlib.util.find_spec("deepinv") is None:
        return None
    # PyPI's torchvision is built for CUDA; beside a torch for CPUs its import asks for operators that only
    # the library that fails to load would register. It is enough that their names are known.
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import deepinv as package

    package.keep_alive = library
    return package


class Denoiser(torch.nn.Module):
    """A flow prior as deepinv's denoisers are: (image in [0, 1] plus noise, its sigma) to clean image."""

    def __init__(self, prior: FlowPrior) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, x: Tensor, sigma: float | Tensor, **_: Any) -> Tensor:
        """The clean image."""
        level = 2 * torch.as_tensor(sigma, dtype=x.dtype).reshape(-1, 1, 1, 1)
        # Noise of that level on the linear path: x1 + level x0, scaled.
        time_of_level = (1 / (1 + level)).reshape(-1).expand(len(x))
        return (self.prior.destination((2 * x - 1) / (1 + level), time_of_level) + 1) / 2


def data(size: int, count: int, views: int) -> tuple[InverseProblem, Tensor]:
    """Scans of images in units of the operator of unit norm, and the images."""
    images = phantoms(count, 0)
    images = torch.nn.functional.interpolate(images[:, None], (size, size), mode="bilinear", antialias=True)[
        :, 0
    ]
    standard = scan_settings("sparse-view")
    settings = scan_settings("sparse-view", size=size, views=views, bins=standard.bins * size // SIZE)
    operator = settings.operator()
    operator = operator / operator.norm()
    clean = operator(images)
    noise = GaussianNoise(0.01 * float(clean.max()))
    return InverseProblem(operator, noise.sample(clean, torch.Generator().manual_seed(0)), noise), images


def theirs(
    package: Any, problem: InverseProblem, prior: FlowPrior, steps: int
) -> dict[str, Callable[[], Tensor]]:
    """Solvers of deepinv, each from nothing to images in physical units, shape (count, height, width)."""
    representation = prior.representation.fitted(problem)
    scale, offset = float(representation.scale), float(representation.offset)
    # image = low + width u for u in [0, 1], and y - A low = width A u.
    low, width = offset - scale, 2 * scale
    background = problem.operator(torch.full(problem.image_shape, low))
    y = ((problem.measurement - background) / width)[:, None]
    std = float(problem.precision().max()) ** -0.5 / width
    physics = package.physics.LinearPhysics(
        A=lambda u, **_: problem.operator(u.squeeze(1).float())[:, None],
        A_adjoint=lambda v, **_: problem.operator.adjoint(v.squeeze(1).float())[:, None],
        noise_model=package.physics.GaussianNoise(std),
    )
    first = ((problem.initial() - low) / width)[:, None]
    denoiser = Denoiser(prior)

    def dps() -> Tensor:
        solver = package.sampling.DPS(denoiser, num_steps=steps, rng=torch.Generator())
        return solver(y, physics, x_init=tuple(first.shape), seed=0)

    def diffpir() -> Tensor:
        fidelity = package.optim.data_fidelity.L2()
        return package.sampling.DiffPIR(denoiser, fidelity, max_iter=steps)(y, physics, seed=1, x_init=first)

    return {
        name: lambda run=run: low + width * run().squeeze(1).float()  # type: ignore[misc]
        for name, run in (("dps", dps), ("diffpir", diffpir))
    }


def main() -> int:
    """Run both libraries and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prior", default="ct-small", help="a name or path, or white or untrained")
    parser.add_argument("--size", type=int, default=SIZE)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--views", type=int, default=60)
    arguments = parser.parse_args()
    try:
        package = deepinv()
    except (ImportError, RuntimeError) as error:
        print(f"deepinv is installed but cannot be imported: {error}", file=sys.stderr)
        return 2
    if package is None:
        print("deepinv is not installed, so there is nothing to compare with: pip install 'ctflow[peers]'")
        return 0
    try:
        prior = find_prior(arguments.prior)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    problem, truth = data(arguments.size, arguments.images, arguments.views)
    steps = arguments.steps
    solvers = {
        "dps": {"ctflow": DPS(steps)},
        "diffpir": {"ctflow": DiffPIR(steps), "ctflow, weighed": DiffPIR(steps, weight=THEIR_WEIGHT)},
    }
    runs: dict[tuple[str, str], Callable[[], Tensor]] = {}
    for name, run in theirs(package, problem, prior, arguments.steps).items():
        runs[name, f"deepinv {package.__version__}"] = run
        for label, solver in solvers[name].items():
            generator = torch.Generator().manual_seed(0)
            runs[name, label] = lambda s=solver, g=generator: s(problem, prior, generator=g).image  # type: ignore[misc]
    print(f"{len(truth)} images of {arguments.size}^2, {arguments.views} views, {arguments.steps} steps")
    print(f"{'solver':10}{'library':16}{'PSNR':>7}{'SSIM':>8}{'misfit':>8}{'s/image':>9}")
    for (name, library), run in runs.items():
        start = time.perf_counter()
        image = run()
        seconds = (time.perf_counter() - start) / len(truth)
        quality = f"{float(psnr(image, truth).mean()):7.2f}{float(ssim(image, truth).mean()):8.4f}"
        misfit = float(problem.data_fit(image).mean())
        print(f"{name:10}{library:16}{quality}{misfit:8.2f}{seconds:9.2f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
