"""How the instructions of a running recording ended."""

from dataclasses import dataclass


@dataclass
class Judged:
    """An instruction, its begin and end (ns), and its outcome: success, failure, aborted; "" if not reported."""

    instruction: str
    since_ns: int = 0
    until_ns: int = 0
    outcome: str = ""
    ended: bool = False
    asked: bool = False


class Judgements:
    """Collects instructions and outcomes in the order in which they are recorded.

    Attributes:
        all: what was instructed, in order.
    """

    def __init__(self) -> None:
        self.all: list[Judged] = []
        self._current = ""

    def instructed(self, text: str, now_ns: int = 0) -> None:
        """A new instruction; a repetition of the same text does not count, as for datasets."""
        if text != self._current:
            self.end(now_ns)
            self._current = text
            self.all += [Judged(text, now_ns)] if text else []

    def end(self, now_ns: int = 0) -> None:
        """The current instruction has ended."""
        if self._current:
            self.all[-1].ended, self.all[-1].until_ns, self._current = True, now_ns, ""

    def judged(self, outcome: str, instruction: str, at_ns: int = 0) -> None:
        """The last instruction with that text (or the last one, if it is empty), given until `at_ns`."""
        known = [one for one in self.all if not at_ns or one.since_ns <= at_ns]
        found = next((one for one in reversed(known) if instruction in ("", one.instruction)), None)
        if found is not None:
            found.outcome = outcome

    def unasked(self) -> list[Judged]:
        """Instructions that have ended without an outcome, each once."""
        found = [one for one in self.all if one.ended and not one.outcome and not one.asked]
        for one in found:
            one.asked = True
        return found

    def unanswered(self) -> Judged | None:
        """The first one that was asked about and has no outcome."""
        return next((one for one in self.all if one.asked and not one.outcome), None)

    def __str__(self) -> str:
        """Counts of the outcomes."""
        known = [one.outcome or "without an outcome" for one in self.all]
        return ", ".join(f"{known.count(name)} {name}" for name in sorted(set(known))) or "no instruction"
