"""Render a run folder as one HTML page, from the files that training and evaluation wrote."""
