"""Views of a turned flat detector as an upright one in the same place would have them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from operators.ct.geometry import ConeBeam, Detector, Float64Array, Geometry, ParallelBeam3D
from operators.ct.geometry.poses import Poses

# Parts of a bin to which the ends of rows and columns may lean before a detector is not upright.
_LEAN = 1e-3


def upright(geometry: ConeBeam, views: Tensor) -> tuple[ConeBeam, Tensor]:
    """Return a scan whose rows climb along z, and its views, (*batch, views, rows, bins).

    Those of a detector that is not upright are bilinearly interpolated; beyond it they are zero. ValueError
    where it is curved, or its bins follow each other along z.
    """
    if is_upright(geometry):
        return geometry, views
    detector, vectors = geometry.detector, geometry.vectors()
    level = vectors[:, 6:9] * (1, 1, 0)
    width = np.linalg.norm(level, axis=1, keepdims=True)
    if detector.curved or (width < 0.5 * detector.pitch).any():
        raise only_iterations("a detector that is upright, or flat and not far from it", geometry)
    flat = Detector(detector.shape, (detector.row_pitch, detector.pitch))  # type: ignore[arg-type]
    up = np.tile((0.0, 0.0, 1.0), (len(vectors), 1))
    turned = ConeBeam(Poses(geometry.sources, vectors[:, 3:6], level / width, up), flat)
    return turned, _seen_by(turned, geometry, views)


def is_upright(geometry: ConeBeam | ParallelBeam3D) -> bool:
    """Whether bins are level and rows climb along z."""
    rows, bins = geometry.detector.shape
    vectors = geometry.vectors()
    lean = np.abs(vectors[:, 8]).max() * bins / geometry.detector.row_pitch
    aside = np.abs(vectors[:, 9:11]).max() * rows / geometry.detector.pitch
    return bool(max(lean, aside) < _LEAN and vectors[:, 11].min() > 0)


def only_iterations(wanted: str, geometry: Geometry) -> ValueError:
    """Return the error for scans that no direct method can do."""
    return ValueError(
        f"filtered backprojection: expected {wanted}, found {geometry.describe()}; an iterative solver takes "
        "any geometry: operator.solve(sinogram), or CGLS, SIRT or TV"
    )


def _seen_by(wanted: ConeBeam, found: ConeBeam, views: Tensor) -> Tensor:
    """Interpolate the views of one flat detector at the bins of another, before the same sources."""
    rows, bins = found.detector.shape
    other, own = wanted.vectors()[:, None, None], found.vectors()
    row, column = (np.arange(number) - (number - 1) / 2 for number in (rows, bins))
    places = other[..., 3:6] + row[:, None, None] * other[..., 9:12] + column[:, None] * other[..., 6:9]
    # Where the ray through a place meets the scan's own detector, in bins and rows from its middle.
    axes = np.stack((own[:, 6:9], own[:, 9:12], own[:, 0:3] - own[:, 3:6]), axis=2)
    solved = np.einsum("vij,vrcj->vrci", np.linalg.inv(axes), places - own[:, None, None, 3:6])
    # q = d + a u + b v + c (s - d) is on the ray through d + (a u + b v) / (1 - c).
    seen: Float64Array = solved[..., :2] / (1 - solved[..., 2:])
    span = np.array((max(bins - 1, 1), max(rows - 1, 1))) / 2
    grid = torch.as_tensor(seen / span).to(views)
    batch = views.shape[:-3]
    turned = [
        torch.nn.functional.grid_sample(one[:, None], grid, mode="bilinear", align_corners=True)[:, 0]
        for one in views.reshape(-1, *found.sinogram_shape)
    ]
    return torch.stack(turned).reshape(*batch, *found.sinogram_shape)
