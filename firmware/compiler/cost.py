"""What a scheduled program costs a chip: bytes of SRAM by part, bytes of flash by part, multiply-accumulates.

The sizes of the runtime's own parts are SPEC.md section 3; `tess_needed` in the C runtime computes the same sum.
"""

from dataclasses import dataclass

from firmware.compiler.instructions import count_instructions
from firmware.compiler.memory import LETTERBOX, Lifetime, MemoryPlan, ScheduledProgram, fresh_key

CANDIDATE_BYTES = 16
NODE_STATE_BYTES = 12
RUNTIME_BYTES = 128  # upper limit of sizeof(tess_t) on a 32-bit chip


@dataclass(frozen=True)
class Sram:
    """Work memory by part, bytes. Stack and a camera's own frame buffer are the board's and not in here."""

    activations: int
    state: int
    candidates: int
    runtime: int = RUNTIME_BYTES

    @property
    def work(self) -> int:
        """What `tess_needed` returns: the block that the caller hands to `tess_open`."""
        return self.activations + self.state + self.candidates

    @property
    def peak(self) -> int:
        return self.work + self.runtime


@dataclass(frozen=True)
class Cost:
    sram: Sram
    macs: int  # of the network
    scheduled_macs: int  # of one run under the schedule
    instructions: int  # of one run, by the model of instructions.py
    paper_sram: int  # activations without the input picture, decoder and state: the published convention

    @property
    def peak_sram(self) -> int:
        return self.sram.peak

    @property
    def recompute(self) -> float:
        """Share of multiply-accumulates that is done again."""
        return self.scheduled_macs / self.macs - 1.0 if self.macs else 0.0


def _round16(size: int) -> int:
    return -(-size // 16) * 16


def sram(scheduled: ScheduledProgram, activations: int, max_candidates: int) -> Sram:
    """Work memory of a schedule whose buffers need `activations` bytes."""
    longest = max(s.stop - s.first for s in scheduled.schedule.segments)
    return Sram(
        activations=_round16(activations),
        state=_round16(NODE_STATE_BYTES * longest),
        candidates=_round16(CANDIDATE_BYTES * max_candidates),
    )


def fixed_sram(max_candidates: int) -> int:
    """The part of every schedule's peak that is neither activations nor nodes' state, bytes."""
    return _round16(CANDIDATE_BYTES * max_candidates) + RUNTIME_BYTES


def estimate(scheduled: ScheduledProgram, plan: MemoryPlan, max_candidates: int = 0) -> Cost:
    """The cost of one schedule under one memory plan."""
    return Cost(
        sram=sram(scheduled, plan.arena_size, max_candidates),
        macs=scheduled.program.macs,
        scheduled_macs=scheduled.macs,
        instructions=count_instructions(scheduled),
        paper_sram=paper_sram(scheduled, plan),
    )


def paper_sram(scheduled: ScheduledProgram, plan: MemoryPlan) -> int:
    """Most bytes of feature maps alive in one step, the input picture left out (MCUNetV2, section 4, "analytic")."""
    lifetimes = [t for t in scheduled.lifetimes if t.key not in (0, fresh_key(0), LETTERBOX)]
    return max((_occupied([t for t in lifetimes if t.first <= a.first < t.stop], plan) for a in lifetimes), default=0)


def _occupied(alive: list[Lifetime], plan: MemoryPlan) -> int:
    """Bytes that buffers stand on; where two overlap, once."""
    total = reached = 0
    for start, size in sorted((plan.offsets[t.key], t.size) for t in alive):
        total += max(0, start + size - max(start, reached))
        reached = max(reached, start + size)
    return total
