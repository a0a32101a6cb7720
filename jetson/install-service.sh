#!/usr/bin/env bash
# Installs the camera loop as a systemd service: user, bundle with its engines and profile, unit. It may be run again.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=steps.sh
source "$here/steps.sh"
bundle=
source=csi:0
device=tensorrt:0
options=
profile=
venv=/opt/edgeseg/venv
root=

usage() {
  cat <<'TEXT'
usage: sudo jetson/install-service.sh BUNDLE [--source SRC] [--device DEV] [--profile FILE] [--options "..."]
                                      [--venv DIR] [--dry-run]

  BUNDLE           folder NAME.edgeseg; the engines beside it, NAME.engines, come along
  --source SRC     what edgeseg run takes as --source              [default: csi:0]
  --device DEV     what edgeseg run takes as --device              [default: tensorrt:0]
  --profile FILE   device profile to pick by                       [default: none, the first start measures]
  --options "..."  further options of edgeseg run, such as "--json-lines /var/lib/edgeseg/lines.jsonl"
  --venv DIR       where jetson/setup.sh installed edgeseg         [default: /opt/edgeseg/venv]
  --root DIR       install below DIR, and neither users nor systemd are touched, for tests and images
  --dry-run        say what would be done, and do nothing
TEXT
}

# What concerns the running system is left out when installing into an image.
run_on_system() {
  if [[ -n $root ]]; then
    printf 'left out: %s\n' "$*"
  else
    run "$@"
  fi
}

while [[ $# -gt 0 ]]; do
  case $1 in
    --source | --device | --profile | --options | --venv | --root)
      [[ $# -ge 2 ]] || refuse "$1 needs a value"
      declare "${1#--}=$2"
      shift 2
      ;;
    --dry-run)
      dry_run=yes
      shift
      ;;
    -h | --help)
      usage
      exit 0
      ;;
    -*)
      usage >&2
      refuse "unknown option $1"
      ;;
    *)
      [[ -z $bundle ]] || refuse "two bundles, $bundle and $1 | one service runs one"
      bundle=${1%/}
      shift
      ;;
  esac
done

[[ -n $bundle ]] || {
  usage >&2
  refuse "no bundle"
}
[[ -f $bundle/manifest.json ]] || refuse "no bundle at $bundle | expected a folder that edgeseg export wrote"
[[ -z $profile || -f $profile ]] || refuse "no device profile at $profile | measure one: edgeseg profile $bundle"
for value in "$source" "$device" "$options"; do
  [[ $value != *\'* && $value != *$'\n'* ]] || refuse "no quotes and no line ends in values of the service | got: $value"
done
[[ $venv != /home/* && $venv != /root/* ]] ||
  refuse "$venv lies in a home, which the service does not see | install with jetson/setup.sh --venv /opt/edgeseg/venv"
[[ -n $root || -n $dry_run || -x $venv/bin/edgeseg ]] || refuse "no edgeseg in $venv | run jetson/setup.sh first"
[[ -n $root || -n $dry_run || $EUID -eq 0 ]] || refuse "users and services are root's | run it with sudo"

state=$root/var/lib/edgeseg
name=$(basename "$bundle")
engines=${bundle%.edgeseg}.engines

echo "== user edgeseg"
if ! getent passwd edgeseg > /dev/null; then
  run_on_system useradd --system --user-group --home-dir /var/lib/edgeseg --shell /usr/sbin/nologin edgeseg
fi
for group in video render; do
  if getent group "$group" > /dev/null; then
    run_on_system usermod --append --groups "$group" edgeseg
  fi
done

echo "== $name into $state"
run install -d -m 0750 "$state"
for folder in "$bundle" "$engines"; do
  [[ -d $folder ]] || continue
  # Beside the old one first: a service that is restarted meanwhile finds one of the two, whole.
  target=$state/$(basename "$folder")
  run rm -rf "$target.new"
  run cp -R "$folder" "$target.new"
  run rm -rf "$target"
  run mv "$target.new" "$target"
done
if [[ -n $profile ]]; then
  run install -m 0640 "$profile" "$state/profile.json"
  options="--profile /var/lib/edgeseg/profile.json${options:+ $options}"
fi
run_on_system chown -R edgeseg:edgeseg "$state"

echo "== $root/etc/edgeseg/edgeseg.env and edgeseg.service"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cat > "$scratch/edgeseg.env" <<TEXT
EDGESEG_BUNDLE='/var/lib/edgeseg/$name'
EDGESEG_SOURCE='$source'
EDGESEG_DEVICE='$device'
EDGESEG_OPTIONS='$options'
TEXT
sed "s|/opt/edgeseg/venv|$venv|g" "$here/edgeseg.service" > "$scratch/edgeseg.service"
run install -d -m 0755 "$root/etc/edgeseg" "$root/etc/systemd/system"
run install -m 0644 "$scratch/edgeseg.env" "$root/etc/edgeseg/edgeseg.env"
run install -m 0644 "$scratch/edgeseg.service" "$root/etc/systemd/system/edgeseg.service"
[[ -z $dry_run ]] || cat "$scratch/edgeseg.env"

run_on_system systemctl daemon-reload
run_on_system systemctl enable edgeseg.service
# Without waiting for the first labels: the camera may come later, and without a profile it measures first.
run_on_system systemctl --no-block restart edgeseg.service
echo "systemctl status edgeseg says how it is, journalctl -u edgeseg what it said"
