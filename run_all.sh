#!/usr/bin/env bash
# The whole job: sets up if need be, runs the notebooks of each parameter file, writes the HTML report.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

if [[ " $* " == *" --help "* || " $* " == *" -h "* ]]; then
    cat <<'TEXT'
usage: ./run_all.sh [--set KEY=VALUE]... [--from NN] [--ablations] [--wait] [--verify] [--gpus-per-run N] [PARAMS.yaml ...]
       ./run_all.sh --verdict [--quick] [--budget osdtw] [--tuned] [PARAMS.yaml ...] [--with ROW.json ...]
       ./run_all.sh --lab [--reproducible]

  PARAMS.yaml       parameter files, one after the other (default: params/mnist_lt.yaml); on
                    several GPUs at once, each on its share of them, logs in outputs/NAME/run.log;
                    a failure of one is reported and the others still run
  --set KEY=VALUE   replace one key, for instance --set stage1.epochs=5
  --from NN         redo from this notebook on, for instance --from 05 for Stage 2 and what follows
  --ablations       notebook 08 too: every cell of the grid over C and w_A is trained, over
                    several seeds (about half an hour on 2 cores for the digits)
  --verdict         notebook 09 too: every method over seeds on one backbone, with intervals
                    and who wins (hours; a killed run goes on where it was, and shows what is there)
  --quick           the verdict over its first two seeds, without the rows that cost most (on the
                    digits about 20 minutes on 2 cores)
  --budget osdtw    in the verdict every method also trained as long as OSDTW's compute buys, and
                    --tuned: with values chosen by trials of its own (each a night; said beforehand)
  --with ROW.json   rows of the verdict that were made on another machine
  --gpus-per-run N  several files at once, N GPUs each (default: all GPUs, in as many groups as files)
  --wait            where another process works on the same results, wait until it has ended
                    (without it: one line says who, and the status is 2)
  --verify          read every image file again, whether or not its size or times have moved
  --lab             JupyterLab on notebooks/; --reproducible: for parameter files with reproducible: true
  --help            this text

Finished stages are found again and not repeated; a killed run goes on where it was.
Results: outputs/NAME/index.html for each data set, outputs/index.html for all.
Exit status: 0, 2 for bad input (one line says what), 130 interrupted, 1 for anything else.
TEXT
    exit 0
fi

. ./.environment.sh
if [[ "${1:-}" == "--lab" ]]; then
    exec "$PYTHON" -m osdtw_lib lab "${@:2}"
fi
exec "$PYTHON" -m osdtw_lib run "$@"
