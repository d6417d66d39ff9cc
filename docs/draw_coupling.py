"""Draw docs/coupling.png: the coupling behind a velocity of flow matching, by computed tomography.

python docs/draw_coupling.py

Noise X0 and data X1 of two kinds of pairs, one rising and one falling together, are mixed on the linear path.
A network that has learned flow matching well gives v_t(x) = E[X1 - X0 | X_t = x], and of the pairs nothing
else is left. But v carries the quantiles of X0 along (first panel), which makes every p_t; each p_t is a
projection of the joint density of (X0, X1), at the angle theta with tan(theta) = t / (1 - t) (second panel):
together a parallel-beam scan of a quarter turn. `ctflow.flows.inverse.coupling_1d` reconstructs it by our
own `RayTransform` (last panel), from the product of the marginals, which independent pairs would have. The
numbers are total variation distances to the true density.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import torch
from torch import Tensor

from ctflow.flows.inverse import coupling_1d

matplotlib.use("Agg")

# Of two Gaussian kinds of pairs: shares, means and standard deviations of (X0, X1), covariances of the two.
SHARES = torch.tensor([0.4, 0.6], dtype=torch.float64)
MEANS = torch.tensor([[-1.0, 1.5], [0.8, -1.0]], dtype=torch.float64)
STDS = torch.tensor([[0.6, 0.5], [0.7, 0.8]], dtype=torch.float64)
CROSS = torch.tensor([0.21, -0.28], dtype=torch.float64)


def velocity(x: Tensor, t: float) -> Tensor:
    """E[X1 - X0 | X_t = x]."""
    way = torch.tensor([1 - t, t], dtype=torch.float64)
    variance = (STDS * way).square().sum(1) + 2 * t * (1 - t) * CROSS
    shared = t * STDS[:, 1].square() - (1 - t) * STDS[:, 0].square() + (1 - 2 * t) * CROSS
    deviation = x[:, None] - MEANS @ way
    share = torch.softmax(SHARES.log() - (deviation.square() / variance + variance.log()) / 2, dim=1)
    return (share * (MEANS[:, 1] - MEANS[:, 0] + shared / variance * deviation)).sum(1)


def density(grid: Tensor) -> Tensor:
    """The true p(X0, X1) on a grid for both, shape (cells, cells)."""
    points = torch.cartesian_prod(grid, grid)
    total = torch.zeros(len(points), dtype=torch.float64)
    for share, mean, std, cross in zip(SHARES, MEANS, STDS, CROSS, strict=True):
        covariance = torch.diag(std.square()) + cross * torch.eye(2, dtype=torch.float64).flip(0)
        law = torch.distributions.MultivariateNormal(mean, covariance)
        total += share * law.log_prob(points).exp()
    return total.reshape(len(grid), len(grid))


def first_quantiles(count: int) -> Tensor:
    """Evenly spaced quantiles of X0, by bisection of its distribution function."""
    level = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    low, high = torch.full_like(level, -8), torch.full_like(level, 8)
    for _ in range(60):
        middle = (low + high) / 2
        below = (SHARES * torch.special.ndtr((middle[:, None] - MEANS[:, 0]) / STDS[:, 0])).sum(1) < level
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return middle


def main() -> None:
    """Draw it, and print how far each density is from the true one."""
    import matplotlib.pyplot as plt

    found = coupling_1d(velocity, first_quantiles(8001), steps=200)
    exact, side = density(found.grid), float(found.grid[1] - found.grid[0])
    product = exact.sum(1)[:, None] * exact.sum(0) * side**2
    figure, axes = plt.subplots(1, 5, figsize=(16, 3.6), layout="constrained")
    axes[0].plot(found.times, found.quantiles[:, 200::400], color="tab:blue", lw=0.6)
    axes[0].set(xlabel="t", ylabel="quantiles of $X_t$", title="what the velocity carries along")
    # Of the image at theta, along s: X_t stretched by cos(theta) + sin(theta).
    angles = torch.atan2(found.times, 1 - found.times)
    stretched = found.quantiles * (angles.sin() + angles.cos())[:, None]
    rows = torch.stack([torch.histc(row, 90, -4.5, 4.5) for row in stretched])
    axes[1].imshow(rows, cmap="gray_r", extent=(-4.5, 4.5, 90, 0), aspect="auto", interpolation="nearest")
    axes[1].set(xlabel="s", ylabel="θ in degrees", title="its laws are projections")
    low, high = float(found.grid[0]), float(found.grid[-1])
    names = ("independent pairs", "true pairs", "reconstructed")
    for axis, name, image in zip(axes[2:], names, (product, exact, found.density), strict=True):
        distance = float((image - exact).abs().sum()) * side**2 / 2
        axis.imshow(image.mT.flip(0), cmap="gray_r", extent=(low, high, low, high), vmax=float(exact.max()))
        axis.set(
            xlabel="$X_0$", ylabel="$X_1$", title=name if name == "true pairs" else f"{name}: {distance:.2f}"
        )
        print(f"{name}: total variation distance {distance:.3f}")
    mixed = float(found.moments[2][1])
    print(f"E[X0 X1]: {mixed:.4f}, in truth {float((SHARES * (MEANS.prod(1) + CROSS)).sum()):.4f}")
    figure.savefig(Path(__file__).with_name("coupling.png"), dpi=90)


if __name__ == "__main__":
    main()
