# The environment of `make setup` in an image: Python, the ROS 2 (Kilted) wheels, the built messages, the simulator.
#   docker build -t vla_ros .
#   docker run --rm -v "$PWD/runs:/vla_ros/runs" vla_ros vla-ros demo --lockstep
# A robot's drivers outside: --network host --ipc host. Everybody on that network may then command it (docs/security.md).
FROM python:3.12-slim-bookworm

# What scripts/setup.sh would install itself, in a layer that a change of the sources does not make anew.
# Debian drops older versions of a package when it updates it.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
       g++ git libegl-mesa0 libegl1 libgl1-mesa-dri libgles2 libosmesa6 make \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /vla_ros
COPY . .
RUN scripts/setup.sh && rm -rf /root/.cache

ENTRYPOINT ["/vla_ros/scripts/in_environment.sh"]
CMD ["vla-ros", "--help"]
