"""Where the rays of a scan run: image grids, detectors and trajectories, in millimetres and radians."""

from operators.ct.geometry.checks import Float64Array
from operators.ct.geometry.detector import Detector
from operators.ct.geometry.fan import FanBeam
from operators.ct.geometry.grid import ImageGrid
from operators.ct.geometry.parallel import ParallelBeam
from operators.ct.geometry.trajectory import Geometry

__all__ = ["Detector", "FanBeam", "Float64Array", "Geometry", "ImageGrid", "ParallelBeam"]
