"""patchword: the plain Vision Transformer, whole, as a library and a command."""
