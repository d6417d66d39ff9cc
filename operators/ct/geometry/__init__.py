"""Where the rays of a scan run: image grids, detectors and trajectories, in millimetres and radians."""

from operators.ct.geometry.checks import Float64Array
from operators.ct.geometry.cone import ConeBeam
from operators.ct.geometry.coverage import missing_arc
from operators.ct.geometry.detector import Detector
from operators.ct.geometry.fan import FanBeam
from operators.ct.geometry.grid import ImageGrid
from operators.ct.geometry.helical import HelicalConeBeam
from operators.ct.geometry.parallel import ParallelBeam
from operators.ct.geometry.parallel3d import ParallelBeam3D
from operators.ct.geometry.trajectory import Diverging, Geometry, require_sources_outside
from operators.ct.geometry.truncation import truncated

__all__ = [
    "ConeBeam",
    "Detector",
    "Diverging",
    "FanBeam",
    "Float64Array",
    "Geometry",
    "HelicalConeBeam",
    "ImageGrid",
    "ParallelBeam",
    "ParallelBeam3D",
    "missing_arc",
    "require_sources_outside",
    "truncated",
]
