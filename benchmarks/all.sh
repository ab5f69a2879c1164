#!/bin/sh
# Run the benchmarks one after the other, on an otherwise idle machine. Results go to benchmarks/results/.
# PATCHWORD_DATA is the folder that contains imagenet-sample.zip and flowers5.zip (docs/benchmarks.md).
# optimisers.py, finetune_flowers.py and pretraining.py take from five minutes to hours and are run by hand.
set -eu
bin=${BIN:-.venv/bin}
for name in startup loading memory predict inference training_step decoders augmentation decoding_workers search mae detection digits flowers; do
    if [ "$name" = decoders ] && ! "$bin/python" -c "import imagecodecs" 2>/dev/null; then
        echo "== decoders: skipped, imagecodecs is not installed"
        continue
    fi
    echo "== $name"
    "$bin/python" "benchmarks/$name.py"
done
