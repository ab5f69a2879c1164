"""`patchword learn`: every claim about Vision Transformers as an experiment on one model and one image.

    from patchword.lessons import open_subject
    subject = open_subject("runs/demo", "photo.jpg")      # without arguments: small models of handwritten digits

`measures/` computes (models and arrays → numbers), one file per topic. `panels/` turns that into steps of the page, one
file per step. `drawing/` and `reports/templates/` show them.
"""

from patchword.lessons.subject import Subject, open_subject

__all__ = ["Subject", "open_subject"]
