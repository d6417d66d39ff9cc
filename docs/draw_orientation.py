"""Draw docs/orientation.png: an image with its axes, the rays of two views, and the sinogram.

python docs/draw_orientation.py
"""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib
import numpy as np
import torch

from operators import Detector, ImageGrid, ParallelBeam, RayTransform

matplotlib.use("Agg")

THETA = math.radians(30)


def letter() -> torch.Tensor:
    """An F, which no rotation or mirror leaves as it is; 1/mm, (64, 64)."""
    image = torch.zeros(64, 64)
    image[12:52, 20:26] = 1
    image[12:18, 20:46] = 1
    image[28:34, 20:38] = 1
    return 0.02 * image


def main() -> None:
    """Draw it."""
    import matplotlib.pyplot as plt

    image, grid, detector = letter(), ImageGrid((64, 64), 1.0), Detector(91, 1.0)
    geometry = ParallelBeam.uniform(180, detector)
    sinogram = RayTransform(geometry, grid)(image)
    left, right, bottom, top = grid.extent
    figure, (place, lines) = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained")
    place.imshow(image, cmap="gray_r", extent=(left, right, bottom, top), vmax=0.06)
    place.set(xlim=(-60, 60), ylim=(-60, 60), xlabel="x in mm", ylabel="y in mm", aspect="equal")
    place.text(left + 1, top - 5, "image[0, 0]", fontsize=8)
    place.text(right - 1, bottom + 2, "image[63, 63]", fontsize=8, ha="right")
    place.add_patch(plt.Rectangle((left, bottom), right - left, top - bottom, fill=False, lw=0.6))
    place.plot(0, 0, "k+")
    for theta, colour, reach in ((0.0, "tab:blue", 46), (THETA, "tab:red", 38)):
        along, across = (
            np.array([math.cos(theta), math.sin(theta)]),
            np.array([math.sin(theta), -math.cos(theta)]),
        )
        name = f"θ = {math.degrees(theta):.0f}°"
        for t in (-30, 0, 30):
            ends = np.stack([along * t - reach * across, along * t + reach * across])
            place.plot(*ends.T, color=colour, lw=0.8)
            place.text(
                *(along * t - (reach + 1) * across),
                f"t = {t}",
                color=colour,
                fontsize=7,
                ha="center",
                va="bottom",
            )
        place.annotate("", along * 48, along * 34, arrowprops={"arrowstyle": "->", "color": colour})
        place.text(*(along * 50), f"{name}, t", color=colour, fontsize=8, ha="center", va="bottom")
        lines.axhline(math.degrees(theta), color=colour, lw=0.8)
    place.set_title("x cos θ + y sin θ = t", fontsize=10)
    half = detector.bins * detector.pitch / 2
    lines.imshow(sinogram, cmap="gray_r", extent=(-half, half, 180, 0), aspect="auto")
    lines.set(xlabel="t in mm: bin 0 is on the left", ylabel="θ in degrees: view 0 is on top")
    lines.set_title("sinogram[view, bin]", fontsize=10)
    figure.savefig(Path(__file__).with_name("orientation.png"), dpi=90)


if __name__ == "__main__":
    main()
