"""What an evaluation tries, and what came of it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Episode:
    """What is to be tried: the layout's seed, what the policy is told, and what success is judged by."""

    seed: int
    kind: str
    instruction: str
    judged: str
    time_limit: float


@dataclass(frozen=True)
class Outcome:
    """What became of an episode; times in s of simulated time."""

    seed: int
    instruction: str
    judged: str
    success: bool
    time: float
