"""The physics of measured images: linear operators, CT geometry and ray transforms, noise models."""

from operators.ct.filtered_backprojection import filtered_backprojection
from operators.ct.geometry import (
    ConeBeam,
    Detector,
    FanBeam,
    HelicalConeBeam,
    ImageGrid,
    ParallelBeam,
    ParallelBeam3D,
)
from operators.ct.ray_transform import RayTransform
from operators.linear import Diagonal, Identity, LinearOperator, Matrix
from operators.noise import ComplexGaussianNoise, GaussianNoise, PoissonTransmission
from operators.normal_equations import Solution, conjugate_gradients

__all__ = [
    "ComplexGaussianNoise",
    "ConeBeam",
    "Detector",
    "Diagonal",
    "FanBeam",
    "GaussianNoise",
    "HelicalConeBeam",
    "Identity",
    "ImageGrid",
    "LinearOperator",
    "Matrix",
    "ParallelBeam",
    "ParallelBeam3D",
    "PoissonTransmission",
    "RayTransform",
    "Solution",
    "conjugate_gradients",
    "filtered_backprojection",
]
