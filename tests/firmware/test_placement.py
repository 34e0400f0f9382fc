"""The allocator: its plans against the checker, and its search in C against one in Python that places all anew each time."""

import random
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware.cc import BuildError, compile_c
from firmware.compiler import placement
from firmware.compiler.memory import Lifetime, MemoryPlan, Overlap, PlanError, check_plan
from firmware.compiler.placement import IMPROVEMENTS, barred_offsets, lower_bound, plan_memory

SANITIZED = ("-O1", "-g", "-Werror", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
INTERVALS = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 8), st.integers(1, 200)), min_size=1, max_size=25)
PAIRS = st.lists(st.tuples(st.integers(0, 24), st.integers(0, 24), st.integers(-20, 250)), max_size=8)


def instance(intervals: list, pairs: list) -> tuple[list[Lifetime], list[Overlap]]:
    lifetimes = [Lifetime(n, first, first + length, 4 * size) for n, (first, length, size) in enumerate(intervals)]
    known = {(b, a): Overlap(b, a, 4 * d) for b, a, d in pairs if max(a, b) < len(lifetimes) and a != b}
    return lifetimes, [o for (b, a), o in known.items() if (a, b) not in known or b < a]


def random_instance(seed: int, count: int) -> tuple[list[Lifetime], list[Overlap]]:
    """Like a schedule's: many short lives, some long ones, and tensors that hand their bytes on."""
    dice = random.Random(seed)
    lives = [(dice.randrange(40), dice.choice((1, 2, 2, 3, 9)), dice.randrange(1, 400)) for _ in range(count)]
    return instance(lives, [(n + 1, n, dice.randrange(60)) for n in range(0, count - 1, 3)])


def slow_search(order: list[int], sizes: Sequence[int], begin: np.ndarray, barred: np.ndarray) -> tuple[int, list[int]]:
    dice = random.Random(0)

    def place(order: list[int]) -> tuple[int, dict[int, int]]:
        offsets: dict[int, int] = {}
        for n in order:
            rows = barred[begin[n] : begin[n + 1]].tolist()
            offset = 0
            for start, low, high in sorted((offsets[o] + low, low, high) for o, low, high in rows if o in offsets):
                offset = start - low + high if start < offset < start - low + high else offset
            offsets[n] = offset
        return max(offsets[n] + sizes[n] for n in order), offsets

    size, offsets = place(order)
    best = size, offsets
    for _ in range(IMPROVEMENTS if len(order) > 1 else 0):
        top = [turn for turn, n in enumerate(order) if offsets[n] + sizes[n] == size]
        moved = dice.choice(top) if dice.random() < 0.6 else dice.randrange(len(order))
        turn = 0 if dice.random() < 0.3 else dice.randrange(moved or len(order))
        changed = [n for n in order if n != order[moved]]
        changed.insert(turn, order[moved])
        new_size, new_offsets = place(changed)
        if new_size <= size:
            order, size, offsets = changed, new_size, new_offsets
            best = min(best, (size, offsets), key=lambda found: found[0])
    return best[0], [best[1][n] for n in range(len(sizes))]


@given(INTERVALS, PAIRS)
@settings(max_examples=150, deadline=None)
def test_plans_pass_the_checker_and_respect_the_bounds(intervals: list, pairs: list) -> None:
    lifetimes, overlaps = instance(intervals, pairs)
    plan = plan_memory(lifetimes, overlaps)
    check_plan(lifetimes, plan, overlaps)
    assert plan.lower_bound == lower_bound(lifetimes, overlaps) <= plan.arena_size <= sum(t.size for t in lifetimes)
    assert plan.arena_size == max(plan.offsets[t.key] + t.size for t in lifetimes)
    assert plan == plan_memory(lifetimes, overlaps)


@pytest.mark.parametrize("seed", range(6))
def test_no_buffer_could_stand_lower(seed: int) -> None:
    lifetimes, overlaps = random_instance(seed, 16)
    plan = plan_memory(lifetimes, overlaps)
    for t in lifetimes:
        for offset in range(0, plan.offsets[t.key], 4):
            with pytest.raises(PlanError, match="overlap while alive"):
                check_plan(lifetimes, MemoryPlan({**plan.offsets, t.key: offset}, plan.arena_size, plan.lower_bound), overlaps)


@pytest.mark.parametrize("seed", range(30))
def test_the_search_finds_what_one_that_places_all_anew_finds(seed: int) -> None:
    lifetimes, overlaps = random_instance(seed, 3 + seed)  # none takes 0 B: the search never ends early
    begin, barred = barred_offsets(lifetimes, overlaps)
    sizes, order = [t.size for t in lifetimes], random.Random(seed).sample(range(len(lifetimes)), len(lifetimes))
    size, offsets = placement._improve(order, np.array(sizes, np.int32), begin, barred, 0)
    assert (size, offsets.tolist()) == slow_search(order, sizes, begin, barred)


def test_the_lower_bound_is_the_fullest_step() -> None:
    lifetimes = [Lifetime(0, 0, 2, 100), Lifetime(1, 1, 3, 60), Lifetime(2, 2, 4, 80)]
    assert lower_bound(lifetimes) == 160
    assert lower_bound(lifetimes, [Overlap(below=1, above=0, distance=8)]) == 140
    assert lower_bound(lifetimes, [Overlap(1, 0, 8), Overlap(2, 1, 0)]) == 108


def test_an_arena_that_is_big_enough_ends_the_search() -> None:
    lifetimes, overlaps = random_instance(9, 30)
    best, first = plan_memory(lifetimes, overlaps), plan_memory(lifetimes, overlaps, enough=1 << 20)
    assert best.arena_size < first.arena_size
    between = plan_memory(lifetimes, overlaps, enough=best.arena_size + 4)
    assert best.arena_size <= between.arena_size <= best.arena_size + 4


def test_more_than_offsets_can_tell_is_refused() -> None:
    with pytest.raises(PlanError, match=r"536,870,916 B together: planned is up to"):
        plan_memory([Lifetime(0, 0, 1, 1 << 29), Lifetime(1, 4, 5, 4)])


def test_the_search_in_c_under_sanitizers() -> None:
    try:
        program = compile_c([placement.SOURCE, Path(__file__).parent / "c" / "placement.c"], SANITIZED, "placement")
    except BuildError as error:
        pytest.skip(f"no compiler with sanitizers (apt-get install gcc libc6-dev): {error}")
    dice = placement._dice()
    for seed, count in enumerate((1, 2, 3, 10, 30, 80)):
        lifetimes, overlaps = random_instance(seed, count)
        begin, barred = barred_offsets(lifetimes, overlaps)
        sizes, order = np.array([t.size for t in lifetimes], np.int32), list(range(count))
        for words in (dice[:64], dice):  # a short row of numbers comes round again and again
            head = [count, len(barred), len(words), IMPROVEMENTS, 0]
            sent = np.concatenate([head, sizes, begin, barred.ravel(), words.view(np.int32), order]).astype(np.int32).tobytes()
            done = subprocess.run([program], input=sent, capture_output=True, timeout=60)
            assert done.returncode == 0, done.stderr.decode()[:3000]
        size, *offsets = map(int, done.stdout.split())
        found = placement._improve(order, sizes, begin, barred, 0)
        assert (size, offsets) == (found[0], found[1].tolist())
