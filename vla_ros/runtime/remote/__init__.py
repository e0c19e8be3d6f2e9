"""Policies on another machine: openpi's websocket protocol, from both its ends."""
