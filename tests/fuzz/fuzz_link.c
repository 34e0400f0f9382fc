/*
 * A hostile host on the link. Whatever arrives, the device must answer with frames that are whole, stay inside of its memory, and
 * serve the next host.
 *
 * The input is a script: raw bytes, frames with right CRCs and any content, and what a friendly host would send next. Without
 * the latter a fuzzer would not get past the handshake.
 */
#define _POSIX_C_SOURCE 200112L

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "link.h"
#include "tess_watch.h"

int LLVMFuzzerInitialize(int *count, char ***arguments);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { PLACE = 4096, LINE = 96, BOXES = 6, TRACKS = 3, COUNTERS = 4096, MEMORY = 1 << 15, MOST_STEPS = 400, SESSION = 7, BOOT = 9 };
static const char model_path[] = "tests/fuzz/corpus/tess/seed-decoder-strips.tess";

static uint8_t *model;
static size_t model_size;

static struct {
    const uint8_t *script;
    size_t left;
    int steps;
    link_server_t *server;
    link_parser_t answers;
    uint8_t scratch[LINK_FRAME], wire[LINK_WIRE];
    size_t wire_at, wire_size;
} host;

static void require(int condition, const char *what) {
    if (!condition) {
        fprintf(stderr, "broken promise: %s\n", what);
        abort();
    }
}

static void *exactly(size_t size) {
    void *block = NULL;
    require(posix_memalign(&block, TESS_ALIGN, size) == 0, "memory for the test");
    memset(block, 0xFF, size);
    return block;
}

static uint8_t take(void) {
    if (host.left == 0) {
        return 0;
    }
    host.left--;
    return *host.script++;
}

/// What the host sends next ///

static void frame(uint8_t type, uint16_t seq, const uint8_t *payload, size_t length) {
    const link_t *link = &host.server->link;
    link_header_t header = {LINK_VERSION, type, seq, link->tx_next, 0, 8, SESSION, BOOT, (uint16_t)length};
    host.wire_size = link_frame_write(&header, payload, host.scratch, host.wire);
    host.wire_at = 0;
}

static void raw_bytes(void) {
    host.wire_size = take();
    host.wire_at = 0;
    for (size_t i = 0; i < host.wire_size; i++) {
        host.wire[i] = take();
    }
}

// any type, number near the expected one, any content
static void any_frame(void) {
    uint8_t payload[LINK_PAYLOAD];
    uint8_t type = take() % 40;
    uint16_t seq = (uint16_t)(host.server->link.rx_next + take() % 6 - 1);
    size_t length = take() * 3u % (LINK_PAYLOAD + 1);
    for (size_t i = 0; i < length; i++) {
        payload[i] = host.left ? take() : (uint8_t)i;
    }
    frame(type, seq, payload, length);
}

static void request(void) {
    static const uint8_t formats[] = {0, 1, 2, 3, LINK_NETWORK_ROWS, LINK_NETWORK_ROWS};
    uint8_t fields[8] = {1, 0, 0, 0, 0, 0, 0, 0}, kind = take() % 4;
    if (kind == 2) {
        uint8_t size = take();
        link_put32(fields + 4, size & 1 ? (uint32_t)model_size : size);
    } else if (kind == 3) {
        fields[2] = formats[take() % 6];
        fields[3] = take() & 3;
        fields[4] = take() % 80;
        fields[6] = take() % 80;
    }
    static const uint8_t types[] = {LINK_ASK, LINK_SELFTEST, LINK_LOAD, LINK_RUN};
    frame(types[kind], host.server->link.rx_next, fields, kind < 2 ? 2 : 8);
}

static void rows(void) {
    uint8_t payload[LINK_PAYLOAD];
    size_t most = take() * 2u, length = host.server->stream.bytes < most ? host.server->stream.bytes : most;
    link_put16(payload, host.server->stream.id);
    memset(payload + 2, take(), length);
    frame(LINK_ROWS, host.server->link.rx_next, payload, 2 + length);
}

// the model from a place that only the script knows to be right
static void chunk(void) {
    uint8_t payload[LINK_PAYLOAD];
    uint32_t offset = take() * 480u, length = 480;
    offset = offset < model_size ? offset : 0;
    length = model_size - offset < length ? (uint32_t)(model_size - offset) : length;
    link_put32(payload, offset);
    memcpy(payload + 4, model + offset, length);
    frame(LINK_CHUNK, host.server->link.rx_next, payload, 4 + length);
}

