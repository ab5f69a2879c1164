"""A run folder as one page: reads what training and evaluation left, computes nothing of its own."""
