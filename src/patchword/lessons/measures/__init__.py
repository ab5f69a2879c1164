"""What the lessons measure: models and arrays → numbers. One file per topic."""
