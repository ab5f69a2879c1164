"""The commands: name, import path and help line.

To add a command, add a module next to this one and a line here. Import paths are strings, so that
`patchword --help` imports no command.
"""

VERBS: dict[str, tuple[str, str]] = {
    "train": ("patchword.cli.train:train", "Train a classifier; writes a report."),
    "pretrain": ("patchword.cli.pretrain:pretrain", "Learn from images without labels."),
    "compare": ("patchword.cli.compare:compare", "Compare settings over seeds, or finished runs."),
    "evaluate": ("patchword.cli.evaluate:evaluate", "Evaluate a model on labelled images."),
    "predict": ("patchword.cli.predict:predict", "Classify images."),
    "embed": (
        "patchword.cli.embed:embed",
        "Compute image embeddings for search, clustering or other models.",
    ),
    "explain": (
        "patchword.cli.explain:explain",
        "Draw what a model reconstructs; measure redundancy.",
    ),
    "diagnose": ("patchword.cli.diagnose:diagnose", "Find mistakes in your own Vision Transformer."),
    "learn": ("patchword.cli.learn:learn", "Explain a ViT step by step, on one page."),
    "search": ("patchword.cli.search:search", "Find the images nearest to others by their embeddings."),
    "check": ("patchword.cli.check:check", "Check a data set and list its problems."),
    "inspect": ("patchword.cli.inspect:inspect", "Describe a checkpoint and how it would load."),
    "convert": ("patchword.cli.convert:convert", "Convert a model to another format and verify it."),
    "adapt": ("patchword.cli.adapt:adapt", "Change a model's image size, patch, channels or classes."),
    "models": ("patchword.cli.models:models", "List model sizes and published weights."),
    "doctor": ("patchword.cli.doctor:doctor", "Check the installation and suggest fixes."),
}
