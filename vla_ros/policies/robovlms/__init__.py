"""RoboVLMs: a vision-language model with an action token, and a head with memory."""
