/*
 * See link_store.h. Record: "TSLT", sequence, size of the model, CRC-32 of these 12 bytes; the rest is 0xFF.
 */
#include <string.h>

#include "link_frame.h"
#include "link_store.h"
#include "tess_format.h"

static const uint8_t magic[4] = {'T', 'S', 'L', 'T'};

uint32_t link_store_room(const link_store_t *store) {
    return store ? store->size - LINK_STORE_RECORD : 0;
}

static int readable(const link_store_t *store, int place, uint32_t offset, uint32_t size) {
    return !store->readable || store->readable(store->ctx, place, offset, size);
}

link_stored_t link_store_look(const link_store_t *store, int place) {
    uint32_t room = link_store_room(store);
    const uint8_t *record = store->place[place] + room;
    link_stored_t stored = {0, 0};
    if (readable(store, place, room, LINK_STORE_RECORD) && memcmp(record, magic, sizeof(magic)) == 0
            && link_get32(record + 12) == tess_crc32(record, 12) && link_get32(record + 8) <= room
            && readable(store, place, 0, link_get32(record + 8))) {
        stored.sequence = link_get32(record + 4);
        stored.size = link_get32(record + 8);
    }
    return stored;
}

int link_store_commit(const link_store_t *store, int place, uint32_t sequence, uint32_t size) {
    uint8_t record[LINK_STORE_RECORD];
    memset(record, 0xFF, sizeof(record));
    memcpy(record, magic, sizeof(magic));
    link_put32(record + 4, sequence);
    link_put32(record + 8, size);
    link_put32(record + 12, tess_crc32(record, 12));
    if (store->write(store->ctx, place, link_store_room(store), record, sizeof(record)) < 0) {
        return -1;
    }
    link_stored_t stored = link_store_look(store, place);
    return stored.sequence == sequence && stored.size == size ? 0 : -1;
}

int link_ram_erase(void *ctx, int place) {
    uint8_t *const *edges = ctx;
    memset(edges[place], 0xFF, (size_t)(edges[place + 1] - edges[place]));
    return 0;
}

int link_ram_write(void *ctx, int place, uint32_t offset, const uint8_t *data, uint32_t size) {
    uint8_t *const *edges = ctx;
    memcpy(edges[place] + offset, data, size);
    return 0;
}
