"""A simulated low-dose scan of few views, reconstructed by three solvers into one picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ctflow.flows.prior import FlowPrior
from ctflow.metrics import psnr, ssim
from ctflow.phantoms import HELD_OUT
from ctflow.report import comparison
from ctflow.simulate import scan_settings, simulate_preset
from ctflow.solvers import FBP, TV, Flower

VIEWS, PHOTONS = 60, 4000.0
# A seed from the range that no bundled prior was trained on.
_SEED = HELD_OUT + 7


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
    say: Callable[[str], Any] | None = None,
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
    if prior is None:
        from ctflow.flows.store import load_prior

        prior = load_prior("ct-small")
    bins = scan_settings("sparse-view").bins * size // scan_settings("sparse-view").size
    changes = {"size": size, "bins": bins, "views": VIEWS, "photons": PHOTONS}
    simulated = simulate_preset("sparse-view", [_SEED], **changes)
    truth = simulated.truth[0]
    say(f"{VIEWS} views, {PHOTONS:.0f} photons a bin, {size} x {size} pixels")
    say(f"{'solver':<8}{'PSNR':>10}{'SSIM':>8}{'time':>10}")
    images, scores = {}, []
    for name, solver in (("FBP", FBP()), ("TV", TV()), ("FLOWER", Flower(steps=steps))):
        generator = torch.Generator().manual_seed(0)
        result = solver(simulated.problem, prior, generator=generator)
        images[name] = result.image[0]
        quality = float(psnr(images[name], truth)), float(ssim(images[name], truth))
        scores.append(Score(name, *quality, result.seconds["total"]))
        say(f"{name:<8}{quality[0]:>7.2f} dB{quality[1]:>8.3f}{result.seconds['total']:>8.1f} s")
    title = f"{VIEWS} views, {PHOTONS:.0f} photons a bin"
    pixel_size = scan_settings("sparse-view").pixel_size
    picture = comparison(images, truth, path, unit="1/mm", pixel_size=pixel_size, title=title)
    say(f"picture: {picture}")
    return scores
