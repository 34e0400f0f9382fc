/*
 * Letterbox by exact area mean. Along an axis with `size` source pixels and `content` network pixels, network pixel i covers
 * [i * size, (i + 1) * size) and source pixel j covers [j * content, (j + 1) * content): weights are lengths of overlap,
 * integers, and sum up to `size`. A row's sums reach 255 * width * height < 2^32.
 */
#include <string.h>

#include "tess_format.h"
#include "tess_letterbox.h"

typedef struct tess_rgb {
    uint32_t r, g, b;
} tess_rgb_t;

static inline tess_rgb_t widen565(uint32_t v) {
    uint32_t r = v >> 11, g = (v >> 5) & 63, b = v & 31;
    tess_rgb_t rgb = {r << 3 | r >> 2, g << 2 | g >> 4, b << 3 | b >> 2};
    return rgb;
}

static inline tess_rgb_t pixel_at(const uint8_t *line, uint32_t x, int format) {
    const uint8_t *two = line + 2 * x;
    if (format == TESS_RGB565_BE) {
        return widen565((uint32_t)two[0] << 8 | two[1]);
    }
    if (format == TESS_RGB565_LE) {
        return widen565((uint32_t)two[1] << 8 | two[0]);
    }
    tess_rgb_t rgb = {line[3 * x], line[3 * x + 1], line[3 * x + 2]};
    return rgb;
}

// length of [a, a + a_size) and [b, b + b_size) in common; they do touch
static inline uint32_t overlap(uint32_t a, uint32_t a_size, uint32_t b, uint32_t b_size) {
    uint32_t from = a > b ? a : b;
    uint32_t to = a + a_size < b + b_size ? a + a_size : b + b_size;
    return to - from;
}

// acc += weight * horizontal sums of one line, for network columns [col0, col1). Inlined once per format.
static inline void add_colour(const tess_letterbox_t *l, const uint8_t *line, uint32_t weight, uint32_t col0, uint32_t col1,
        int format) {
    uint32_t size = l->width, content = l->content_w, *acc = l->acc;
    for (uint32_t i = col0; i < col1; i++) {
        uint32_t start = i * size, j = start / content;
        tess_rgb_t sum = {0, 0, 0};
        for (uint32_t at = j * content; at < start + size; at += content, j++) {
            uint32_t part = overlap(start, size, at, content);
            tess_rgb_t p = pixel_at(line, j, format);
            sum.r += part * p.r;
            sum.g += part * p.g;
            sum.b += part * p.b;
        }
        *acc++ += weight * sum.r;
        *acc++ += weight * sum.g;
        *acc++ += weight * sum.b;
    }
}

static void add_grey(const tess_letterbox_t *l, const uint8_t *line, uint32_t weight, uint32_t col0, uint32_t col1) {
    uint32_t size = l->width, content = l->content_w, *acc = l->acc;
    for (uint32_t i = col0; i < col1; i++) {
        uint32_t start = i * size, j = start / content, sum = 0;
        for (uint32_t at = j * content; at < start + size; at += content, j++) {
            sum += overlap(start, size, at, content) * line[j];
        }
        for (uint32_t k = 0; k < l->input_c; k++) {
            *acc++ += weight * sum;
        }
    }
}

static void add_line(const tess_letterbox_t *l, const uint8_t *line, uint32_t weight, uint32_t col0, uint32_t col1) {
    switch (l->format) {
    case TESS_RGB888: add_colour(l, line, weight, col0, col1, TESS_RGB888); break;
    case TESS_RGB565_BE: add_colour(l, line, weight, col0, col1, TESS_RGB565_BE); break;
    case TESS_RGB565_LE: add_colour(l, line, weight, col0, col1, TESS_RGB565_LE); break;
    default: add_grey(l, line, weight, col0, col1); break;
    }
}

