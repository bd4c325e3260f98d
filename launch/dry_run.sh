# shellcheck shell=bash disable=SC2154
# Sourced by the scripts beside it: with $dry set, commands are printed instead of run.

say() {
  printf '%q ' "$@"
  echo
}

do_it() {
  if [[ $dry ]]; then say "$@"; else "$@"; fi
}

needs() { # variables that the script, or its verb $word, cannot do without
  local name script="launch/${0##*/}"
  for name in "$@"; do
    if [[ -z ${!name:-} ]]; then
      echo "$script${word:+ $word}: $name is not set; see $script help." >&2
      exit 2
    fi
  done
}
