/*
 * A device that runs models for a host: pictures come in by rows as the network asks for them, head maps and boxes go out.
 *
 * This header is the manual; what goes over the wire is SPEC.md section 8. The application fills a link_config_t and calls
 * link_serve, which returns only when the port is gone:
 *
 *     static link_server_t server;
 *     link_serve(&server, &config);
 *
 * No malloc, no clock, no interrupt: all buffers are in link_server_t (about 6 KB with the default sizes), and nothing that
 * arrives can be written anywhere but there, in the work memory and in the store.
 */
#ifndef LINK_H
#define LINK_H

#include "link_session.h"
#include "link_store.h"
#include "tess.h"
#include "tess_letterbox.h"

enum link_unit {
    LINK_UNCOUNTED = 0,
    LINK_INSTRUCTIONS = 1, // an emulator's
    LINK_CYCLES = 2,       // a chip's
};

// A stopwatch that stands still while rows and results are transferred. All functions get ctx.
typedef struct link_meter {
    void *ctx;
    void (*reset)(void *ctx);
    void (*resume)(void *ctx);
    void (*pause)(void *ctx);
    uint64_t (*total)(void *ctx);
} link_meter_t;

enum link_caches {
    LINK_INSTRUCTION_CACHE = 1,
    LINK_DATA_CACHE = 2,
};

// What the board gives and says of itself. Pointers stay valid as long as link_serve runs.
typedef struct link_config {
    link_port_t port;
    link_start_t start;

    // For INFO: names, up to 79 bytes each, and what counts mean.
    const char *board, *firmware, *compiler;
    uint32_t clock_hz;            // 0: unknown or meaningless
    uint8_t unit;                 // enum link_unit, of meter
    uint8_t caches;               // enum link_caches, those that are on

    // The model in the image, used when the store holds none. NULL: none.
    const uint8_t *model;
    size_t model_size;

    // Work memory, aligned to TESS_ALIGN, with TESS_WATCH_GUARD bytes before and behind it that belong to it as well.
    uint8_t *memory;
    size_t memory_size;

    // Room for boxes, and for one line of a picture that is letterboxed here.
    tess_box_t *boxes;
    uint16_t max_boxes;
    uint16_t line_bytes;
    uint8_t *line;

    // Optional, NULL: places for loaded models, a stopwatch, the stack's paint.
    const link_store_t *store;
    const link_meter_t *meter;
    void (*stack_paint)(void);
    uint32_t (*stack_high_water)(void);

    // Counts for each node in a build with TESS_PROFILE, else NULL and 0.
    uint64_t *profile;
    uint16_t n_profile;
} link_config_t;

// Sequenced messages. SPEC.md section 8.3 has their fields.
enum link_message_type {
    LINK_ASK = 16,      // host: tell me who you are
    LINK_RUN = 17,      // host: run this picture
    LINK_ROWS = 18,     // host: bytes of the rows that were pulled
    LINK_SELFTEST = 19, // host: run the model's own picture
    LINK_LOAD = 20,     // host: a new model of this size follows
    LINK_CHUNK = 21,    // host: a part of it
    LINK_INFO = 32,     // device: who I am
    LINK_PULL = 33,     // device: I need these rows
    LINK_HEADS = 34,    // device: parts of head maps
    LINK_BOXES = 35,    // device: objects
    LINK_PROFILE = 36,  // device: counts by node
    LINK_RESULT = 37,   // device: how a request ended
};

enum link_run_flags {
    LINK_RAW = 1,   // send head maps
    LINK_DETECT = 2 // decode, send boxes
};

enum { LINK_NETWORK_ROWS = 255 }; // RUN's format beside enum tess_format: rows of the network frame, letterboxed by the host

// Status of a RESULT beside enum tess_err.
enum link_status {
    LINK_ERR_NO_STORE = -64,   // no place for models on this device
    LINK_ERR_TOO_BIG = -65,    // the model is larger than a place
    LINK_ERR_STORE = -66,      // erasing or writing failed
    LINK_ERR_BOXES = -67,      // the model may find more boxes than there is room for
    LINK_ERR_LINE = -68,       // a line of the picture is longer than the line buffer
    LINK_ERR_NO_MODEL = -69,   // there is no model on this device
    LINK_ERR_PROFILE = -70,    // the model has more nodes than there are counters
};

// The server's state. The caller owns it; fields are private.
typedef struct link_server {
    const link_config_t *config;
    link_t link;
    tess_t tess;
    const uint8_t *model;       // NULL: none
    uint32_t model_size;
    int place;                  // of the model in use; -1: the image's own
    int status;                 // of opening it
    int error;                  // LINK_OVER or LINK_CLOSED, when a run has to end because of it
    uint32_t runs;              // for the choice of paint
    struct {                    // the request that is being answered
        uint16_t id;
        uint8_t bytes_per_pixel;
        uint16_t rows;          // of the picture
        uint32_t checksum, pulls;
    } run;
    struct {                    // rows that were pulled
        uint16_t id, y, rows, col0, col1;
        uint32_t bytes;         // that have not been read yet
        link_message_t message;
        uint16_t at;            // next byte of message; 0: none is held
    } stream;
    struct {                    // head maps on their way out
        uint8_t *payload;       // NULL: no buffer is reserved
        size_t size;
    } heads;
    uint32_t line_held;         // number of the line in the line buffer
    uint32_t line_size;
} link_server_t;

// Serves until the port is gone; returns LINK_CLOSED then.
int link_serve(link_server_t *server, const link_config_t *config);

#endif
