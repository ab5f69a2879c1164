"""Files of detectors: DETR and YOLOS, as their authors and transformers write them."""

# What to do instead of loading a detector as a classifier.
LOAD_DETECTOR = "load it from Python: patchword.load_detector(PATH)"
