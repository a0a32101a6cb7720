#!/usr/bin/env bash
# Installs edgeseg on a Jetson into a virtual environment that sees the system's TensorRT and OpenCV, and never pip's:
# pip's OpenCV has no GStreamer, and pip's TensorRT is none for this GPU. It may be run again at any time.
#
# Nothing of the board is changed: neither power mode nor clocks nor swap, and no system package.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=steps.sh
source "$here/steps.sh"
venv=/opt/edgeseg/venv
from=$(dirname "$here")
python=/usr/bin/python3
root=

usage() {
  cat <<'TEXT'
usage: jetson/setup.sh [--venv DIR] [--from PATH] [--python FILE] [--dry-run]

  --venv DIR     virtual environment to make or to update  [default: /opt/edgeseg/venv]
  --from PATH    checkout or wheel of edgeseg              [default: the checkout that this script is in]
  --python FILE  the system's Python                       [default: /usr/bin/python3]
  --root DIR     read the board's files below DIR, for tests
  --dry-run      say what would be done, and do nothing
TEXT
}

while [[ $# -gt 0 ]]; do
  case $1 in
    --venv | --from | --python | --root)
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
    *)
      usage >&2
      refuse "unknown option $1"
      ;;
  esac
done

# Which JetPack: the L4T release that the board names, such as "# R36 (release), REVISION: 4.3, GCID: ...".
release_file=$root/etc/nv_tegra_release
[[ -r $release_file ]] || refuse "no $release_file | this is no Jetson: pip install edgeseg does here"
release=$(head -n 1 "$release_file")
[[ $release =~ R([0-9]+)\ .*REVISION:\ ([0-9]+)\.([0-9]+) ]] ||
  refuse "$release_file is not understood | got: $release"
major=${BASH_REMATCH[1]}
minor=${BASH_REMATCH[2]}
patch=${BASH_REMATCH[3]}
l4t=$major.$minor.$patch
known="expected JetPack 6.2 (L4T 36.4.3 to 36.5) or JetPack 7.2 (L4T 39.2)"

case $major in
  36)
    ((minor > 4 || (minor == 4 && patch >= 3))) ||
      refuse "L4T $l4t is JetPack 6.0 or 6.1 | $known | update: sudo apt update && sudo apt dist-upgrade"
    jetpack=6.2
    python_wanted=3.10
    tensorrt_usual=10.3
    ;;
  39)
    ((minor >= 2)) || refuse "L4T $l4t is not known | $known"
    jetpack=7.2
    python_wanted=3.12
    tensorrt_usual=10.16
    ;;
  38) refuse "L4T $l4t is JetPack 7.0 or 7.1 | $known | update the board to JetPack 7.2" ;;
  3[2-5]) refuse "L4T $l4t is JetPack 4 or 5, whose TensorRT 8 this edgeseg does not take | $known | flash JetPack 6.2" ;;
  *) refuse "L4T $l4t is not known | $known" ;;
esac

model=$(tr -d '\0' < "$root/proc/device-tree/model" 2> /dev/null || echo 'unknown board')
echo "board    $model"
echo "JetPack  $jetpack (L4T $l4t), Python $python_wanted, TensorRT $tensorrt_usual as delivered"

[[ -e $from ]] || refuse "no checkout or wheel at $from | give it: --from PATH"
if [[ -z $dry_run ]]; then
  [[ -x $python ]] || refuse "no Python at $python | give the system's: --python FILE"
  found=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  [[ $found == "$python_wanted" ]] ||
    refuse "$python is Python $found | JetPack $jetpack has its TensorRT for Python $python_wanted"
fi

echo "== the system's TensorRT and OpenCV"
run "$python" "$here/check_environment.py" --system

echo "== virtual environment $venv"
if [[ -e $venv/pyvenv.cfg ]]; then
  grep -q '^include-system-site-packages *= *true' "$venv/pyvenv.cfg" ||
    refuse "$venv does not see the system's packages, so neither TensorRT nor OpenCV | remove it, or name another: --venv"
  echo "is there"
else
  parent=$(dirname "$venv")
  [[ -n $dry_run || -w $parent || (! -e $parent && -w $(dirname "$parent")) ]] ||
    refuse "$parent cannot be written to | sudo mkdir -p $parent && sudo chown \"\$USER\" $parent"
  run "$python" -m venv --system-site-packages "$venv"
fi

echo "== packages"
run "$venv/bin/python" -m pip install --quiet --requirement "$here/requirements-$jetpack.txt"
# Its requirements are there by now. Left to itself, pip would fetch an OpenCV of its own.
run "$venv/bin/python" -m pip install --quiet --no-deps --force-reinstall "$from"

echo "== check"
run "$venv/bin/python" "$here/check_environment.py"
run "$venv/bin/edgeseg" --version

cat <<TEXT

edgeseg is $venv/bin/edgeseg. What it runs at is for you to choose, this script has changed nothing of it:
  sudo nvpmodel -q          the power mode; sudo nvpmodel -m N sets another one, see /etc/nvpmodel.conf
  sudo jetson_clocks        holds the clocks at the highest of the mode, until the next start
  swapon --show             8 GB boards need some to build engines
TEXT
