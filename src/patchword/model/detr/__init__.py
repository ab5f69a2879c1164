"""DETR: a set of boxes from a ResNet and a Transformer with learned queries (Carion et al. 2020, arXiv 2005.12872)."""
