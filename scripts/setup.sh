#!/usr/bin/env bash
# All set-up on a machine without ROS: a virtual environment in .venv with the pinned packages of requirements/
# (among them the real ROS 2 wheels), the messages built with the real rosidl tools into .ros, and the graphics
# libraries that the simulator draws with. What is up to date is left alone: a second run takes a second.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD

say() { printf 'setup: %s\n' "$*" >&2; }
step() { say "step $1 of 4, ${SECONDS} s: $2"; }
die() { say "$*"; exit 1; }

# pip's output on standard input: how far it is, and what is large.
progress() {
  local line found=0
  while IFS= read -r line; do
    if [[ $line == "Collecting "* || $line == "Processing "* ]]; then
      found=$((found + 1))
      [ $((found % 20)) != 0 ] || say "  $found packages found"
    elif [[ $line =~ Downloading\ ([^\ ]*/)?([^\ /]+)\ \(([0-9]+)(\.[0-9]+)?\ ([MG])B\) ]]; then
      [ "${BASH_REMATCH[5]}" = M ] && [ "${BASH_REMATCH[3]}" -lt 20 ] ||
        say "  downloading ${BASH_REMATCH[2]}, ${BASH_REMATCH[3]} ${BASH_REMATCH[5]}B"
    elif [[ $line == "Installing collected packages: "* ]]; then
      say "  installing $found packages"
    fi
  done
}

# Two set-ups at a time would spoil each other; the second one waits.
mkdir -p .ros
if command -v flock >/dev/null; then
  exec 9>.ros/lock
  flock 9
fi

# A sourced ROS installation or another environment must not leak into this one.
unset PYTHONPATH PYTHONHOME AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH _ROS_WHEELS_BOOTSTRAP_COMPLETE
unset ROS_DISTRO ROS_VERSION ROS_PYTHON_VERSION RMW_IMPLEMENTATION

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

