"""Magnetic resonance: Fourier sampling, coils, noise scans, masks and trajectories."""

from operators.mri.fourier import CartesianFourier, centred_fft, centred_ifft

__all__ = ["CartesianFourier", "centred_fft", "centred_ifft"]
