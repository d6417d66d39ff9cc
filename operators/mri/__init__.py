"""Magnetic resonance: Fourier sampling, coils, noise scans, masks and trajectories."""

from operators.mri.calibration import calibration_region
from operators.mri.espirit import espirit
from operators.mri.fourier import CartesianFourier, centred_fft, centred_ifft
from operators.mri.nonuniform import NonuniformFourier
from operators.mri.toeplitz import ToeplitzGram
from operators.mri.trajectory_gradient import nonuniform_fourier

__all__ = [
    "CartesianFourier",
    "NonuniformFourier",
    "ToeplitzGram",
    "calibration_region",
    "centred_fft",
    "centred_ifft",
    "espirit",
    "nonuniform_fourier",
]
