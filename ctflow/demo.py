"""Two demonstrations: a simulated scan, reconstructed by three solvers into one picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ctflow.flows.prior import FlowPrior
from ctflow.metrics import psnr, ssim
from ctflow.phantoms import HELD_OUT
from ctflow.problem import InverseProblem
from ctflow.report import comparison
from ctflow.simulate import scan_settings, simulate_preset
from ctflow.simulate_mri import mr_settings, simulate_mr_preset
from ctflow.solvers import CGSENSE, FBP, TV, Flower, Solver, ZeroFilled

VIEWS, PHOTONS = 60, 4000.0
MR_PRESET = "mri-equispaced-4x"
# A seed from the range that no bundled prior was trained on.
_SEED = HELD_OUT + 7
Say = Callable[[str], Any]


@dataclass(frozen=True)
class Score:
    """How well one solver did on the demonstration, and how long it took in seconds."""

    solver: str
    psnr: float
    ssim: float
    seconds: float


def demo(
    prior: FlowPrior | None = None,
    path: str | Path = "demo.png",
    *,
    size: int = 256,
    steps: int = 50,
    say: Say | None = None,
) -> list[Score]:
    """Compare FBP, TV and FLOWER on a simulated scan of 60 views and 4000 photons a bin.

    The body is one that the bundled priors have not seen; its scan is computed on a finer grid than the
    reconstructions.

    Parameters
    ----------
    prior
        Of FLOWER; the bundled "ct-small" unless given.
    path
        Of the picture, a PNG.
    size
        Pixels along each side of the image.
    steps
        Of FLOWER.
    say
        Gets the table line by line, and at the end the picture's name.
    """
    say = say or (lambda line: None)
    bins = scan_settings("sparse-view").bins * size // scan_settings("sparse-view").size
    changes = {"size": size, "bins": bins, "views": VIEWS, "photons": PHOTONS}
    simulated = simulate_preset("sparse-view", [_SEED], **changes)
    title = f"{VIEWS} views, {PHOTONS:.0f} photons a bin"
    say(f"{title}, {size} x {size} pixels")
    solvers: dict[str, Solver] = {"FBP": FBP(), "TV": TV(), "FLOWER": Flower(steps=steps)}
    images, scores = _compared(
        simulated.problem, simulated.truth, solvers, prior or _bundled("ct-small"), say
    )
    pixel_size = scan_settings("sparse-view").pixel_size
    picture = comparison(images, simulated.truth[0], path, unit="1/mm", pixel_size=pixel_size, title=title)
    say(f"picture: {picture}")
    return scores


def demo_mri(
    prior: FlowPrior | None = None,
    path: str | Path = "demo-mri.png",
    *,
    size: int = 256,
    steps: int = 100,
    say: Say | None = None,
) -> list[Score]:
    """Compare zero-filling, CG-SENSE and FLOWER on the k-space of 8 coils, of which a quarter was sampled.

    The head is one that the bundled priors have not seen; its coil images are computed on a finer grid than
    the reconstructions. Magnitudes are compared.

    Parameters
    ----------
    prior
        Of FLOWER, of complex images; the bundled "mr-small" unless given.
    path, size, steps, say
        As for `demo`.
    """
    say = say or (lambda line: None)
    settings = mr_settings(MR_PRESET, size=size)
    simulated = simulate_mr_preset(MR_PRESET, [_SEED], size=size)
    title = f"{settings.coils} coils, {settings.acceleration:g}-fold undersampling"
    say(f"{title}, {size} x {size} pixels")
    solvers: dict[str, Solver] = {
        "zero-filled": ZeroFilled(),
        "CG-SENSE": CGSENSE(),
        "FLOWER": Flower(steps=steps),
    }
    images, scores = _compared(
        simulated.problem, simulated.truth, solvers, prior or _bundled("mr-small"), say
    )
    truth = simulated.truth[0].abs()
    picture = comparison(images, truth, path, pixel_size=settings.pixel_size, title=title)
    say(f"picture: {picture}")
    return scores


def _compared(
    problem: InverseProblem, truth: Tensor, solvers: Mapping[str, Solver], prior: FlowPrior, say: Say
) -> tuple[dict[str, Tensor], list[Score]]:
    """The only image of each solver, of complex ones the magnitude, and its score; says both as a table."""
    width = max(8, 1 + max(len(name) for name in solvers))
    say(f"{'solver':<{width}}{'PSNR':>10}{'SSIM':>8}{'time':>10}")
    images, scores = {}, []
    reference = _shown(truth[0])
    for name, solver in solvers.items():
        result = solver(problem, prior, generator=torch.Generator().manual_seed(0))
        images[name] = _shown(result.image[0])
        quality = float(psnr(images[name], reference)), float(ssim(images[name], reference))
        scores.append(Score(name, *quality, result.seconds["total"]))
        say(f"{name:<{width}}{quality[0]:>7.2f} dB{quality[1]:>8.3f}{result.seconds['total']:>8.1f} s")
    return images, scores


def _shown(image: Tensor) -> Tensor:
    return image.abs() if image.is_complex() else image


def _bundled(name: str) -> FlowPrior:
    from ctflow.flows.store import load_prior

    return load_prior(name)
