#!/bin/sh
# Every benchmark, one after the other, on an otherwise idle machine. Results go to benchmarks/results/.
# PATCHWORD_DATA names the folder that holds imagenet-sample.zip and flowers5.zip (docs/benchmarks.md).
set -eu
bin=${BIN:-.venv/bin}
for name in startup loading memory predict inference training_step digits flowers; do
    echo "== $name"
    "$bin/python" "benchmarks/$name.py"
done
