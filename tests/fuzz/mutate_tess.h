/*
 * Mutations of a model.tess that know its structure and leave a right checksum, so that most of them reach what lies behind it.
 */
#ifndef MUTATE_TESS_H
#define MUTATE_TESS_H

#include <stddef.h>
#include <stdint.h>

// Changes a file of `size` bytes in place; it may grow up to `capacity`. Returns the new size. The same seed makes the same
// change. Any bytes will do.
size_t mutate_tess(uint8_t *model, size_t size, size_t capacity, uint32_t seed);

// Sets total_size and the checksum to what the bytes are.
void mend_tess(uint8_t *model, size_t size);

#endif
