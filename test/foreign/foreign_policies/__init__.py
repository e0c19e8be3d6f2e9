"""Three policies that do not denoise: one decodes tokens, one remembers, one plans."""
