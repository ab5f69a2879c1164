"""A detector on any plain ViT."""
