"""The detector: a row of bins, or rows of them."""

from __future__ import annotations

from dataclasses import dataclass

from operators.ct.geometry.checks import Float64Array, centred, count, is_sequence, length, several


@dataclass(frozen=True, init=False)
class Detector:
    """A row of equal detector bins, or several such rows.

    The centre of bin i lies at ``(i - (bins - 1) / 2) * pitch + offset`` mm along the row, and row j at
    ``(j - (rows - 1) / 2) * row_pitch + row_offset`` mm across it; on a curved detector, along the arc.

    Parameters
    ----------
    bins : int or (int, int)
        Number of bins, or of rows and of bins in each.
    pitch : float or (float, float)
        Distance between the centres of neighbouring bins, in mm; with rows, also of rows and bins.
    offset : float or (float, float)
        Position of the detector's middle relative to where the axis falls on it, in mm: along the row, or
        across and along.
    curved : bool
        Whether the rows are arcs around the source of a fan or cone beam, instead of straight.

    Attributes
    ----------
    bins, pitch, offset : int, float, float
        Along a row.
    rows : int or None
        None for a single row of a 2-D scan.
    row_pitch, row_offset : float
        Across the rows.
    curved : bool
        As above.

    Raises
    ------
    ValueError
        If a number of bins or a pitch is not positive, or a number is not finite.
    """

    bins: int
    pitch: float
    offset: float
    rows: int | None
    row_pitch: float
    row_offset: float
    curved: bool

    def __init__(
        self,
        bins: int | tuple[int, int],
        pitch: float | tuple[float, float],
        offset: float | tuple[float, float] = 0.0,
        *,
        curved: bool = False,
    ) -> None:
        paired = is_sequence(bins)
        rows, number = several(bins, "Detector bins", 2) if paired else (None, bins)
        row_pitch, bin_pitch = several(pitch, "Detector pitch", 2) if is_sequence(pitch) else (pitch, pitch)
        row_offset, bin_offset = (
            several(offset, "Detector offset", 2) if is_sequence(offset) else (0.0, offset)
        )
        if not paired and (is_sequence(pitch) or is_sequence(offset)):
            raise ValueError(f"Detector: expected one pitch and offset for one row, found {pitch}, {offset}")
        values = {
            "bins": count(number, "Detector bins"),
            "pitch": length(bin_pitch, "Detector pitch", positive=True),
            "offset": length(bin_offset, "Detector offset", positive=False),
            "rows": None if rows is None else count(rows, "Detector rows"),
            "row_pitch": length(row_pitch, "Detector pitch", positive=True),
            "row_offset": length(row_offset, "Detector offset", positive=False),
            "curved": bool(curved),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def shape(self) -> tuple[int, ...]:
        """(bins,), or (rows, bins)."""
        return (self.bins,) if self.rows is None else (self.rows, self.bins)

    def positions(self) -> Float64Array:
        """Return the centres of the bins along a row in mm, shape (bins,)."""
        return centred(self.bins, self.pitch) + self.offset

    def row_positions(self) -> Float64Array:
        """Return the centres of the rows in mm, shape (rows,); (1,) for a single row."""
        return centred(self.rows or 1, self.row_pitch) + self.row_offset

    def describe(self) -> str:
        """Return one line for a person."""
        kind = "curved " if self.curved else ""
        if self.rows is None:
            shifted = f", shifted by {self.offset:g} mm" if self.offset else ""
            return f"{self.bins} {kind}bins of {self.pitch:g} mm{shifted}"
        square = self.row_pitch == self.pitch
        size = f"{self.pitch:g} mm" if square else f"{self.row_pitch:g} x {self.pitch:g} mm"
        moved = self.row_offset or self.offset
        shifted = f", shifted by {self.row_offset:g} mm across and {self.offset:g} mm along" if moved else ""
        return f"{self.rows} {kind}rows of {self.bins} bins of {size}{shifted}"
