"""`python -m patchword`: run the command if its script is not on the path."""

from patchword.cli.main import main

if __name__ == "__main__":
    main()
