"""Results of `explain` as pictures and pages: one file per method, and `files.py` for all."""