# install_system_packages WHAT_FOR PACKAGE...: through apt where the user may, else one line that says what to do.
install_system_packages() {
  local purpose=$1
  shift
  local advice="$purpose missing. Please install: sudo apt-get install -y $*"
  command -v apt-get >/dev/null || die "$purpose missing. Please install what Debian calls: $*"
  [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null || die "$advice"
  say "$purpose missing: installing $*"
  { as_root apt-get update -qq && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
      --no-install-recommends "$@"; } </dev/null >.ros/apt.log 2>&1 || die "$advice (see .ros/apt.log)"
}

# --- Python -----------------------------------------------------------------------------------------------
usable() {
  command -v "$1" >/dev/null &&
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}
python=
for candidate in ${PYTHON:-} python3 python3.12 python3.11 python3.13; do
  if usable "$candidate"; then python=$candidate; break; fi
done
[ -n "$python" ] || die "no Python 3.11, 3.12 or 3.13 found (set PYTHON=/path/to/python3.12)"

version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
missing=()
"$python" -c 'import ensurepip, venv' 2>/dev/null || missing+=("python$version-venv")
"$python" -c 'import os, sysconfig as s; assert os.path.exists(s.get_path("include") + "/Python.h")' 2>/dev/null ||
  missing+=("python$version-dev")
command -v g++ >/dev/null || missing+=(g++)
command -v make >/dev/null || missing+=(make)
[ ${#missing[@]} = 0 ] || install_system_packages "build tools" "${missing[@]}"

# --- Python packages --------------------------------------------------------------------------------------
requirements=(base bags train sim tool remote engine dev ros)
files=()
for name in "${requirements[@]}"; do files+=("requirements/$name.txt"); done
wanted=$({ echo "$root $version"; cat "${files[@]}" requirements/constraints.txt pyproject.toml; } | sha256sum | cut -d' ' -f1)
if [ "$(cat .venv/.complete 2>/dev/null)" != "$wanted" ]; then
  step 1 "installing Python packages into .venv (minutes, the first time)"
  # An installation that was cut off, or one by another Python or at another place, is made anew.
  if [ ! -e .venv/.complete ] || [ ! -e ".venv/lib/python$version" ] ||
     [ "$(cat .venv/.root 2>/dev/null)" != "$root" ]; then
    rm -rf .venv
  fi
  rm -f .venv/.complete
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  echo "$root" >.venv/.root
  pip=(env PYTHONUNBUFFERED=1 .venv/bin/python -m pip --disable-pip-version-check --no-input)
  # Without an NVIDIA GPU the small CPU build of torch will do, if its index can be reached.
  if ! command -v nvidia-smi >/dev/null; then
    "${pip[@]}" install --no-deps --retries 0 --timeout 20 --index-url https://download.pytorch.org/whl/cpu \
      --progress-bar off "$(sed -n 's/^\(torch==[^ ]*\).*/\1/p' requirements/base.txt)" 2>/dev/null | progress ||
      say "no CPU-only build of torch found, using the ordinary one"
  fi
  "${pip[@]}" install --progress-bar off -c requirements/constraints.txt "${files[@]/#/-r}" | progress
  "${pip[@]}" install --quiet --no-deps --no-build-isolation --editable .
  echo "$wanted" >.venv/.complete
fi

# --- messages ---------------------------------------------------------------------------------------------
. scripts/env.sh
wanted=$({ echo "$root $version"; cat CMakeLists.txt package.xml msg/* action/* vla_ros/__init__.py requirements/ros.txt
  cat test/interfaces/*/*.* test/interfaces/*/msg/*; } |
  sha256sum | cut -d' ' -f1)
if [ "$(cat .ros/complete 2>/dev/null)" != "$wanted" ]; then
  step 2 "building the messages into .ros (a minute)"
  rm -rf .ros/src .ros/build .ros/install .ros/complete
  # From a copy of the sources: CMake refuses to export include folders (those of .venv) inside the source folder.
  mkdir -p .ros/src/vla_ros
  cp -r CMakeLists.txt package.xml msg action .ros/src
  cp vla_ros/__init__.py .ros/src/vla_ros
  # test/interfaces: messages of a ROS distribution that the wheels lack.
  CMAKE_PREFIX_PATH=$VIRTUAL_ENV AMENT_PREFIX_PATH=$VIRTUAL_ENV colcon --log-base .ros/log build --merge-install \
    --base-paths .ros/src test/interfaces --build-base .ros/build --install-base .ros/install \
    --cmake-args -DPython3_EXECUTABLE="$VIRTUAL_ENV/bin/python" -DVLA_ROS_INTERFACES_ONLY=ON \
    </dev/null 2>&1 | tee .ros/build.log | sed -nu 's/^\(Starting\|Finished\)/setup:   \1/p' >&2 || { tail -n 40 .ros/build.log >&2; die "the messages did not build (.ros/build.log)"; }
  python -c 'import vla_ros.msg, vla_ros.action' || die "the messages were built but cannot be imported"
  echo "$wanted" >.ros/complete
fi

# --- graphics ---------------------------------------------------------------------------------------------
draws() {
  MUJOCO_GL=$1 python -c '
import mujoco
renderer = mujoco.Renderer(mujoco.MjModel.from_xml_string("<mujoco/>"), 16, 16)
renderer.render()
renderer.close()' >/dev/null 2>&1
}
find_graphics() {
  for library in egl osmesa; do
    if draws "$library"; then echo "$library" >.ros/graphics; return 0; fi
  done
  return 1
}
if [ ! -e .ros/graphics ]; then
  step 3 "looking for a graphics library of the simulator"
  find_graphics || {
    install_system_packages "graphics libraries of the simulator" \
      libegl1 libegl-mesa0 libgl1-mesa-dri libgles2 libosmesa6
    find_graphics || die "the simulator cannot draw, neither through EGL nor through OSMesa"
  }
fi
[ "$SECONDS" -lt 5 ] || step 4 "set up"
