"""Find the mistake in someone's own Vision Transformer: thirteen probes on any torch module, without reading its source."""
