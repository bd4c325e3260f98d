#!/usr/bin/env bash
# A TPU VM through a queue: asks for it, waits until it is there, gives it back.
set -euo pipefail

usage() {
  cat <<'HELP'
usage: [NAME=VALUE ...] launch/queued_resource.sh [--dry-run] create|wait|delete

  create   ask for the TPU VM, unless that was done
  wait     until it is there; exit 1 when the request has failed or was suspended
  delete   the request and its TPU VM

NAME     name of the TPU VM; the request is called NAME-queued   (dalle2)
ZONE     such as us-east5-a                                      (needed)
TYPE     such as v5p-128                                         (needed by create)
RUNTIME  such as v2-alpha-tpuv5                                  (needed by create)
FLAGS    more for create, as --spot or --valid-until-duration=6h
EVERY    seconds between two looks                               (60)

Then: launch/tpu_vm.sh push, launch/tpu_vm.sh run ...
HELP
}

dry=""
if [[ ${1:-} == --dry-run ]]; then
  dry=yes
  shift
fi
word=${1:-help}
NAME=${NAME:-dalle2}
read -ra FLAGS <<<"${FLAGS:-}"

# shellcheck source=/dev/null
source "$(dirname "${BASH_SOURCE[0]}")/dry_run.sh"

state() {
  do_it gcloud compute tpus queued-resources describe "$NAME-queued" --zone="$ZONE" \
    --format="value(state.state)"
}

case $word in
  create)
    needs ZONE TYPE RUNTIME
    if [[ ! $dry ]] && state >/dev/null 2>&1; then
      echo "$NAME-queued is there already"
    else
      do_it gcloud compute tpus queued-resources create "$NAME-queued" \
        --node-id="$NAME" --zone="$ZONE" --accelerator-type="$TYPE" \
        --runtime-version="$RUNTIME" "${FLAGS[@]}"
    fi
    ;;
  wait)
    needs ZONE
    if [[ $dry ]]; then
      state
      exit 0
    fi
    while now=$(state) && [[ $now != ACTIVE ]]; do
      case $now in
        FAILED | SUSPENDED)
          echo "$NAME-queued is $now; delete it and create it again." >&2
          exit 1
          ;;
      esac
      echo "$NAME-queued: $now"
      sleep "${EVERY:-60}"
    done
    [[ $now == ACTIVE ]] && echo "$NAME is there"
    ;;
  delete)
    needs ZONE
    do_it gcloud compute tpus queued-resources delete "$NAME-queued" --zone="$ZONE" \
      --force --quiet
    ;;
  *)
    usage
    [[ $word == help || $word == --help ]] || exit 2
    ;;
esac
