"""Inference time, stage by stage, beside peers."""
