"""Files of detectors: DETR and YOLOS, as their authors and transformers write them."""

# What to do instead of loading a detector as a classifier.
LOAD_DETECTOR = "use it with `patchword predict`, `evaluate`, `explain` or `convert`, or load it with patchword.load_detector(PATH)"
