#!/bin/sh
# The complete workflow on the built-in digits: train, evaluate, report, classify new images.
# Usage: examples/demo.sh FOLDER_OF_THE_COMMANDS (the Makefile passes .venv/bin)
set -eu
bin=$1

run=$("$bin/patchword" train digits --out runs/demo)
echo "Evaluating the weights file on the held-out digits:"
"$bin/patchword" evaluate "$run" digits
echo "Classifying ten of them as image files (each file name gives the true digit):"
"$bin/python" examples/digits_as_images.py "$run/new-images"
"$bin/patchword" predict "$run" "$run/new-images" --top 2
echo "Open $run/report.html in a browser to see how the training went."
