/*
 * Opens and runs hostile models. Whatever the bytes are, tess_open must answer with an error or with a model that stays inside
 * of its memory, comes to an end and keeps the promises of tess.h.
 *
 * A libFuzzer target where clang is (-DTESS_LIBFUZZER, see benchmarks/fuzz.py). With any compiler that has sanitizers:
 *
 *     fuzz_tess MODEL SEED COUNT     truncations at every length, then COUNT mutated copies
 *
 * which prints how many were opened, run and refused.
 */
#define _POSIX_C_SOURCE 200112L

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "mutate_tess.h"
#include "tess_format.h"
#include "tess_letterbox.h"

enum { MOST_MEMORY = 1 << 22, BOXES = 16, LONGEST_SIDE = 90, MOST_SECONDS = 5 };

static unsigned long opened, ran, refused;

static void require(int condition, const char *what) {
    if (!condition) {
        fprintf(stderr, "broken promise: %s\n", what);
        abort();
    }
}

// Exactly as many bytes as promised, so that the address sanitizer sees one too far.
static void *exactly(size_t size) {
    void *block = NULL;
    require(posix_memalign(&block, TESS_ALIGN, size ? size : 1) == 0, "memory for the test");
    return block;
}

/// Pictures: their size and format come from a field of the header that the runtime does not read ///

typedef struct picture {
    const tess_t *t;
    uint8_t *line;
    uint16_t width, height;
    int format;
    uint32_t next;      // row that a sequential model may ask for
} picture_t;

static const uint8_t *line_of(void *ctx, uint16_t y) {
    picture_t *p = ctx;
    require(y < p->height, "lines inside of the picture");
    require(!tess_sequential(p->t) || y >= p->next, "lines of a sequential model never go back");
    p->next = y;
    memset(p->line, y & 0xFF, 1);
    return p->line;
}

static int grey_row(void *ctx, uint16_t y, uint16_t col0, uint16_t col1, uint8_t *pixels) {
    picture_t *p = ctx;
    uint16_t h, w, c;
    tess_input(p->t, &h, &w, &c);
    require(y < h && col0 < col1 && col1 <= w, "columns and rows inside of the frame");
    require(!tess_sequential(p->t) || y >= p->next, "rows of a sequential model never come twice");
    p->next = (uint32_t)y + 1;
    memset(pixels, y & 0xFF, (size_t)(col1 - col0) * c);
    return 0;
}

static picture_t picture_of(const tess_t *t) {
    static const size_t pixel_bytes[] = {3, 2, 2, 1};
    const uint8_t *chance = tess_header(t)->tflite_sha256;
    picture_t p = {t, NULL, (uint16_t)(1 + chance[0] % LONGEST_SIDE), (uint16_t)(1 + chance[1] % LONGEST_SIDE), chance[2] & 3, 0};
    size_t bytes = p.width * pixel_bytes[p.format];
    p.line = malloc(bytes);
    memset(p.line, chance[3], bytes);
    return p;
}

static int run_picture(tess_t *t) {
    picture_t p = picture_of(t);
    tess_letterbox_t box;
    tess_source_t source = {grey_row, &p};
    if (tess_letterbox_init(&box, t, line_of, &p, p.width, p.height, p.format) == 0) {
        source = tess_letterbox_source(&box);
    } else {
        tess_set_content(t, p.width, p.height); // may be refused as well
    }
    int err = tess_run(t, &source);
    free(p.line);
    return err;
}

/// Promises ///

static int read_row(void *ctx, uint16_t output, uint16_t y, uint16_t col0, uint16_t col1, const int8_t *data) {
    tess_output_info_t info;
    require(tess_output_info(ctx, output, &info) == 0, "an output that there is");
    require(y < info.height && col0 < col1 && col1 <= info.width, "a part of the output");
    tess_crc32((const uint8_t *)data, (size_t)(col1 - col0) * info.channels); // reads all of it
    return 0;
}

static void check_boxes(const tess_t *t, const tess_box_t *boxes, int n) {
    for (int i = 0; i < n; i++) {
        const tess_box_t *b = &boxes[i];
        require(0 <= b->x1 && b->x1 < b->x2 && b->x2 <= 16 * t->content_w, "columns of a box inside of the content");
        require(0 <= b->y1 && b->y1 < b->y2 && b->y2 <= 16 * t->content_h, "rows of a box inside of the content");
        require(b->score <= 32768 && tess_class_name(t, b->label) != NULL, "a score and a class");
        require(i == 0 || boxes[i - 1].score >= b->score, "best first");
    }
}

