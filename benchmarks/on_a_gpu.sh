#!/usr/bin/env bash
# All that only a GPU can measure or test, one part after the other, each in a file of its own:
#
#   bash benchmarks/on_a_gpu.sh RESULTS [tests samplings step-1d step-2d step-small data search latency detect]
#
# A part takes at most 9 minutes, and one that fails does not keep the others from running.
set -uo pipefail
results=${1:?where the results go}
shift
mkdir -p "$results"
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv | tee "$results/machine.txt"
python -c 'import torch, torchvision, platform; print(platform.python_version(), torch.__version__, torchvision.__version__)' |
    tee -a "$results/machine.txt"

run() {
    local part=$1
    shift
    echo "==> $part: $*"
    SECONDS=0
    timeout 540 "$@" >"$results/$part.txt" 2>"$results/$part.err"
    echo "ended with $? after $SECONDS s" | tee -a "$results/$part.txt"
    tail -n 25 "$results/$part.txt"
}

# a classifier of drawn shapes, and a detector that starts from it, in bf16
psvit="env PYTHONPATH=$PWD python -m psvit"
shapes="cd '$results' && $psvit detect shapes --save shapes && $psvit retrain experiment=retrain/shapes &&
    $psvit detect train experiment=detect/shapes"

[ $# -gt 0 ] || set -- tests samplings step-1d step-2d step-small data search latency detect
for part in "$@"; do
    case $part in
        tests) run tests python -m pytest -q -s -p no:cacheprovider -m gpu -W default tests ;;
        samplings) run samplings python -m benchmarks.recompiles --space 1d_tiny_16 --batch 1024 --precision bf16 ;;
        step-1d) run step-1d python -m benchmarks.supernet_step --spaces 1d_tiny_16 --batch 1024 --rounds 1 --steps 60 ;;
        step-2d) run step-2d python -m benchmarks.supernet_step --spaces 2d_tiny_8 --batch 512 --rounds 1 --steps 60 ;;
        step-small) run step-small python -m benchmarks.supernet_step --spaces 1d_small_16 --batch 512 --rounds 1 --steps 60 ;;
        data) run data python -m benchmarks.data_pipeline ;;
        search) run search python -m benchmarks.search_throughput ;;
        latency) run latency python -m psvit latency space=1d_tiny_16 batch=64 --save "$results/latency.json" ;;
        detect) run detect bash -c "$shapes" ;;
        *) echo "no part is named $part" >&2 ;;
    esac
done
