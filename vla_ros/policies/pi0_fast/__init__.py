"""π0-FAST (Pertsch et al. 2025): π0's vision-language model, which generates a chunk as tokens of cosine
coefficients."""
