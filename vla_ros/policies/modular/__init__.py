"""Policies composed of parts that a configuration names."""
