#!/bin/sh
# The main job from end to end on the built-in digits: train, evaluate, report, name new images.
# Usage: examples/demo.sh FOLDER_OF_THE_COMMANDS (the Makefile gives .venv/bin)
set -eu
bin=$1

run=$("$bin/patchword" train digits --out runs/demo)
echo "The held-out scans, scored again from the weights file:"
"$bin/patchword" evaluate "$run" digits
echo "Ten of them as image files, named by the model (the file name says what was written):"
"$bin/python" examples/digits_as_images.py "$run/new-images"
"$bin/patchword" predict "$run" "$run/new-images" --top 2
echo "Open $run/report.html in a browser to see how the training went."
