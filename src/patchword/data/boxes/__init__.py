"""Boxes around objects: COCO JSON, Pascal VOC, YOLO and tables become one form.

A format (`coco.py`, `voc.py`, `yolo.py`, `table.py`) reads its files into `Annotations` (`annotations.py`), as they are written.
`locate.py` finds the images, `headers.py` their sizes, `frames.py` moves the boxes into the upright image, and
`clean.py` removes those that are none. `read.py` puts the steps together.
"""
