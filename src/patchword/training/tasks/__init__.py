"""The kinds of training. A new one is a file here, its settings in settings.py, and a line in make.py."""
