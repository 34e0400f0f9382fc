/*
 * Two places for a model that came over the link: while one is in use the other is written, so the old model outlives every
 * accident. SPEC.md section 8.5.
 *
 * A place ends with a record that is written last, after the model was opened: without it the place is empty. The port only
 * erases and writes; flash sectors and RAM look alike.
 */
#ifndef LINK_STORE_H
#define LINK_STORE_H

#include <stddef.h>
#include <stdint.h>

enum {
    LINK_STORE_UNIT = 32,   // writes begin and end at multiples of it: a flash word of the widest kind
    LINK_STORE_RECORD = 32, // at the end of each place
};

typedef struct link_store {
    void *ctx;

    // Both places, aligned to 16 bytes, read in place; `size` bytes each, a multiple of LINK_STORE_UNIT.
    const uint8_t *place[2];
    uint32_t size;

    // Makes a place empty: all bytes 0xFF. Returns 0, or negative when it fails.
    int (*erase)(void *ctx, int place);

    // Writes to an erased part of a place; offset and size are multiples of LINK_STORE_UNIT. Returns 0, or negative.
    int (*write)(void *ctx, int place, uint32_t offset, const uint8_t *data, uint32_t size);

    // Whether all these bytes can be read; offset is a multiple of LINK_STORE_UNIT. NULL where nothing can make a byte unreadable.
    // In a flash with error correction a cut write or erase can, and reading it is a fault.
    int (*readable)(void *ctx, int place, uint32_t offset, uint32_t size);
} link_store_t;

// What a place holds.
typedef struct link_stored {
    uint32_t sequence; // 0: nothing
    uint32_t size;     // of the model, at the start of the place
} link_stored_t;

// Reads a place's record. A place with bytes that cannot be read is empty.
link_stored_t link_store_look(const link_store_t *store, int place);

// Largest model that fits.
uint32_t link_store_room(const link_store_t *store);

// Writes the record that makes a place valid. Returns 0, or negative when writing fails or reads back otherwise.
int link_store_commit(const link_store_t *store, int place, uint32_t sequence, uint32_t size);

// A store in RAM: ctx is a `uint8_t *[3]`, both places and the end of the second one, which lie one behind the other.
int link_ram_erase(void *ctx, int place);
int link_ram_write(void *ctx, int place, uint32_t offset, const uint8_t *data, uint32_t size);

#endif
