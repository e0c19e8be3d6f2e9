"""The vla-ros command."""
