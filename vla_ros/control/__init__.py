"""Executing chunks: timeline, blending, interpolation, safety (numpy only, no clock, no ROS)."""
