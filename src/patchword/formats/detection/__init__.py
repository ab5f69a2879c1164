"""Files of detectors: DETR and YOLOS, as their authors and transformers write them."""
