#!/usr/bin/env bash
# dalle2 train on every host of a TPU VM (slice). Each word can be said again at any time.
set -euo pipefail

usage() {
  cat <<'HELP'
usage: [NAME=VALUE ...] launch/tpu_vm.sh [--dry-run] WORD [arguments of dalle2 train]

  create   the TPU VM, unless it is there
  push     this commit and its packages onto every host
  run      dalle2 train ARGUMENTS on every host, as a service that outlives this shell
           and starts again when it was preempted (exit code 75) or a host was lost
  logs     follow the service on the first host
  stop     end the service; it commits a checkpoint first
  delete   the TPU VM, unless it is gone

NAME     name of the TPU VM            (dalle2)
ZONE     such as us-east5-a            (needed)
TYPE     such as v5litepod-64          (needed by create)
RUNTIME  such as v2-alpha-tpuv5-lite   (needed by create)
FLAGS    more for create, as --spot

ZONE=us-east5-a launch/tpu_vm.sh run --config configs/clip.py --data '/mnt/shards/*.tar' \
    --workdir /mnt/runs/clip --model /mnt/runs/model
--workdir must be a file system that all hosts share (Filestore, GCS FUSE).
HELP
}

dry=""
if [[ ${1:-} == --dry-run ]]; then
  dry=yes
  shift
fi
word=${1:-help}
[[ $# -gt 0 ]] && shift
NAME=${NAME:-dalle2}
read -ra FLAGS <<<"${FLAGS:-}"

# shellcheck source=/dev/null
source "$(dirname "${BASH_SOURCE[0]}")/dry_run.sh"

there() {
  [[ ! $dry ]] &&
    gcloud compute tpus tpu-vm describe "$NAME" --zone="$ZONE" >/dev/null 2>&1
}

on_hosts() { # WHICH COMMAND
  do_it gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker="$1" --command="$2"
}

install_command() {
  cat <<'REMOTE'
set -e
mkdir -p ~/dalle2 && tar -xzf ~/dalle2.tar.gz -C ~/dalle2 && cd ~/dalle2
python3 -m pip install --quiet --user uv
[ -d .venv ] || python3 -m uv venv --quiet --python 3.12
python3 -m uv pip install --quiet --constraint constraints.txt --editable '.[tpu]'
REMOTE
}

run_command() {
  cat <<REMOTE
cd ~/dalle2
systemctl is-active --quiet dalle2 && { echo dalle2 is running already; exit 0; }
sudo systemctl reset-failed dalle2 2>/dev/null
sudo systemd-run --unit=dalle2 --uid=\$(id -u) --working-directory=\$HOME/dalle2 \
  --property=Restart=on-failure --property=RestartSec=30 \
  --property=RestartPreventExitStatus='1 2' --property=TimeoutStopSec=600 \
  --setenv=HOME=\$HOME \$HOME/dalle2/.venv/bin/dalle2 train $(printf '%q ' "$@")
REMOTE
}

case $word in
  create)
    needs ZONE TYPE RUNTIME
    if there; then
      echo "$NAME is there already"
    else
      do_it gcloud compute tpus tpu-vm create "$NAME" --zone="$ZONE" \
        --accelerator-type="$TYPE" --version="$RUNTIME" "${FLAGS[@]}"
    fi
    ;;
  push)
    needs ZONE
    tarball=$(mktemp --suffix=.tar.gz)
    trap 'rm -f "$tarball"' EXIT
    do_it git archive --format=tar.gz --output="$tarball" HEAD
    do_it gcloud compute tpus tpu-vm scp "$tarball" "$NAME:dalle2.tar.gz" \
      --zone="$ZONE" --worker=all
    on_hosts all "$(install_command)"
    ;;
  run)
    needs ZONE
    if [[ $# -eq 0 ]]; then
      echo "launch/tpu_vm.sh run: give the arguments of dalle2 train." >&2
      exit 2
    fi
    on_hosts all "$(run_command "$@")"
    ;;
  logs)
    needs ZONE
    on_hosts 0 "journalctl --unit=dalle2 --follow --lines=100 --output=cat"
    ;;
  stop)
    needs ZONE
    on_hosts all "sudo systemctl stop dalle2"
    ;;
  delete)
    needs ZONE
    if [[ $dry ]] || there; then
      do_it gcloud compute tpus tpu-vm delete "$NAME" --zone="$ZONE" --quiet
    else
      echo "$NAME is gone already"
    fi
    ;;
  *)
    usage
    [[ $word == help || $word == --help ]] || exit 2
    ;;
esac
