/* The application that serves the link over the board's serial line, with the embedded model until another one is loaded. */
#include <string.h>

#include "link.h"
#include "meter.h"
#include "port.h"
#include "tess_watch.h"

// Made by storage.S.
extern const uint8_t app_model[], app_model_end[];
extern uint8_t app_arena[], app_arena_end[];
extern tess_box_t app_boxes[], app_boxes_end[];
extern uint32_t app_counters[], app_counters_end[];
extern uint64_t app_profile[], app_profile_end[];
extern uint8_t app_places[], app_places_middle[], app_places_end[];

// Neither cleared nor written by the start-up code: tells one start from another.
static uint32_t starts __attribute__((section(".noinit")));

enum { TRACKS = 64 };

static link_server_t server;
static meter_t meter;
static uint8_t line[APP_LINE_BYTES];
static tess_track_t tracks[TRACKS];

/// Serial line ///

static int uart_read(void *ctx, uint8_t *data, size_t size, int wait) {
    int byte = port_uart_get(), count = 0;
    (void)ctx;
    if (byte < 0 && wait) {
        port_uart_wait();
        byte = port_uart_get();
    }
    while (byte >= 0) {
        data[count++] = (uint8_t)byte;
        byte = (size_t)count < size ? port_uart_get() : -1;
    }
    return count;
}

static int uart_write(void *ctx, const uint8_t *data, size_t size) {
    (void)ctx;
    for (size_t i = 0; i < size; i++) {
        port_uart_put(data[i]);
    }
    return 0;
}

/// Stopwatch ///

static void reset(void *ctx) {
    meter_reset(ctx);
}

static void resume(void *ctx) {
    meter_resume(ctx);
}

static void pause(void *ctx) {
    meter_pause(ctx);
}

static uint64_t total(void *ctx) {
    return ((meter_t *)ctx)->instructions;
}

int main(void) {
    static const link_meter_t stopwatch = {&meter, reset, resume, pause, total};
    static uint8_t *edges[3] = {app_places, app_places_middle, app_places_end};
    const link_store_t store = {
        .ctx = edges,
        .place = {app_places, app_places_middle},
        .size = (uint32_t)(app_places_middle - app_places),
        .erase = link_ram_erase,
        .write = link_ram_write,
    };
    link_config_t config = {
        .port = {.read = uart_read, .write = uart_write},
        .start = {.boot = ++starts * 2654435761u ^ (uint32_t)port_ticks(), .reset = LINK_RESET_UNKNOWN},
        .board = APP_BOARD,
        .firmware = LINK_FIRMWARE,
        .compiler = "gcc " __VERSION__,
        .model = app_model,
        .model_size = (size_t)(app_model_end - app_model),
        .memory = app_arena,
        .memory_size = (size_t)(app_arena_end - app_arena),
        .boxes = app_boxes,
        .max_boxes = (uint16_t)(app_boxes_end - app_boxes),
        .line = line,
        .line_bytes = sizeof(line),
        .counters = app_counters,
        .n_counters = (uint32_t)(app_counters_end - app_counters),
        .tracks = tracks,
        .n_tracks = TRACKS,
        .store = store.size > 0 ? &store : NULL,
        .meter = &stopwatch,
        .stack_paint = stack_paint,
        .stack_high_water = stack_high_water,
        .profile = app_profile,
        .n_profile = (uint16_t)(app_profile_end - app_profile),
    };
    meter_init(&meter);
    port_uart_init();
    port_describe(&config);
    return link_serve(&server, &config);
}
