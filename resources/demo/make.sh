#!/usr/bin/env bash
# Makes the demo checkpoints from nothing: generates the text, trains the tokenizer, trains both models, exports them beside this file.
# Same commands, same machine, same bytes. About half an hour on two cores.
#   make.sh [WORK]     a folder for the text and the runs (default: a temporary one)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cli=${RESECT_CLI:-$here/../../build/bin/resect-cli}
work=${1:-$(mktemp -d)}
mkdir -p "$work"
[ -e "$work/text" ] || "$cli" demo-text "$work/text" --seed 1 --train-bytes 4000000

train() { # NAME then settings
    local name=$1
    shift
    mkdir -p "$work/$name"
    cp "$here/$name.config.json" "$work/$name/config.json"
    [ -e "$work/$name/tokenizer.json" ] || "$cli" train-tokenizer "$work/text/train.txt" "$work/$name" --vocab 768 --context 256
    if [ ! -e "$work/$name.run" ]; then
        "$cli" recover pretrain "$work/$name" --data "$work/text/train.txt" --eval-data "$work/text/heldout.txt" --out "$work/$name.run" --seed 1 "$@"
    elif ! "$cli" status "$work/$name.run" --json | grep -q '"state": "done"'; then
        "$cli" resume "$work/$name.run"
    fi
    rm -rf "${here:?}/$name"
    "$cli" export "$work/$name.run" --to "$here/$name" --way uniform
    "$cli" eval "$here/$name" --data "$work/text/heldout.txt" --max-rows 0
    "$cli" eval "$here/$name" --task "$work/text/questions.jsonl"
}

train dense --set steps=600 --set batch_rows=16 --set row_length=256 --set lr=2e-3 --set warmup_steps=60 --set min_lr_ratio=0.05
train mixtral --set steps=500 --set batch_rows=16 --set row_length=256 --set lr=2e-3 --set warmup_steps=60 --set min_lr_ratio=0.05 --set router_balance=0.01
mkdir -p "$here/text"
head -c 400000 "$work/text/train.txt" >"$here/text/train.txt"
cp "$work/text/heldout.txt" "$here/text/calibration.txt"
cp "$work/text/questions.jsonl" "$here/text/questions.jsonl"
