"""RoboVLMs: a vision-language model, an action token in it, and a head with memory."""
