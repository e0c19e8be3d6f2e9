"""Plain typed values that every part of vla_ros shares (numpy and pyyaml only)."""
