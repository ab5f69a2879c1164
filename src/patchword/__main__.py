"""`python -m patchword`: the command, where its script is not on the path."""

from patchword.cli.main import main

if __name__ == "__main__":
    main()
