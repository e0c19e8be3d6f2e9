"""Serving a loaded policy fast (torch, no ROS)."""
