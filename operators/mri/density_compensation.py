"""Weights that make up for the density of a trajectory's samples, for gridding; no adjoint contains them.

Weights are areas in squared cycles per field of view: on the Cartesian grid they are 1, and A^H (w y) is an
image in the units of A's domain.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.mri.frequencies import check_trajectory

_NEAR = 1e-6  # samples nearer than this, in cycles per field of view, are one


def voronoi(trajectory: Tensor, image_shape: Sequence[int]) -> Tensor:
    """The area nearest to each sample, shape of the trajectory without its last axis, float64.

    Samples at one place share its area. The outermost cells end half a sample's distance beyond the samples:
    at an ellipse, or at a rectangle where samples fill its corners.

    Parameters
    ----------
    trajectory
        Cycles per field of view, shape (*samples, 2).
    image_shape
        (height, width).

    References
    ----------
    Rasche et al., IEEE Trans. Med. Imaging 18(5), 1999.
    """
    from scipy.spatial import QhullError, Voronoi

    if check_trajectory(trajectory, image_shape, any_extent=True) != 2:
        raise ValueError(f"trajectory: expected 2 axes, found shape {tuple(trajectory.shape)}")
    points = trajectory.detach().double().cpu().reshape(-1, 2).numpy()
    _, index, which, counts = np.unique(
        np.round(points / _NEAR), axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    places = points[index]
    try:
        diagram = Voronoi(np.concatenate([places, _mirrored(places)]))
    except QhullError as error:
        raise ValueError("trajectory: expected samples that span a plane, found fewer or a line") from error
    areas = np.empty(len(places))
    for i in range(len(places)):
        corners = diagram.vertices[diagram.regions[diagram.point_region[i]]]
        x, y = (corners - places[i]).T
        # Corners of a cell come in any order of rotation; it is convex.
        order = np.argsort(np.arctan2(y, x))
        x, y = x[order], y[order]
        areas[i] = 0.5 * abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))
    weights = (areas / counts)[which.reshape(-1)]
    return torch.from_numpy(weights).reshape(trajectory.shape[:-1]).to(trajectory.device)


def pipe_menon(
    trajectory: Tensor,
    image_shape: Sequence[int],
    *,
    iterations: int = 30,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Weights whose convolution with sinc^2 is 1 at every sample, shape of the trajectory less its last axis.

    Parameters
    ----------
    trajectory
        Cycles per field of view, shape (*samples, axes).
    image_shape
        (*N).
    iterations
        Each divides the weights by their convolution: an adjoint and a forward of twice the image's size.
    dtype
        Of the weights and the sums.

    References
    ----------
    Pipe and Menon, Magn. Reson. Med. 41, 1999. The kernel is the transform of a triangle as wide as two
    fields of view, which is nowhere negative and integrates to 1.
    """
    from operators.mri.nonuniform import NonuniformFourier

    shape = tuple(image_shape)
    axes = check_trajectory(trajectory, shape, any_extent=True)
    if axes != len(shape):
        raise ValueError(f"trajectory: expected {len(shape)} axes, found {axes}")
    double = tuple(2 * n for n in shape)
    path = 2 * trajectory.detach().double().reshape(-1, axes)
    operator = NonuniformFourier(double, path, any_extent=True)
    triangle = torch.ones((), dtype=dtype, device=trajectory.device)
    for n in shape:
        line = torch.arange(-n, n, dtype=dtype, device=trajectory.device)
        triangle = triangle.unsqueeze(-1) * (1 - line.abs() / n)
    weights = torch.ones(len(path), dtype=dtype, device=trajectory.device)
    floor = torch.finfo(dtype).tiny
    for _ in range(iterations):
        spread = operator(triangle * operator.adjoint(weights.to(dtype.to_complex())))
        weights = weights / (2**axes * spread.real).clamp_min(floor)
    return weights.reshape(trajectory.shape[:-1])


def _mirrored(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """The outer samples behind the border of the sampled region, so that cells end there."""
    from scipy.spatial import cKDTree

    if len(places) < 2:
        return places
    reach = np.maximum(np.abs(places).max(0), _NEAR)
    radii = np.linalg.norm(places / reach, axis=1)
    tree = cKDTree(places)
    if radii.max() > 1.2:
        # Corners are filled: a rectangle, along whose sides samples are mirrored.
        sides = []
        for axis in range(2):
            for side in (places[:, axis].max(), places[:, axis].min()):
                outer = places[np.abs(places[:, axis] - side) < 0.2 * reach[axis] + 2]
                at_side = outer[np.abs(outer[:, axis] - side) < 1e-3 * reach[axis]]
                border = side + np.sign(side) * _spacing(tree, at_side) / 2
                image = outer.copy()
                image[:, axis] = 2 * border - image[:, axis]
                sides.append(image)
        return np.concatenate(sides)
    outermost = places[radii >= 0.98 * radii.max()]
    border = 1 + _spacing(tree, outermost) / 2 / reach.mean()
    outer = radii > 0.7
    return places[outer] * (2 * border / radii[outer] - 1)[:, None]


def _spacing(tree: object, places: NDArray[np.float64]) -> float:
    """Median distance to the nearest other sample."""
    distances, _ = tree.query(places, k=2)  # type: ignore[attr-defined]
    return float(np.median(distances[:, 1]))
