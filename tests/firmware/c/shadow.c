/*
 * Runs a model while AddressSanitizer watches the plan: during each step the activations are poisoned, but for the buffers that
 * the step may touch. Built and called by tests/firmware/shadow.py.
 *
 *     shadow MODEL TABLE     TABLE: for each node u32 n, then n times u32 offset, u32 size
 *
 * Prints how many bytes of the activations lie below the end of the highest one that was written.
 */
#include <sanitizer/asan_interface.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tess_step.h"

static int8_t *activations;
static uint32_t size;
static const uint32_t *allowed[TESS_MAX_NODES];
static const tess_step_t *step;

// The linker puts these in the place of the runtime's own (--wrap), which know the node that is about to be computed.
int __real_tess_plan_band(tess_step_t *s);
int __wrap_tess_plan_band(tess_step_t *s);
void __real_tess_compute(const tess_step_t *s, int32_t i);
void __wrap_tess_compute(const tess_step_t *s, int32_t i);
void __real_tess_decode_row(tess_t *t, uint16_t sink, uint16_t y, uint16_t col0, uint16_t col1, const int8_t *const *rows);
void __wrap_tess_decode_row(tess_t *t, uint16_t sink, uint16_t y, uint16_t col0, uint16_t col1, const int8_t *const *rows);

static void unpoison(uint32_t node) {
    for (uint32_t i = 0; i < allowed[node][0]; i++) {
        ASAN_UNPOISON_MEMORY_REGION(activations + allowed[node][1 + 2 * i], allowed[node][2 + 2 * i]);
    }
}

static void allow(uint32_t node) {
    ASAN_POISON_MEMORY_REGION(activations, size);
    unpoison(node);
}

// Nodes after this one that make nothing in this band are never computed, but their turn latches rows of their inputs.
static void allow_idle(uint32_t node) {
    for (int32_t i = (int32_t)node + 1 - step->first; i < step->count; i++) {
        const struct tess_state *state = &step->state[i];
        if (state->begin < state->target && state->col0 < state->col1) {
            break;
        }
        unpoison((uint32_t)(step->first + i));
    }
}

int __wrap_tess_plan_band(tess_step_t *s) {
    step = s;
    return __real_tess_plan_band(s);
}

void __wrap_tess_compute(const tess_step_t *s, int32_t i) {
    allow((uint32_t)(s->first + i));
    __real_tess_compute(s, i);
    allow_idle((uint32_t)(s->first + i));
}

void __wrap_tess_decode_row(tess_t *t, uint16_t sink, uint16_t y, uint16_t col0, uint16_t col1, const int8_t *const *rows) {
    allow(sink);
    __real_tess_decode_row(t, sink, y, col0, col1, rows);
    allow_idle(sink);
}

// Uses all accumulators that the plan has, as for a whole row: a whole picture may be read in strips, which need fewer.
static int read_row(void *ctx, uint16_t y, uint16_t col0, uint16_t col1, uint8_t *pixels) {
    const struct tess_node *input = ((tess_t *)ctx)->nodes;
    uint16_t c = input->c;
    allow(0);
    allow_idle(0);
    memset(tess_input_scratch(ctx), y, (size_t)4 * input->buffer_cols * c);
    for (int32_t i = 0; i < (col1 - col0) * c; i++) {
        pixels[i] = (uint8_t)((y * 31 + col0 * c + i) * 37);
    }
    return 0;
}

static int take_row(void *ctx, uint16_t output, uint16_t y, uint16_t col0, uint16_t col1, const int8_t *data) {
    tess_output_info_t info;
    (void)y;
    tess_output_info(ctx, output, &info);
    tess_crc32((const uint8_t *)data, (size_t)(col1 - col0) * info.channels); // reads all of it
    return 0;
}

// one more than the highest byte that a run changes
static uint32_t run(tess_t *t, uint8_t garbage) {
    tess_source_t source = {read_row, t};
    memset(activations, garbage, size);
    int err = tess_run(t, &source);
    ASAN_UNPOISON_MEMORY_REGION(activations, size);
    if (err) {
        fprintf(stderr, "%s\n", tess_error(err));
        exit(1);
    }
    uint32_t touched = size;
    while (touched > 0 && (uint8_t)activations[touched - 1] == garbage) {
        touched--;
    }
    return touched;
}

static void *read_file(const char *path, size_t *bytes) {
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END)) {
        exit(2);
    }
    *bytes = (size_t)ftell(file);
    rewind(file);
    void *data = malloc(*bytes + 1);
    size_t got = fread(data, 1, *bytes, file);
    fclose(file);
    if (got != *bytes) {
        exit(2);
    }
    return data;
}

int main(int argc, char **argv) {
    size_t model_size, table_size, needed;
    if (argc != 3) {
        return 2;
    }
    void *model = read_file(argv[1], &model_size);
    uint32_t *table = read_file(argv[2], &table_size);
    tess_t t;
    int err = tess_needed(model, model_size, &needed);
    void *arena = err ? NULL : aligned_alloc(TESS_ALIGN, needed);
    err = err ? err : tess_open(&t, model, model_size, arena, needed);
    if (err) {
        fprintf(stderr, "%s\n", tess_error(err));
        return 1;
    }
    const uint32_t *entry = table;
    for (uint32_t i = 0; i < tess_header(&t)->n_nodes; i++) {
        allowed[i] = entry;
        entry += 1 + 2 * entry[0];
    }
    size = tess_header(&t)->activation_size;
    t.activations = activations = malloc(size);
    t.input_scratch = (uint32_t *)(void *)(activations + tess_header(&t)->letterbox);
    tess_sink_t sink = {take_row, &t};
    tess_set_sink(&t, &sink);
    uint32_t first = run(&t, 0x5A), second = run(&t, 0xA5); // a byte can be the garbage of one run, not of both
    printf("%u\n", first > second ? first : second);
    free(activations);
    free(arena);
    free(table);
    free(model);
    return 0;
}
