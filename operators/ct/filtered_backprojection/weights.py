"""The part of all lines that each view and each ray stands for."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from operators.ct.geometry import FanBeam, Float64Array

# The longest cycle of places that a flying focal spot goes through, in views.
_FLYING = 4


def angular_weights(angles: Float64Array, period: float = math.pi) -> Float64Array:
    """Return the part of a period that each view stands for, in radians, shape (views,).

    Parallel views half a turn apart see the same rays, whence the period pi; for fans it is 2 pi. Views a
    period apart share their part; the parts of a full scan sum to the period. A gap more than five times
    wider than the median one is a missing wedge, which nobody stands for: the views at its edges count as if
    their neighbours there were a median step away.
    """
    order, gaps, usual = _gaps(angles, period)
    gaps = np.where(gaps > 5 * usual, usual, gaps)
    weights = np.empty(angles.size)
    weights[order] = (gaps + np.roll(gaps, 1)) / 2
    return weights


def _gaps(angles: Float64Array, period: float) -> tuple[NDArray[np.int64], Float64Array, float]:
    """Return the order of the views within a period, the gap behind each, and the median of the gaps."""
    turned = np.mod(angles, period)
    order = np.argsort(turned, kind="stable")
    ascending = turned[order]
    gaps = np.diff(ascending, append=ascending[0] + period)
    distinct = gaps[gaps > 1e-6 * period / angles.size]
    return order, gaps, float(np.median(distinct)) if distinct.size else period


def redundancy_weights(geometry: FanBeam) -> Float64Array:
    r"""Return the share of each ray in the line that it measures, shape (views, bins).

    A line is measured from both of its ends in a full turn, and from one or both in less; its shares sum to
    one. The ray at the fan angle a from a source at the angle theta is measured again at the fan angle -a
    from theta + pi - 2 a. Where m is the margin of a ray to the end of the scan that is next to it, and n
    that of its other measurement to the other end, its share is :math:`\sin^2(\frac{\pi}{2}
    \frac{m}{m + n})`: in a short scan these are Parker's weights (Medical Physics 9(2), 1982), with all that
    was scanned beyond the minimum used as in Silver's (Medical Physics 27(4), 2000). In a full turn every
    share is a half, unless the detector is shifted by more than two bins (half-fan); the margins are then
    those to its near edge, which is smooth as in Wang's weights (Medical Physics 29(7), 2002).
    """
    fan = fan_angles(geometry)
    step = np.abs(np.diff(fan, axis=1)).mean() if fan.shape[1] > 1 else 0.0
    low, high = fan.min(axis=1, keepdims=True) - step / 2, fan.max(axis=1, keepdims=True) + step / 2
    order, gaps, usual = _gaps(geometry.angles, 2 * math.pi)
    widest = int(np.argmax(gaps))
    if gaps[widest] <= 5 * usual:
        near = np.minimum(-low, high)
        margin = np.where(-low < high, fan, -fan) + near
        with np.errstate(divide="ignore", invalid="ignore"):
            share = _share(np.clip(margin / (2 * near), 0, 1), 1.0)
        # A detector beside the axis measures every line once.
        share = np.where(near > 0, share, 1.0)
        return np.where(np.abs(low + high) <= 2 * step, 0.5, share)
    span = 2 * math.pi - gaps[widest] + usual
    first = geometry.angles[order[(widest + 1) % order.size]] - usual / 2
    since = np.mod(geometry.angles - first, 2 * math.pi)[:, None]
    seen = (-fan > low) & (-fan < high)
    later, sooner = since + math.pi - 2 * fan, since - math.pi - 2 * fan
    weights = np.ones(fan.shape)
    again = seen & (later > 0) & (later < span)
    weights = np.where(again, _share(since, since + span - later), weights)
    again = seen & (sooner > 0) & (sooner < span)
    return np.where(again, _share(span - since, span - since + sooner), weights)


def _share(part: Float64Array, whole: Float64Array | float) -> Float64Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sin(math.pi / 2 * part / whole) ** 2


def fan_angles(geometry: FanBeam) -> Float64Array:
    """Return the angle of each ray from the one through the axis, in radians, (views, bins)."""
    sources, directions = geometry.rays()
    across = sources[..., 0] * directions[..., 1] - sources[..., 1] * directions[..., 0]
    along = -(sources * directions).sum(axis=-1)
    return np.arctan2(across, along)


def ray_weights(geometry: FanBeam) -> Float64Array:
    """Return the measure of lines that each ray stands for, per radian of its fan angle, (views, bins).

    A ray at right angles to the unit vector n, from a source at a(theta), stands for |n . da/dtheta| mm in
    every radian of theta and of fan angle: R cos(fan angle) on a circle of radius R about the axis.
    """
    angles = geometry.angles
    source = geometry.sources
    radius = np.linalg.norm(source, axis=1)
    outward = source / radius[:, None]
    forward = np.stack((-outward[:, 1], outward[:, 0]), axis=1)
    velocity = radius[:, None] * forward + _drift(angles, radius)[:, None] * outward
    _, directions = geometry.rays()
    swept = np.abs(directions[..., 1] * velocity[:, None, 0] - directions[..., 0] * velocity[:, None, 1])
    return swept * redundancy_weights(geometry) * angular_weights(angles, 2 * math.pi)[:, None]


def _drift(angles: Float64Array, radius: Float64Array) -> Float64Array:
    """Return how fast the distance of the source from the axis grows with the angle, in mm/radian.

    A focal spot that flies to and fro goes through two or four places in turn: each is on an orbit of its
    own, and what counts is how fast they grow together.
    """
    order, gaps, _ = _gaps(angles, 2 * math.pi)
    begin = order[(int(np.argmax(gaps)) + 1) % order.size]
    since = np.mod(angles - angles[begin], 2 * math.pi)
    # Views at one angle, but for rounding, count as one.
    turned, where, number = np.unique(since.round(9), return_inverse=True, return_counts=True)
    if turned.size < 3:
        return np.zeros(radius.size)
    mean = np.bincount(where, radius) / number
    together = min(_FLYING, turned.size - 2)
    angle, distance = (
        np.convolve(values, np.full(together, 1 / together), "valid") for values in (turned, mean)
    )
    return np.interp(turned, angle, np.gradient(distance, angle))[where]