// network columns [col0, col1) of a row that lies inside of the content area
static int mean_row(const tess_letterbox_t *l, uint32_t y, uint32_t col0, uint32_t col1, uint8_t *out) {
    uint32_t n = (col1 - col0) * l->input_c;
    uint32_t size = l->height, content = l->content_h;
    uint32_t start = y * size, j = start / content;
    memset(l->acc, 0, n * sizeof(*l->acc));
    for (uint32_t at = j * content; at < start + size; at += content, j++) {
        const uint8_t *line = l->line(l->ctx, (uint16_t)j);
        if (!line) {
            return TESS_ERR_SOURCE;
        }
        add_line(l, line, overlap(start, size, at, content), col0, col1);
    }
    uint32_t whole = (uint32_t)l->width * l->height;
    for (uint32_t i = 0; i < n; i++) {
        out[i] = (uint8_t)((l->acc[i] + whole / 2) / whole);
    }
    return TESS_OK;
}

// a picture of the content area's size, stored as the network wants it, needs no arithmetic
static int copies(const tess_letterbox_t *l) {
    int stored_alike = l->format == TESS_RGB888 || (l->format == TESS_GREY && l->input_c == 1);
    return stored_alike && l->width == l->content_w && l->height == l->content_h;
}

static int letterbox_row(void *ctx, uint16_t y, uint16_t col0, uint16_t col1, uint8_t *pixels) {
    const tess_letterbox_t *l = ctx;
    uint32_t inside = y >= l->content_h || col0 >= l->content_w ? col0 : col1 < l->content_w ? col1 : l->content_w;
    uint32_t content_bytes = (inside - col0) * l->input_c;
    memset(pixels + content_bytes, l->pad, (col1 - inside) * l->input_c);
    if (content_bytes == 0) {
        return TESS_OK;
    }
    if (copies(l)) {
        const uint8_t *line = l->line(l->ctx, y);
        if (!line) {
            return TESS_ERR_SOURCE;
        }
        memcpy(pixels, line + (uint32_t)col0 * l->input_c, content_bytes);
        return TESS_OK;
    }
    return mean_row(l, y, col0, inside, pixels);
}

// round(size * network / other_size), at least 1
static uint16_t fit(uint32_t size, uint32_t network, uint32_t other_size) {
    uint64_t fitted = ((uint64_t)2 * size * network + other_size) / (2 * other_size);
    return (uint16_t)(fitted < 1 ? 1 : fitted);
}

int tess_letterbox_init(tess_letterbox_t *l, tess_t *t, const uint8_t *(*line)(void *ctx, uint16_t y), void *ctx,
        uint16_t width, uint16_t height, int format) {
    if (!line || width < 1 || height < 1 || (uint32_t)width * height > TESS_LETTERBOX_MAX_PIXELS) {
        return TESS_ERR_ARGUMENT;
    }
    tess_input(t, &l->input_h, &l->input_w, &l->input_c);
    if (format < TESS_RGB888 || format > TESS_GREY || !(l->input_c == 3 || (l->input_c == 1 && format == TESS_GREY))) {
        return TESS_ERR_ARGUMENT;
    }
    l->line = line;
    l->ctx = ctx;
    l->acc = tess_input_scratch(t);
    l->width = width;
    l->height = height;
    l->format = (uint8_t)format;
    l->pad = tess_header(t)->pad;
    int wide = (uint64_t)width * l->input_h >= (uint64_t)height * l->input_w;
    l->content_w = wide ? l->input_w : fit(width, l->input_h, height);
    l->content_h = wide ? fit(height, l->input_w, width) : l->input_h;
    return tess_set_content(t, l->content_w, l->content_h);
}

tess_source_t tess_letterbox_source(tess_letterbox_t *l) {
    tess_source_t source = {letterbox_row, l};
    return source;
}

void tess_letterbox_content(const tess_letterbox_t *l, uint16_t *content_w, uint16_t *content_h) {
    if (content_w) {
        *content_w = l->content_w;
    }
    if (content_h) {
        *content_h = l->content_h;
    }
}
