# The environment of a machine without ROS, after scripts/setup.sh. To be sourced: . scripts/env.sh
# It replaces what a sourced ROS installation has set: the two must not be mixed.
if [ -n "${BASH_SOURCE:-}" ]; then _root=${BASH_SOURCE[0]}; else _root=$0; fi
_root=$(cd "$(dirname "$_root")/.." && pwd)

export VIRTUAL_ENV=$_root/.venv
case ":$PATH:" in *":$VIRTUAL_ENV/bin:"*) ;; *) export PATH=$VIRTUAL_ENV/bin${PATH:+:$PATH} ;; esac
unset PYTHONHOME ROS_DISTRO RMW_IMPLEMENTATION _ROS_WHEELS_BOOTSTRAP_COMPLETE
export AMENT_PREFIX_PATH=$_root/.ros/install:$VIRTUAL_ENV
export LD_LIBRARY_PATH=$_root/.ros/install/lib
# The source tree first: the built package holds the messages alone.
PYTHONPATH=$_root
for _folder in "$VIRTUAL_ENV"/lib/python3.*; do
  PYTHONPATH=$PYTHONPATH:$_root/.ros/install/lib/${_folder##*/}/site-packages
done
export PYTHONPATH
export MUJOCO_GL=${MUJOCO_GL:-$(cat "$_root/.ros/graphics" 2>/dev/null || echo egl)}
export PYTHONUNBUFFERED=1
unset _root _folder
