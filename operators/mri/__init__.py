"""Magnetic resonance: Fourier sampling, coils, noise scans, masks and trajectories."""

from operators.mri.calibration import calibration_region
from operators.mri.espirit import espirit
from operators.mri.fourier import CartesianFourier, centred_fft, centred_ifft

__all__ = [
    "CartesianFourier",
    "calibration_region",
    "centred_fft",
    "centred_ifft",
    "espirit",
]
