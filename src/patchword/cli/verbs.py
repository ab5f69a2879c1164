"""The commands: name, where it lives, one line of help. Read by `main`, which imports none.

A new command is a file beside this one and a line here. The place is text, so that
`patchword --help` answers without importing any of them.
"""

VERBS: dict[str, tuple[str, str]] = {
    "predict": ("patchword.cli.predict:predict", "Names and probabilities for images."),
    "check": ("patchword.cli.check:check", "What is in a data set and what is wrong with it."),
    "doctor": ("patchword.cli.doctor:doctor", "What is installed, what this machine grants, what to mend."),
}
