/*
 * See link_host.h.
 */
#include <stdlib.h>
#include <string.h>

#include "../../runtime/tess_watch.h"
#include "link_host.h"

enum { MOST_BOXES = 4096, LINE_BYTES = 65532, COUNTERS = 1 << 18, TRACKS = 64, NO_MEMORY = -100 };

// aligned like the work memory of a chip, and filled with what a chip's RAM might hold
static uint8_t *aligned(void **block, size_t size) {
    *block = malloc(size + TESS_ALIGN);
    if (!*block) {
        return NULL;
    }
    memset(*block, 0xD1, size + TESS_ALIGN);
    return (uint8_t *)*block + (TESS_ALIGN - (uintptr_t)*block % TESS_ALIGN) % TESS_ALIGN;
}

int link_host_serve(const link_host_t *host) {
    void *blocks[] = {malloc(sizeof(link_server_t)), malloc(MOST_BOXES * sizeof(tess_box_t)), malloc(LINE_BYTES),
        malloc(COUNTERS * sizeof(uint32_t)), malloc(TRACKS * sizeof(tess_track_t)), NULL};
    uint8_t *memory = aligned(&blocks[5], host->memory_size + 2 * TESS_WATCH_GUARD);
    uint8_t *edges[3] = {host->store, host->store + host->place_size, host->store + 2 * (size_t)host->place_size};
    link_store_t store = {
        .ctx = edges,
        .place = {edges[0], edges[1]},
        .size = host->place_size,
        .erase = host->store_erase ? host->store_erase : link_ram_erase,
        .write = host->store_write ? host->store_write : link_ram_write,
    };
    link_config_t config = {
        .port = {NULL, host->read, host->write, host->set_baud, host->base_baud, (uint16_t)host->rows_ahead},
        .start = {.boot = host->boot, .reset = host->reset},
        .board = "host",
        .firmware = LINK_FIRMWARE,
        .compiler = __VERSION__,
        .model = host->model,
        .model_size = host->model_size,
        .memory = memory + TESS_WATCH_GUARD,
        .memory_size = host->memory_size,
        .boxes = blocks[1],
        .max_boxes = MOST_BOXES,
        .line_bytes = LINE_BYTES,
        .line = blocks[2],
        .counters = blocks[3],
        .n_counters = COUNTERS,
        .tracks = blocks[4],
        .n_tracks = TRACKS,
        .store = host->store ? &store : NULL,
    };
    int err = NO_MEMORY;
    if (blocks[0] && blocks[1] && blocks[2] && blocks[3] && blocks[4] && memory) {
        err = link_serve(blocks[0], &config);
    }
    for (size_t i = 0; i < sizeof(blocks) / sizeof(blocks[0]); i++) {
        free(blocks[i]);
    }
    return err;
}
