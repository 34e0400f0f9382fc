/* The local search of placement.py, thousands of tries for every plan: buffers are placed one after the other, each at the lowest
 * offset that those before it leave free, and the order is changed one move at a time. For the machine that plans, not for chips.
 *
 * A try costs what it changes: a buffer is placed anew only when a gap below it may have opened or its own place was taken. */
#include <stdint.h>
#include <string.h>

#define NOWHERE (-1) /* offset of a buffer that is not placed yet */

typedef struct {
    int32_t other; /* a buffer that lives beside this one */
    int32_t low;   /* open interval of offsets, counted from the other's, that this one may not have */
    int32_t high;
} barred_t;

typedef struct {
    int32_t count;
    const int32_t *sizes;
    const int32_t *begin; /* [count + 1] buffer n may not have barred[begin[n]] .. barred[begin[n + 1] - 1] */
    const barred_t *barred;
} buffers_t;

typedef struct {
    int32_t size;     /* bytes of the arena */
    int32_t *order;   /* [count] buffers */
    int32_t *offsets; /* [count] by buffer */
} placed_t;

typedef struct {
    const uint32_t *words; /* random bits, from the first again after the last */
    uint32_t count;
    uint32_t next;
} dice_t;

/* For a host to call: see placement.py. `scratch` is 6 * count numbers. Returns the size of the arena. */
int32_t placement_improve(int32_t count, const int32_t *sizes, const int32_t *begin, const barred_t *barred, const uint32_t *words,
                          uint32_t word_count, int32_t tries, int32_t enough, int32_t *order, int32_t *best, int32_t *scratch);

static uint32_t word(dice_t *dice) {
    const uint32_t value = dice->words[dice->next];
    dice->next = (dice->next + 1U) % dice->count;
    return value;
}

/* True with the given probability. */
static int chance(dice_t *dice, double probability) {
    const double high = (double)(word(dice) >> 5), low = (double)(word(dice) >> 6);
    return (high * 67108864.0 + low) / 9007199254740992.0 < probability;
}

/* A number from 0 to limit - 1. */
static int32_t below(dice_t *dice, int32_t limit) {
    uint32_t shift = 32, value;
    while (shift > 1 && (uint32_t)limit >> (32U - shift) != 0U) {
        shift--;
    }
    do {
        value = word(dice) >> shift;
    } while (value >= (uint32_t)limit);
    return (int32_t)value;
}

static int32_t lowest(const buffers_t *buffers, int32_t n, const int32_t *offsets) {
    int32_t offset = 0, before;
    do {
        before = offset;
        for (int32_t i = buffers->begin[n]; i < buffers->begin[n + 1]; i++) {
            const barred_t *bar = &buffers->barred[i];
            const int32_t other = offsets[bar->other];
            if (other >= 0 && other + bar->low < offset && offset < other + bar->high) {
                offset = other + bar->high;
            }
        }
    } while (offset != before);
    return offset;
}

/* The turn of a buffer that ends where the arena does, any of them. */
static int32_t reaching(const buffers_t *buffers, const placed_t *now, dice_t *dice) {
    int32_t found = 0, turn = 0;
    for (int32_t n = 0; n < buffers->count; n++) {
        found += now->offsets[n] + buffers->sizes[n] == now->size;
    }
    for (int32_t left = below(dice, found);; turn++) {
        const int32_t n = now->order[turn];
        if (now->offsets[n] + buffers->sizes[n] == now->size && left-- == 0) {
            return turn;
        }
    }
}

/* Marks those whose place may be another one, now that buffer n has left `from` (or NOWHERE) and stands at `to` (or NOWHERE).
 * Whoever comes before `since` in the old order `turns` had nothing of n in its way. */
