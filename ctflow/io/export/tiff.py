"""TIFF: a page for each slice, float32, with the resolution in each and OME-XML for the distance of slices.

Numbers are in the unit of the images; slices that failed are NaN. Row and column are those of the image.
"""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

from ctflow import __version__
from ctflow.io.atomic import replacing_file
from ctflow.io.errors import printable
from ctflow.io.export.images import Images

_MM_IN_CM = 10.0
# Bytes of pixels; a plain TIFF holds 4 GiB with all that describes them.
_LARGEST = 2**32 - 2**26


def write_tiff(images: Images, target: Path, overwrite: bool) -> tuple[str, ...]:
    """Write one TIFF file; return what a reader of it should know, one line each.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    from tifffile import TiffWriter

    between, height, width = images.placement.sides
    metadata: dict[str, Any] = {
        "axes": "CZYX"[-len(images.shape) :],
        "Description": f"{images.part} in {printable(images.unit) or 'arbitrary units'}",
    }
    resolution: dict[str, Any] = {"resolution": (1.0, 1.0), "resolutionunit": "NONE"}
    if images.pixel_known:
        metadata |= {"PhysicalSizeX": width, "PhysicalSizeXUnit": "mm"}
        metadata |= {"PhysicalSizeY": height, "PhysicalSizeYUnit": "mm"}
        resolution = {
            "resolution": (_MM_IN_CM / width, _MM_IN_CM / height),
            "resolutionunit": "CENTIMETER",
        }
    if images.slice_distance is not None:
        metadata |= {"PhysicalSizeZ": between, "PhysicalSizeZUnit": "mm"}
    large = 4 * prod(images.shape) > _LARGEST
    with (
        replacing_file(target, overwrite) as temporary,
        TiffWriter(temporary, bigtiff=large, ome=True) as file,
    ):
        file.write(
            iter(images),
            shape=images.shape,
            dtype="float32",
            photometric="minisblack",
            software=f"ctflow {__version__}",
            metadata=metadata,
            **resolution,
        )
    return images.failed_as("written as NaN")
