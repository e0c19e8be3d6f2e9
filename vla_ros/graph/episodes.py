"""What an evaluation tries."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Episode:
    """What is to be tried: the layout's seed, what the policy is told, and what success is judged by."""

    seed: int
    kind: str
    instruction: str
    judged: str
    time_limit: float  # s of simulated time
