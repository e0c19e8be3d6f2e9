"""Policies that plan with a learned model of the world."""
