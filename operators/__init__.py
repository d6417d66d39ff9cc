"""The physics of measured images: linear operators, CT geometry and ray transforms, noise models."""

from operators.ct.corrections import (
    beam_from_air,
    estimate_gain,
    fill_invalid,
    find_bad_bins,
    find_bad_stripes,
    flat_field,
    frames_over_time,
    line_integrals,
    linearise,
    normalise_beam,
    open_beam_counts,
    polychromatic,
    remove_stripes,
    remove_stripes_wavelet,
    repair_bins,
    water_linearisation,
)
from operators.ct.detector_tilt import find_detector_tilt
from operators.ct.filtered_backprojection import filtered_backprojection
from operators.ct.geometry import (
    ConeBeam,
    Detector,
    FanBeam,
    HelicalConeBeam,
    ImageGrid,
    ParallelBeam,
    ParallelBeam3D,
    truncated,
)
from operators.ct.ray_transform import RayTransform
from operators.ct.rebinning import single_slice_rebinning
from operators.ct.rotation_centre import find_rotation_centre
from operators.ct.sharpest_centre import find_sharpest_centre
from operators.linear import Diagonal, Identity, LinearOperator, Matrix
from operators.mri import CartesianFourier, NonuniformFourier
from operators.noise import ComplexGaussianNoise, GaussianNoise, PoissonTransmission
from operators.noise_level import estimate_photons, estimate_std
from operators.normal_equations import Solution, conjugate_gradients

__all__ = [
    "CartesianFourier",
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
    "NonuniformFourier",
    "ParallelBeam",
    "ParallelBeam3D",
    "PoissonTransmission",
    "RayTransform",
    "Solution",
    "beam_from_air",
    "conjugate_gradients",
    "estimate_gain",
    "estimate_photons",
    "estimate_std",
    "fill_invalid",
    "filtered_backprojection",
    "find_bad_bins",
    "find_bad_stripes",
    "find_detector_tilt",
    "find_rotation_centre",
    "find_sharpest_centre",
    "flat_field",
    "frames_over_time",
    "line_integrals",
    "linearise",
    "normalise_beam",
    "open_beam_counts",
    "polychromatic",
    "remove_stripes",
    "remove_stripes_wavelet",
    "repair_bins",
    "single_slice_rebinning",
    "truncated",
    "water_linearisation",
]