// boxes, truth and what is asked of them, with numbers that a friendly host would use, or not
static void after(void) {
    uint8_t payload[LINK_PAYLOAD] = {0};
    uint8_t kind = take() % 5, count = take() % 8;
    uint16_t run = (uint16_t)(host.server->found.run + take() % 3 / 2);
    uint32_t number = take() % 4;
    static const uint8_t types[] = {LINK_FOUND, LINK_SCORE, LINK_TRUTH, LINK_TELL, LINK_TRACK};
    const size_t sizes[] = {4 + 12u * count, 22, 2 + 20u * count, 8, 30};
    for (size_t i = 4; i < sizes[kind]; i++) {
        payload[i] = take();
    }
    link_put16(payload, kind == 0 ? run : 1);
    link_put16(payload + 2, kind == 0 ? number / 2 * host.server->found.count : run);
    if (kind != 0 && kind != 2) {
        link_put32(payload + 4, 1 + count / 7u);
        link_put32(payload + 8, number);
    }
    if (kind == 1) {
        link_put16(payload + 20, count);
    }
    frame(types[kind], host.server->link.rx_next, payload, sizes[kind]);
}

static void next(void) {
    switch (take() % 9) {
    case 0: raw_bytes(); break;
    case 1: any_frame(); break;
    case 2: frame(LINK_HELLO, 0, NULL, 0); break;
    case 3: frame(LINK_POLL, 0, NULL, 0); break;
    case 4: request(); break;
    case 5: chunk(); break;
    case 8: after(); break;
    default: rows(); break;
    }
}

/// The port ///

static int port_read(void *ctx, uint8_t *data, size_t size, int wait) {
    (void)ctx;
    if (host.wire_at == host.wire_size) {
        if (!wait) {
            return 0;
        }
        if (host.left == 0 || ++host.steps > MOST_STEPS) {
            return -1;
        }
        next();
    }
    size_t count = host.wire_size - host.wire_at < size ? host.wire_size - host.wire_at : size;
    memcpy(data, host.wire + host.wire_at, count);
    host.wire_at += count;
    return (int)count;
}

static int port_write(void *ctx, const uint8_t *data, size_t size) {
    link_header_t header;
    int frames = 0;
    (void)ctx;
    for (size_t i = 0; i < size; i++) {
        int found = link_parse(&host.answers, data[i]);
        require(found >= 0, "frames that are whole");
        if (found > 0) {
            require(link_frame_read(host.answers.frame, (size_t)found, &header) == 0, "frames with right CRCs");
            require(header.boot == BOOT && header.version == LINK_VERSION, "frames of this device");
            frames++;
        }
    }
    require(frames == 1, "a frame a write");
    return 0;
}

static int set_baud(void *ctx, uint32_t rate) {
    (void)ctx;
    return rate > 1000000 ? -1 : 0;
}

/// One input ///

int LLVMFuzzerInitialize(int *count, char ***arguments) {
    (void)count, (void)arguments;
    FILE *file = fopen(model_path, "rb");
    require(file != NULL, "the corpus, in the repository's folder");
    model = exactly(PLACE * 4);
    model_size = fread(model, 1, PLACE * 4, file);
    fclose(file);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t *memory = exactly(MEMORY + 2 * TESS_WATCH_GUARD), *line = exactly(LINE), *places = exactly(2 * PLACE * 4);
    tess_box_t *boxes = exactly(BOXES * sizeof(*boxes));
    tess_track_t *tracks = exactly(TRACKS * sizeof(*tracks));
    uint32_t *counters = exactly(COUNTERS * sizeof(*counters));
    uint8_t *edges[3] = {places, places + PLACE * 4, places + 2 * PLACE * 4};
    link_store_t store = {edges, {edges[0], edges[1]}, PLACE * 4, link_ram_erase, link_ram_write};
    link_config_t config = {
        .port = {NULL, port_read, port_write, set_baud, 115200, size > 0 ? data[0] & 3 : 0},
        .start = {.boot = BOOT},
        .board = "fuzz", .firmware = "", .compiler = "",
        .model = model, .model_size = model_size,
        .memory = memory + TESS_WATCH_GUARD, .memory_size = MEMORY,
        .boxes = boxes, .max_boxes = BOXES, .line = line, .line_bytes = LINE,
        .counters = counters, .n_counters = COUNTERS, .tracks = tracks, .n_tracks = TRACKS, .store = &store,
    };
    memset(&host, 0, sizeof(host));
    host.script = data;
    host.left = size;
    host.server = exactly(sizeof(*host.server));
    memset(host.server, 0, sizeof(*host.server));
    frame(LINK_HELLO, 0, NULL, 0);
    size_t needed = 0;
    require(tess_needed(model, model_size, &needed) == 0 && needed <= MEMORY, "a model that opens");
    require(link_serve(host.server, &config) == LINK_CLOSED, "serving until the port is gone");
    require(host.server->runs == 0 || !tess_watch_broken(memory + TESS_WATCH_GUARD, MEMORY), "the guards of the work memory");
    free(host.server);
    free(boxes);
    free(tracks);
    free(counters);
    free(places);
    free(line);
    free(memory);
    return 0;
}
