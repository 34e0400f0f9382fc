/*
 * See tess_host.h.
 */
#define _POSIX_C_SOURCE 199309L // clock_gettime

#include <string.h>
#include <time.h>

#include "../tess_letterbox.h"
#include "tess_host.h"

/// Sources and sinks of arrays ///

typedef struct frame {
    const uint8_t *pixels;
    size_t pixel_size, row_size;
} frame_t;

static int frame_row(void *ctx, uint16_t y, uint16_t col0, uint16_t col1, uint8_t *pixels) {
    const frame_t *frame = ctx;
    memcpy(pixels, frame->pixels + y * frame->row_size + col0 * frame->pixel_size, (size_t)(col1 - col0) * frame->pixel_size);
    return 0;
}

static const uint8_t *frame_line(void *ctx, uint16_t y) {
    const frame_t *frame = ctx;
    return frame->pixels + y * frame->row_size;
}

typedef struct arrays {
    const tess_t *t;
    int8_t *const *outputs;
} arrays_t;

static int store(void *ctx, uint16_t output, uint16_t y, uint16_t col0, uint16_t col1, const int8_t *data) {
    const arrays_t *arrays = ctx;
    tess_output_info_t info;
    int err = tess_output_info(arrays->t, output, &info);
    if (!err) {
        size_t at = ((size_t)y * info.width + col0) * info.channels;
        memcpy(arrays->outputs[output] + at, data, (size_t)(col1 - col0) * info.channels);
    }
    return err;
}

static int run(tess_t *t, const tess_source_t *source, int8_t *const *outputs) {
    arrays_t arrays = {t, outputs};
    tess_sink_t sink = {store, &arrays};
    tess_set_sink(t, outputs ? &sink : NULL);
    int err = tess_run(t, source);
    tess_set_sink(t, NULL);
    return err;
}

/// Flat functions ///

size_t tess_host_sizeof(void) {
    return sizeof(tess_t);
}

// wraps as tess_set_clock wants it: no band of a node takes four seconds
static uint32_t nanoseconds(void *ctx) {
    struct timespec now;
    (void)ctx;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint32_t)now.tv_sec * 1000000000u + (uint32_t)now.tv_nsec;
}

static void add_up(void *ctx, uint16_t segment, uint16_t node, uint16_t rows, uint32_t ticks) {
    uint64_t *ns = ctx;
    (void)segment, (void)rows;
    ns[node] += ticks;
}

void tess_host_profile(tess_t *t, uint64_t *ns) {
    tess_set_clock(t, ns ? nanoseconds : NULL, ns, add_up);
}

static frame_t whole_frame(const tess_t *t, const uint8_t *pixels) {
    uint16_t w, c;
    tess_input(t, NULL, &w, &c);
    frame_t frame = {pixels, c, (size_t)w * c};
    return frame;
}

int tess_host_run(tess_t *t, const uint8_t *frame, int8_t *const *outputs) {
    frame_t pixels = whole_frame(t, frame);
    tess_source_t source = {frame_row, &pixels};
    uint16_t w, h;
    tess_input(t, &h, &w, NULL);
    int err = tess_set_content(t, w, h);
    return err ? err : run(t, &source, outputs);
}

int tess_host_checksum(tess_t *t, const uint8_t *frame, uint32_t *sum) {
    frame_t pixels = whole_frame(t, frame);
    tess_source_t source = {frame_row, &pixels};
    return tess_checksum(t, &source, sum);
}

static frame_t picture_lines(const uint8_t *picture, uint16_t width, int format) {
    size_t pixel_size = format == TESS_RGB888 ? 3 : format == TESS_GREY ? 1 : 2;
    frame_t frame = {picture, pixel_size, width * pixel_size};
    return frame;
}

int tess_host_run_picture(tess_t *t, const uint8_t *picture, uint16_t width, uint16_t height, int format,
        int8_t *const *outputs, uint16_t content[2]) {
    tess_letterbox_t box;
    frame_t lines = picture_lines(picture, width, format);
    int err = tess_letterbox_init(&box, t, frame_line, &lines, width, height, format);
    if (err) {
        return err;
    }
    tess_letterbox_content(&box, &content[0], &content[1]);
    tess_source_t source = tess_letterbox_source(&box);
    return run(t, &source, outputs);
}

int tess_host_letterbox(tess_t *t, const uint8_t *picture, uint16_t width, uint16_t height, int format, uint16_t col0,
        uint16_t col1, uint8_t *frame, uint16_t content[2]) {
    tess_letterbox_t box;
    frame_t lines = picture_lines(picture, width, format);
    int err = tess_letterbox_init(&box, t, frame_line, &lines, width, height, format);
    uint16_t h, c;
    tess_input(t, &h, NULL, &c);
    tess_source_t source = tess_letterbox_source(&box);
    for (uint16_t y = 0; !err && y < h; y++) {
        err = source.row(source.ctx, y, col0, col1, frame + (size_t)y * (size_t)(col1 - col0) * c);
    }
    tess_letterbox_content(&box, &content[0], &content[1]);
    return err;
}
