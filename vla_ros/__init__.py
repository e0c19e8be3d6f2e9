"""vla_ros: vision-language-action policies on ROS 2 robots.

The generated messages (`vla_ros.msg`, `vla_ros.action`) live in the colcon install, this code may live in
a source tree: extending `__path__` lets one name cover both.
"""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
__version__ = "0.1.0"
