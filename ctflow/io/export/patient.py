"""How images lie in the patient: the one place where that is decided for NIfTI and DICOM.

In a reconstruction file x grows with the column, y shrinks with the row and z grows with the slice; x, y and
z are a right-handed frame in mm, that of the scanner. How the patient lay in it is not in the file, and is
taken to be as in a radiologist's picture of an axial slice, seen from the feet::

    x  from the patient's right to the left        L
    y  from the back to the front (anterior)       A
    z  from the head to the feet (inferior)        I

which are the axes "LAI". They are right-handed, too: a volume is turned, and never becomes its mirror image.
Other positions are given by other letters (R, L to the right and left, A, P to the front and back, S, I to
the head and feet). Left-handed ones are refused for a volume; of a stack of slices that were measured one by
one they only say that the slices come in the opposite order.

DICOM's coordinates grow to L, P and S; NIfTI's to R, A and S.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ctflow.io.errors import OutputError

USUAL_AXES = "LAI"
# In DICOM's coordinates.
_DIRECTIONS = {
    "L": (1, 0, 0),
    "R": (-1, 0, 0),
    "P": (0, 1, 0),
    "A": (0, -1, 0),
    "S": (0, 0, 1),
    "I": (0, 0, -1),
}
_RAS_OF_LPS = np.diag((-1.0, -1.0, 1.0, 1.0))


@dataclass(frozen=True)
class Placement:
    """Where the voxels of a volume are.

    Attributes
    ----------
    shape
        Slices, rows, columns.
    sides
        Distances of slices, rows and columns in mm.
    center
        (x, y, z) of the middle of the volume in mm.
    axes
        Where x, y and z point to in the patient.
    """

    shape: tuple[int, int, int]
    sides: tuple[float, float, float]
    center: tuple[float, float, float] = (0.0, 0.0, 0.0)
    axes: str = USUAL_AXES

    def lps(self) -> NDArray[np.float64]:
        """DICOM's coordinates in mm of (column, row, slice, 1), shape (4, 4)."""
        slices, rows, columns = self.shape
        between_slices, height, width = self.sides
        steps = np.diag((width, -height, between_slices))  # x, y, z of a column, a row, a slice
        middle = (np.array((columns, rows, slices)) - 1) / 2
        affine = np.eye(4)
        turned = _turn(self.axes)
        affine[:3, :3] = turned @ steps
        affine[:3, 3] = turned @ (np.array(self.center) - steps @ middle)
        return affine + 0.0  # no negative zeros

    def ras(self) -> NDArray[np.float64]:
        """NIfTI's coordinates in mm of (column, row, slice, 1), shape (4, 4)."""
        return _RAS_OF_LPS @ self.lps() + 0.0


def check_axes(axes: str, volume: bool) -> str:
    """Return three letters in capitals; OutputError if they are no axes, or left-handed for a volume."""
    letters = axes.strip().upper()
    if len(letters) != 3 or not set(letters) <= set(_DIRECTIONS) or not np.linalg.det(_turn(letters)):
        expected = "one letter each of R or L, A or P, S or I, for where x, y and z point to"
        raise OutputError(f"axes: expected {expected}, such as {USUAL_AXES}, found {axes!r}")
    if volume and np.linalg.det(_turn(letters)) < 0:
        expected = f"right-handed axes, such as {USUAL_AXES}"
        raise OutputError(
            f"axes: expected {expected}, found {letters}, which makes a mirror image of a volume"
        )
    return letters


def _turn(axes: str) -> NDArray[np.float64]:
    return np.array([_DIRECTIONS[letter] for letter in axes], dtype=np.float64).T
