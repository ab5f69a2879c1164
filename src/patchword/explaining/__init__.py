"""See what a model, or a set of images, does: one file per method.

A method returns arrays and numbers; `reports/` draws them.
"""
