"""Inference time, stage by stage, compared with other implementations."""
