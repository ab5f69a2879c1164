"""Augmentation of complete batches on tensors, on any device. `settings.py` needs no torch."""