static void use(tess_t *t) {
    tess_sink_t sink = {read_row, t};
    tess_set_sink(t, &sink);
    require(strlen(tess_model_name(t)) < tess_header(t)->total_size, "a name that ends");
    if (run_picture(t) == 0) {
        tess_box_t boxes[BOXES];
        int n = tess_detect(t, boxes, BOXES);
        require(n <= BOXES, "no more boxes than asked for");
        require(tess_detect(t, boxes, BOXES) == n, "the same answer twice");
        check_boxes(t, boxes, n);
        ran++;
    }
    int tested = tess_selftest(t);
    require(tested <= 0 && tess_error(tested) != NULL, "an error code");
}

/// One file ///

// Gives each part of the work memory a block of its own, so that a step from one into the next is seen, too.
static void use_apart(tess_t *t, const uint8_t *arena, size_t bytes) {
    size_t state = (size_t)((uint8_t *)t->candidates - (uint8_t *)t->state);
    size_t scratch = (size_t)4 * t->nodes[0].buffer_cols * t->nodes[0].c; // a part of the activations, in truth
    size_t candidates = (size_t)(arena + bytes - (uint8_t *)t->candidates);
    tess_t apart = *t;
    apart.activations = exactly(tess_header(t)->activation_size);
    apart.state = exactly(state);
    apart.input_scratch = exactly(scratch);
    apart.candidates = exactly(candidates);
    use(&apart);
    free(apart.activations);
    free(apart.state);
    free(apart.input_scratch);
    free(apart.candidates);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    size_t bytes;
    clock_t started = clock(); // of this process alone, however busy the machine is
    uint8_t *model = malloc(size ? size : 1);
    memcpy(model, data, size);
    if (tess_needed(model, size, &bytes) == 0 && bytes <= MOST_MEMORY) {
        tess_t t;
        uint8_t *arena = exactly(bytes);
        require(tess_open(&t, model, size, arena, bytes) == 0, "opens with what it says it needs");
        opened++;
        use_apart(&t, arena, bytes);
        free(arena);
    } else {
        refused++;
    }
    free(model);
    require(clock() - started < MOST_SECONDS * CLOCKS_PER_SEC, "an end within the limit of work");
    return 0;
}

#ifdef TESS_LIBFUZZER

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t capacity);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t capacity, unsigned int seed);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t capacity, unsigned int seed) {
    if (seed % 8) {
        return mutate_tess(data, size, capacity, seed);
    }
    size = LLVMFuzzerMutate(data, size, capacity);
    mend_tess(data, size);
    return size;
}

#else

static uint8_t *read_file(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    if (!file) {
        fprintf(stderr, "cannot read %s\n", path);
        exit(2);
    }
    fseek(file, 0, SEEK_END);
    *size = (size_t)ftell(file);
    rewind(file);
    uint8_t *data = malloc(*size);
    size_t got = fread(data, 1, *size, file);
    fclose(file);
    if (got != *size) {
        exit(2);
    }
    return data;
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: fuzz_tess MODEL SEED COUNT\n");
        return 2;
    }
    size_t size;
    uint8_t *model = read_file(argv[1], &size);
    LLVMFuzzerTestOneInput(model, size);
    require(ran == 1, "the undamaged model runs");
    for (size_t length = 0; length < size; length++) {
        LLVMFuzzerTestOneInput(model, length);
    }
    require(refused == size, "every truncation is refused");

    size_t capacity = 2 * size;
    uint8_t *copy = malloc(capacity);
    uint32_t seed = (uint32_t)strtoul(argv[2], NULL, 10), count = (uint32_t)strtoul(argv[3], NULL, 10);
    for (uint32_t i = 0; i < count; i++) {
        memcpy(copy, model, size);
        LLVMFuzzerTestOneInput(copy, mutate_tess(copy, size, capacity, seed * count + i));
    }
    printf("opened %lu ran %lu refused %lu\n", opened, ran, refused);
    free(copy);
    free(model);
    return 0;
}

#endif
