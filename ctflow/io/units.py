"""Units as files spell them."""

from __future__ import annotations

_MILLIMETRES = {
    **dict.fromkeys(("m", "meter", "metre"), 1e3),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 10.0),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1.0),
    # The micro sign and the Greek letter look alike and are two characters.
    **dict.fromkeys(("um", "\u00b5m", "\u03bcm", "micron", "micrometer", "micrometre"), 1e-3),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-6),
}
_ANGLES = {
    **dict.fromkeys(("degree", "deg", "\u00b0"), "degrees"),
    **dict.fromkeys(("radian", "rad"), "radians"),
}


def _singular(unit: str) -> str:
    unit = unit.strip().lower()
    return unit[:-1] if unit.endswith("s") else unit


def millimetres(unit: str) -> float | None:
    """Return how many millimetres a unit of length has, or None for an unknown one."""
    return _MILLIMETRES.get(_singular(unit))


def angle_unit(unit: str) -> str | None:
    """Return "degrees" or "radians", or None for an unknown unit."""
    return _ANGLES.get(_singular(unit))