static void disturb(const buffers_t *buffers, int32_t n, int32_t from, int32_t to, const int32_t *offsets, const int32_t *turns,
                    int32_t since, int32_t *stale) {
    for (int32_t i = buffers->begin[n]; i < buffers->begin[n + 1]; i++) {
        const barred_t *bar = &buffers->barred[i]; /* what n may not have; the other may not have the mirror of it */
        const int32_t own = offsets[bar->other], was = from >= 0 && turns[bar->other] > since;
        if (was && from == to) {
            continue;
        }
        if ((was && from - bar->high < own) || (to >= 0 && to - bar->high < own && own < to - bar->low)) {
            stale[bar->other] = 1;
        }
    }
}

/* `next` is `now` with the buffer at turn `moved` at another turn. Returns 0 where that takes a bigger arena. */
static int move(const buffers_t *buffers, const placed_t *now, int32_t moved, int32_t turn, placed_t *next, const int32_t *turns,
                int32_t *stale) {
    const int32_t count = buffers->count, mover = now->order[moved];
    const size_t bytes = (size_t)count * sizeof(int32_t);
    memset(stale, 0, bytes);
    memset(next->offsets, 0xff, bytes); /* NOWHERE */
    next->size = 0;
    if (turn > moved) {
        disturb(buffers, mover, now->offsets[mover], NOWHERE, now->offsets, turns, moved, stale);
    }
    stale[mover] = 1;
    for (int32_t i = 0, from = 0; i < count; i++) {
        from += from == moved;
        const int32_t n = i == turn ? mover : now->order[from++];
        const int32_t old = now->offsets[n], offset = stale[n] ? lowest(buffers, n, next->offsets) : old;
        if (offset + buffers->sizes[n] > now->size) {
            return 0;
        }
        if (offset != old || n == mover) { /* all but the mover are in the way of the same as before: of all behind them */
            disturb(buffers, n, old, offset, now->offsets, turns, n == mover ? moved : NOWHERE, stale);
        }
        next->order[i] = n;
        next->offsets[n] = offset;
        if (offset + buffers->sizes[n] > next->size) {
            next->size = offset + buffers->sizes[n];
        }
    }
    return 1;
}

int32_t placement_improve(int32_t count, const int32_t *sizes, const int32_t *begin, const barred_t *barred, const uint32_t *words,
                          uint32_t word_count, int32_t tries, int32_t enough, int32_t *order, int32_t *best, int32_t *scratch) {
    const buffers_t buffers = {count, sizes, begin, barred};
    const size_t bytes = (size_t)count * sizeof(int32_t);
    dice_t dice = {words, word_count, 0};
    placed_t now = {0, scratch, scratch + count}, next = {0, scratch + 2 * count, scratch + 3 * count};
    int32_t *turns = scratch + 4 * count, *stale = scratch + 5 * count;
    memcpy(now.order, order, bytes);
    memset(now.offsets, 0xff, bytes);
    for (int32_t i = 0; i < count; i++) {
        const int32_t n = order[i];
        now.offsets[n] = lowest(&buffers, n, now.offsets);
        turns[n] = i;
        if (now.offsets[n] + sizes[n] > now.size) {
            now.size = now.offsets[n] + sizes[n];
        }
    }
    int32_t best_size = now.size;
    memcpy(best, now.offsets, bytes);
    for (int32_t i = 0; i < tries && best_size > enough && count > 1; i++) {
        const int32_t moved = chance(&dice, 0.6) ? reaching(&buffers, &now, &dice) : below(&dice, count);
        const int32_t turn = chance(&dice, 0.3) ? 0 : below(&dice, moved ? moved : count);
        if (!move(&buffers, &now, moved, turn, &next, turns, stale)) {
            continue;
        }
        const placed_t other = now;
        now = next;
        next = other;
        for (int32_t t = 0; t < count; t++) {
            turns[now.order[t]] = t;
        }
        if (now.size < best_size) {
            best_size = now.size;
            memcpy(best, now.offsets, bytes);
        }
    }
    return best_size;
}
