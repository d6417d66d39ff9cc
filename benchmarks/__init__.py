"""Measurements against peers and floors, one script a question; each prints a table."""

import os

# As the command line does, before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
