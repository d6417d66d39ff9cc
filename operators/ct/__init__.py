"""Computed tomography: geometry, ray transforms, filtered backprojection and detector corrections."""
