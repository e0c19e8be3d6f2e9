"""Shared network blocks (torch)."""
