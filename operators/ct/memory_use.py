"""What a ray transform takes of a machine's memory."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MemoryUse:
    """Bytes for one batch.

    Parameters
    ----------
    image, sinogram : int
        The batch itself, on either side of the transform.
    forward, adjoint : int
        What a call needs beside them at its peak, for contiguous inputs.
    kept : int
        What the engine keeps between calls.
    """

    image: int
    sinogram: int
    forward: int
    adjoint: int
    kept: int

    @property
    def peak(self) -> int:
        """All that is in use at the worst moment of either direction."""
        return self.image + self.sinogram + self.kept + max(self.forward, self.adjoint)

    def describe(self) -> str:
        """Return one line for a person, in decimal megabytes."""
        parts = (
            ("image", self.image),
            ("sinogram", self.sinogram),
            ("forward", self.forward),
            ("adjoint", self.adjoint),
            ("kept", self.kept),
        )
        listed = ", ".join(f"{name} {size / 1e6:.1f}" for name, size in parts)
        return f"{self.peak / 1e6:.1f} MB at the peak ({listed})"
