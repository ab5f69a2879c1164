"""The commands: name, where it lives, one line of help. Read by `main`, which imports none.

A new command is a file beside this one and a line here. The place is text, so that
`patchword --help` answers without importing any of them.
"""

VERBS: dict[str, tuple[str, str]] = {
    "train": ("patchword.cli.train:train", "A classifier from class folders, with a report."),
    "evaluate": ("patchword.cli.evaluate:evaluate", "How right a model is on labelled images."),
    "predict": ("patchword.cli.predict:predict", "Names and probabilities for images."),
    "embed": ("patchword.cli.embed:embed", "Vectors of images, for search, clustering, other models."),
    "check": ("patchword.cli.check:check", "What is in a data set and what is wrong with it."),
    "inspect": ("patchword.cli.inspect:inspect", "What a checkpoint is, and what loading it would do."),
    "convert": ("patchword.cli.convert:convert", "A model in another layout, with the proof."),
    "adapt": ("patchword.cli.adapt:adapt", "A model for another size, patch, channels or classes."),
    "models": ("patchword.cli.models:models", "The named sizes: parameters, work for one image, tokens."),
    "doctor": ("patchword.cli.doctor:doctor", "What is installed and granted here, what to mend."),
}
