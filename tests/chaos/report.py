# SPDX-License-Identifier: Apache-2.0
"""What is printed of one run or many: figures as tables, findings in words, the counts last."""

from __future__ import annotations

from collections import Counter
from statistics import median

from tests.chaos.installation import Hold
from tests.chaos.records import Finding, Verdict
from tests.chaos.run import Run, TakeOver


class Report:
    """Adds up runs and their verdicts."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.findings: list[tuple[int, Finding]] = []
        """With the seed of their run."""
        self.faults: Counter[str] = Counter()
        self.take_overs: list[TakeOver] = []
        self.convergence = 0.0
        self.holds: list[Hold] = []
        self.runs = self.stimuli = 0
        self.figures: dict[str, float] = {}

    @property
    def ok(self) -> bool:
        return not self.findings

    def add(self, run: Run, verdict: Verdict) -> None:
        self.counts.update(verdict.counts)
        self.findings += [(run.record.seed, finding) for finding in verdict.findings]
        self.faults.update(fault.kind for fault in run.record.faults)
        self.take_overs += run.take_overs
        self.convergence = max(self.convergence, run.convergence)
        self.holds += run.holds
        self.runs += 1
        self.stimuli += run.stimuli
        self.figures = dict(verdict.figures)

    def progress(self) -> str:
        """One line."""
        return (
            f"round {self.runs}: {self.faults.total()} faults, {self.stimuli} stimuli, "
            f"{self.figures.get('messages', 0):g} messages, {len(self.findings)} findings"
        )

    def text(self) -> str:
        """The whole report; the counts are its last line."""
        lines = [f"{kind:<24}{count:>6}" for kind, count in sorted(self.faults.items())]
        lines.append(f"{'faults in all':<24}{self.faults.total():>6}  in {self.runs} rounds, {self.stimuli} stimuli")
        lines += [f"{name:<24}{value:>6g}" for name, value in self.figures.items()]
        lines.append(f"{'longest convergence':<24}{self.convergence:>6.1f}  s")
        longest = max((hold.seconds for hold in self.holds), default=0.0) * 1000
        computed = max((hold.computed for hold in self.holds), default=0.0) * 1000
        lines.append(f"{'longest hold of a loop':<24}{longest:>6.0f}  ms; by computing {computed:.0f} ms")
        for cause in sorted({each.cause for each in self.take_overs}):
            times = [each.seconds for each in self.take_overs if each.cause == cause]
            lines.append(
                f"{f'take-over after {cause}':<24}{max(times):>6.2f}  s at most, {median(times):.2f} s in the middle,"
                f" of {len(times)}"
            )
        lines += [f"{finding.kind}, seed {seed}: {finding.text}" for seed, finding in self.findings]
        lines.append(self.verdict())
        return "\n".join(lines)

    def verdict(self) -> str:
        """``lost 0 unexpected 0 ...``"""
        return " ".join(f"{kind} {count}" for kind, count in self.counts.items())
