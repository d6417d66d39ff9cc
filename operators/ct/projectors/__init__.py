"""The engines that compute line integrals, one a file; RayTransform chooses among them."""
