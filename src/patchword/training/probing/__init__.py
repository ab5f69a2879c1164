"""Probes that are trained in several passes: attentive, and the linear ones as published."""
