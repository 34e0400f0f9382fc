/*
 * The link on this machine: the same code as on a chip, with memory from the heap and bytes from wherever the caller says.
 * Host only; boards do not build this folder.
 */
#ifndef LINK_HOST_H
#define LINK_HOST_H

#include "../link.h"

// What link_pty.c and firmware/link/simulated.py choose. Callbacks as in link_port_t and link_store_t.
typedef struct link_host {
    int (*read)(void *ctx, uint8_t *data, size_t size, int wait);
    int (*write)(void *ctx, const uint8_t *data, size_t size);
    int (*set_baud)(void *ctx, uint32_t rate);
    int (*store_erase)(void *ctx, int place); // NULL, and the next one: plain RAM
    int (*store_write)(void *ctx, int place, uint32_t offset, const uint8_t *data, uint32_t size);
    const uint8_t *model;
    uint8_t *store;             // two places, one behind the other; NULL: none
    uint32_t model_size;
    uint32_t memory_size;
    uint32_t place_size;
    uint32_t base_baud;
    uint32_t rows_ahead;
    uint32_t boot, reset;
} link_host_t;

// Serves until the port is gone. Returns LINK_CLOSED, or -100 when there is no memory.
int link_host_serve(const link_host_t *host);

#endif
