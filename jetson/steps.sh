# Sourced by the scripts beside it: how they refuse, and take a step or, with --dry-run, only name it.
# shellcheck shell=bash
dry_run=

refuse() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 2
}

run() {
  if [[ -n $dry_run ]]; then
    printf 'would run:'
    printf ' %q' "$@"
    printf '\n'
  else
    "$@"
  fi
}
