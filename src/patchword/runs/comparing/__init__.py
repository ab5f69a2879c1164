"""Compare settings: the same training with other values of one setting or several, for paired seeds."""
