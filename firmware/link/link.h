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
#include "tess_ap.h"
#include "tess_letterbox.h"
#include "tess_track.h"

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

    // Room to count average precision in: a word for each counter (tess_ap_counters) and half a word a score level. 0: none.
    uint32_t *counters;
    uint32_t n_counters;

    // Objects that can be followed at a time. 0: none.
    tess_track_t *tracks;
    uint16_t n_tracks;

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
    LINK_FOUND = 22,    // host: boxes of an earlier picture, to be taken for the last one's
    LINK_SCORE = 23,    // host: count the last picture's boxes; its truth follows
    LINK_TRUTH = 24,    // host: true objects
    LINK_TELL = 25,     // host: tell me the average precision
    LINK_TRACK = 26,    // host: follow the last picture's boxes
    LINK_INFO = 32,     // device: who I am
    LINK_PULL = 33,     // device: I need these rows
    LINK_HEADS = 34,    // device: parts of head maps
    LINK_BOXES = 35,    // device: objects
    LINK_PROFILE = 36,  // device: counts by node
    LINK_RESULT = 37,   // device: how a request ended
    LINK_SCORED = 38,   // device: how many pictures are counted
    LINK_PRECISION = 39, // device: average precision by class
    LINK_IDS = 40,      // device: who is who in the last picture
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
    LINK_ERR_COUNTERS = -71,   // no room to count this model's average precision
    LINK_ERR_OBJECTS = -72,    // more objects than there is room for
    LINK_ERR_ORDER = -73,      // not the next picture of what is counted or followed here
    LINK_ERR_FOUND = -74,      // the boxes of that picture are not, or no longer, here
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
    struct {                    // what config->boxes holds
        uint32_t session;       // 0: nothing
        uint16_t run;           // the request that found them
        uint16_t count;
    } found;
    struct {                    // average precision so far
        uint32_t id;            // of the evaluation; 0: none
        uint32_t pictures;
        tess_ap_t ap;
    } score;
    struct {                    // who is followed
        uint32_t id;            // of the stream of pictures; 0: none
        uint32_t pictures;
        tess_tracker_t tracker;
        uint16_t count;         // of the last picture's ids
        uint8_t held;           // they are still in the work memory
    } follow;
    uint32_t line_held;         // number of the line in the line buffer
    uint32_t line_size;
} link_server_t;

// Serves until the port is gone; returns LINK_CLOSED then.
int link_serve(link_server_t *server, const link_config_t *config);

#endif
