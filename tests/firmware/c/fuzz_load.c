/*
 * Opens and runs damaged models. Built with sanitizers by test_loader.py; also a libFuzzer entry where clang is used.
 *
 *     fuzz_load MODEL SEED COUNT     truncations at every length, then COUNT mutated copies with a right checksum
 *
 * Prints how many were opened, run and refused. Whatever a file holds, the answer must be a count or an error code.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tess.h"
#include "tess_format.h"

enum { MOST_MEMORY = 1 << 24, BOXES = 16 };

static unsigned long opened, ran, refused;

static int grey_row(void *ctx, uint16_t y, uint16_t col0, uint16_t col1, uint8_t *pixels) {
    const tess_t *t = ctx;
    uint16_t channels;
    tess_input(t, NULL, NULL, &channels);
    memset(pixels, y & 0xFF, (size_t)(col1 - col0) * channels);
    return 0;
}

static int read_row(void *ctx, uint16_t output, uint16_t y, uint16_t col0, uint16_t col1, const int8_t *data) {
    const tess_t *t = ctx;
    tess_output_info_t info;
    volatile int sum = y;
    if (tess_output_info(t, output, &info) == 0) {
        for (int32_t i = 0; i < (col1 - col0) * info.channels; i++) {
            sum += data[i];
        }
    }
    return 0;
}

static void *aligned(size_t size) {
    return aligned_alloc(TESS_ALIGN, (size + TESS_ALIGN - 1) / TESS_ALIGN * TESS_ALIGN);
}

static void require(int condition, const char *what) {
    if (!condition) {
        fprintf(stderr, "broken promise: %s\n", what);
        abort();
    }
}

static void use(tess_t *t) {
    tess_source_t source = {grey_row, t};
    tess_sink_t sink = {read_row, t};
    tess_box_t boxes[BOXES];
    tess_set_sink(t, &sink);
    for (uint16_t i = 0; i < tess_classes(t); i++) {
        require(tess_class_name(t, i) != NULL, "a name for every class");
    }
    if (tess_run(t, &source) == 0) {
        int n = tess_detect(t, boxes, BOXES);
        require(n <= BOXES, "no more boxes than asked for");
        require(tess_detect(t, boxes, BOXES) == n, "the same answer twice");
        ran++;
    }
    int tested = tess_selftest(t);
    require(tested <= 0 && tess_error(tested) != NULL, "an error code");
}

// The copies have exactly the promised sizes, so that the address sanitizer sees a byte too far.
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    size_t bytes;
    uint8_t *model = malloc(size ? size : 1);
    memcpy(model, data, size);
    if (tess_needed(model, size, &bytes) == 0 && bytes <= MOST_MEMORY) {
        tess_t t;
        void *arena = aligned(bytes);
        require(tess_open(&t, model, size, arena, bytes) == 0, "opens with what it says it needs");
        opened++;
        use(&t);
        free(arena);
    } else {
        refused++;
    }
    free(model);
    return 0;
}

#ifndef TESS_LIBFUZZER

static uint32_t state;

static uint32_t below(uint32_t limit) {
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state % limit;
}

static void mend(uint8_t *model, size_t size) {
    uint32_t total, crc;
    memcpy(&total, model + 8, 4);
    if (total >= 16 && total <= size) {
        crc = tess_crc32(model + 16, total - 16);
        memcpy(model + 12, &crc, 4);
    }
}

static void mutate(uint8_t *model, size_t size) {
    static const uint8_t interesting[] = {0, 1, 2, 3, 4, 15, 16, 17, 127, 128, 254, 255};
    const struct tess_header *h = (const void *)model;
    uint32_t structure = h->data > 16 && h->data <= size ? h->data : (uint32_t)size;
    for (uint32_t changes = 1 + below(3); changes > 0; changes--) {
        // mostly the parts that steer, sometimes weights and tables
        uint32_t at = below(8) ? 4 + below(structure - 4) : below((uint32_t)size);
        switch (below(4)) {
        case 0: model[at] = (uint8_t)below(256); break;
        case 1: model[at] ^= (uint8_t)(1u << below(8)); break;
        case 2: model[at] = (uint8_t)(model[at] + below(9) - 4); break;
        default: model[at] = interesting[below(sizeof(interesting))]; break;
        }
    }
    mend(model, size);
}

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
        fprintf(stderr, "usage: fuzz_load MODEL SEED COUNT\n");
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

    uint8_t *copy = malloc(size);
    state = (uint32_t)strtoul(argv[2], NULL, 10) * 2654435761u | 1;
    for (unsigned long i = strtoul(argv[3], NULL, 10); i > 0; i--) {
        memcpy(copy, model, size);
        mutate(copy, size);
        LLVMFuzzerTestOneInput(copy, size);
    }
    printf("opened %lu ran %lu refused %lu\n", opened, ran, refused);
    free(copy);
    free(model);
    return 0;
}

#endif
