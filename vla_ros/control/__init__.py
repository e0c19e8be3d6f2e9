"""Execution of chunks: timeline, blending, interpolation, limits and watchdogs (numpy only, no clock, no ROS)."""
