"""Pictures of scans: source, detector, rays, rotation axis and image, to scale."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from operators.ct.geometry.checks import Float64Array
from operators.ct.geometry.grid import ImageGrid
from operators.ct.geometry.places import bin_places
from operators.ct.geometry.trajectory import Diverging, Geometry

_COLOURS = {"rays": "tab:orange", "detector": "tab:blue", "source": "tab:red", "image": "0.4"}


def draw(geometry: Geometry, ax: Any = None, grid: ImageGrid | None = None, view: int = 0) -> Any:
    """Draw one view of a scan and the path of its source; see ``ParallelBeam.plot``."""
    size = geometry.dimensions
    if grid is not None and len(grid.shape) != size:
        raise ValueError(
            f"plot: expected a grid of {size} dimensions for a {type(geometry).__name__}, "
            f"found {grid.describe()}"
        )
    if not -geometry.views <= view < geometry.views:
        raise ValueError(f"plot: expected a view below {geometry.views}, found {view}")
    if ax is None:
        from matplotlib import pyplot

        ax = pyplot.figure(figsize=(6, 6)).add_subplot(projection="3d" if size == 3 else None)
    if (ax.name == "3d") != (size == 3):
        raise ValueError(f"plot: expected axes in {size} dimensions for a {type(geometry).__name__}")

    one = geometry.subset([view])
    rows, bins = (geometry.detector.rows or 1) / 2, geometry.detector.bins / 2
    # Around the panel; a row of bins is its own way there and back.
    there, back = np.linspace(-bins, bins, 33), np.linspace(bins, -bins, 33)
    low, high = np.full(33, -rows), np.full(33, rows)
    if size == 2:
        outline = bin_places(one, there)[0]
        targets = bin_places(one, np.linspace(-bins, bins, 7))[0]
    else:
        outline = bin_places(
            one, np.concatenate((there, back, [-bins])), np.concatenate((low, high, [-rows]))
        )[0]
        corners = np.array(list(product((-bins, 0.0, bins), (-rows, rows))))
        targets = bin_places(one, *corners.T)[0]
    start = one.vectors()[0, :size]
    if isinstance(one, Diverging):
        origins = np.broadcast_to(start, targets.shape)
        _line(ax, geometry.sources, "path of the source", color=_COLOURS["source"], linewidth=0.6)  # type: ignore[attr-defined]
        _line(ax, start[None], "source", color=_COLOURS["source"], marker="o", linestyle="none")
    else:
        # Parallel rays come from anywhere: so far that the detector does not hide the image.
        away = 0.6 * np.ptp(outline, axis=0).max() + (0.0 if grid is None else 0.5 * _diagonal(grid))
        origins, targets, outline = targets - away * start, targets + away * start, outline + away * start
    gaps = np.full_like(targets, np.nan)
    rays = np.stack((origins, targets, gaps), axis=1).reshape(-1, size)
    _line(ax, rays, "rays", color=_COLOURS["rays"], linewidth=0.7)
    _line(ax, outline, "detector", color=_COLOURS["detector"], linewidth=2.5)
    _line(ax, outline[:1], "bin 0", color=_COLOURS["detector"], marker="s", linestyle="none")
    if size == 2:
        _line(ax, np.zeros((1, 2)), "rotation axis", color="black", marker="+", linestyle="none")
    else:
        heights = np.concatenate((outline[:, 2], origins[:, 2], targets[:, 2]))
        axis = np.array([[0, 0, heights.min()], [0, 0, heights.max()]])
        _line(ax, axis, "rotation axis", color="black", linestyle="dashed", linewidth=1.0)
    if grid is not None:
        _line(ax, _edges(grid), "image", color=_COLOURS["image"], linewidth=1.0)
    ax.set(xlabel="x / mm", ylabel="y / mm", aspect="equal")
    if size == 3:
        ax.set_zlabel("z / mm")
    # Above the axes, where it hides nothing.
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize="small", frameon=False)
    return ax


def _line(ax: Any, points: Float64Array, label: str, **style: Any) -> None:
    ax.plot(*np.asarray(points).T, label=label, **style)


def _diagonal(grid: ImageGrid) -> float:
    return float(np.linalg.norm(np.diff(np.reshape(grid.extent, (-1, 2)), axis=1)))


def _edges(grid: ImageGrid) -> Float64Array:
    """Return the outline of the image, or the twelve edges of the volume with gaps between them."""
    ends = np.reshape(grid.extent, (-1, 2))
    (left, right), (bottom, top) = ends[:2]
    square = np.array([[left, bottom], [right, bottom], [right, top], [left, top], [left, bottom]])
    if len(ends) == 2:
        return square
    gap = np.full((1, 3), np.nan)
    parts = []
    for z in ends[2]:
        parts += [np.column_stack((square, np.full(5, z))), gap]
    for corner in square[:4]:
        parts += [np.array([[*corner, z] for z in ends[2]]), gap]
    return np.concatenate(parts[:-1])
