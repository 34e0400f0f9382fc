/*
 * How much of the work memory a run touches, and whether anybody writes beside it. Optional; for tests and measurements.
 *
 * The caller gives tess_open the memory between two guards of TESS_WATCH_GUARD bytes. Before a run tess_watch_paint fills all
 * of it; afterwards tess_watch_touched finds the highest byte that changed and tess_watch_broken looks at the guards.
 */
#ifndef TESS_WATCH_H
#define TESS_WATCH_H

#include <stddef.h>
#include <stdint.h>

// Bytes before and behind the work memory.
#define TESS_WATCH_GUARD 16

// Fills `size` bytes at `memory` with `pattern`, a word, and the guards around them with theirs. A byte that a run happens to
// write like the pattern goes unnoticed: use another one the next time.
void tess_watch_paint(uint8_t *memory, size_t size, uint32_t pattern);

// Bytes up to the highest one that does not hold the pattern.
size_t tess_watch_touched(const uint8_t *memory, size_t size, uint32_t pattern);

// 0 when the guards are whole.
int tess_watch_broken(const uint8_t *memory, size_t size);

#endif
