#!/usr/bin/env bash
# dalle2 train on a GKE cluster of TPUs through xpk, which writes its own JobSet.
set -euo pipefail

usage() {
  cat <<'HELP'
usage: [NAME=VALUE ...] launch/xpk.sh [--dry-run] [arguments of dalle2 train]

CLUSTER  of xpk                              (needed)
IMAGE    made of launch/Dockerfile.tpu       (needed)
TYPE     such as v5p-128                     (needed)
ZONE     of the cluster                      (needed)
NAME     of the workload                     (dalle2)
SLICES   how many                            (1)
HELP
}

# shellcheck disable=SC2034 # dry_run.sh reads it
dry=""
if [[ ${1:-} == --dry-run ]]; then
  # shellcheck disable=SC2034
  dry=yes
  shift
fi
if [[ $# -eq 0 || $1 == help || $1 == --help ]]; then
  usage
  exit 0
fi
# shellcheck source=/dev/null
source "$(dirname "${BASH_SOURCE[0]}")/dry_run.sh"

needs CLUSTER IMAGE TYPE ZONE
command=(
  xpk workload create --cluster "$CLUSTER" --zone "$ZONE" --workload "${NAME:-dalle2}"
  --tpu-type "$TYPE" --num-slices "${SLICES:-1}" --docker-image "$IMAGE"
  --max-restarts 100 --command "dalle2 train $(printf '%q ' "$@")"
)
do_it "${command[@]}"
