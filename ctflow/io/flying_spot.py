"""The rays of a scan whose focal spot flies about while it climbs."""

from __future__ import annotations

import numpy as np

from operators.ct.geometry import ConeBeam, Float64Array, HelicalConeBeam
from operators.ct.geometry.poses import Poses


def with_flying_spot(
    helix: HelicalConeBeam, turn: Float64Array, climb: Float64Array, retreat: Float64Array
) -> ConeBeam:
    """Return the rays from a focal spot that leaves the helix while the detector follows it.

    Of a curved detector the arc is around the spot instead of around the point of the helix: it keeps its
    middle and the distances along it. Its ends are then out of place by less than a twentieth of the spot's
    way for fans of up to 50 degrees.

    Parameters
    ----------
    helix : HelicalConeBeam
        The scan of a spot at rest.
    turn, climb, retreat : array
        Of the spot in each view, shape (views,): ahead in angle, in radians; up and away from the axis, in
        mm.
    """
    poses, angles = helix.poses, helix.angles + turn
    away = np.stack((np.sin(angles), -np.cos(angles)), axis=1)
    level = (helix.source_to_axis + retreat)[:, None] * away
    sources = np.concatenate((level, (poses.rays[:, 2] + climb)[:, None]), axis=1)
    along = poses.along
    if helix.detector.curved:
        x, y, _ = (poses.middles - sources).T
        along = np.stack((y, -x, np.zeros_like(x)), axis=1) / np.hypot(x, y)[:, None]
    return ConeBeam(Poses(sources, poses.middles, along, poses.across), helix.detector)
