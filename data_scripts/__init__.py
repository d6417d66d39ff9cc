"""Scripts that make, fetch and convert data; run them as ``python -m data_scripts.NAME``."""
