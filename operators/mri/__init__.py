"""Magnetic resonance: Fourier sampling, coils, noise scans, masks and trajectories."""

from operators.mri.adaptive import adaptive_combine, adaptive_maps, calibration_images
from operators.mri.calibration import calibration_region
from operators.mri.coils import (
    CoilCompression,
    coil_compression,
    compress_coils,
    mix_coils,
    noise_covariance,
    prewhiten,
    whitening_matrix,
)
from operators.mri.espirit import espirit
from operators.mri.fourier import CartesianFourier, centred_fft, centred_ifft
from operators.mri.g_factor import g_factor, pseudo_replica_g_factor, pseudo_replica_std
from operators.mri.grappa import grappa

__all__ = [
    "CartesianFourier",
    "CoilCompression",
    "adaptive_combine",
    "adaptive_maps",
    "calibration_images",
    "calibration_region",
    "centred_fft",
    "centred_ifft",
    "coil_compression",
    "compress_coils",
    "espirit",
    "g_factor",
    "grappa",
    "mix_coils",
    "noise_covariance",
    "prewhiten",
    "pseudo_replica_g_factor",
    "pseudo_replica_std",
    "whitening_matrix",
]
