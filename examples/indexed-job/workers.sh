#!/bin/sh
# The same without Kubernetes: PARTS workers side by side, then one that makes the image of their parts. On several
# machines, run the line of `pack` on each with another number, and the line of `assemble` once all have ended.
#
#   MODEL=hf://Qwen/Qwen3-0.6B@c1899de289a04d12100db370d81485cdf75e47ca \
#     IMAGE=registry.example.com/models/qwen3-0.6b:v1 PARTS=4 sh workers.sh
set -eu
: "${MODEL:?names the snapshot}" "${IMAGE:?names the image}" "${PARTS:=4}" "${OPTIONS:=}"

workers=
part=1
while [ "$part" -le "$PARTS" ]; do
    # shellcheck disable=SC2086 # options are words
    starcar pack "$MODEL" $OPTIONS --tag "$IMAGE" --push --part "$part/$PARTS" >&2 &
    workers="$workers $!"
    part=$((part + 1))
done
failed=0
for worker in $workers; do
    wait "$worker" || failed=$?
done
[ "$failed" -eq 0 ] || exit "$failed"
starcar assemble --tag "$IMAGE" --push --parts "$PARTS"
