/*
 * Tessera's runtime: runs a model.tess on a microcontroller, a few rows at a time.
 *
 * This header is the manual. The library is plain C99 and needs memcpy, memmove and memset, nothing else: no malloc, no
 * stdio, no globals that change, no floating point arithmetic, no recursion. It reads the model in place (from flash) and
 * keeps everything that changes in two pieces of memory that the caller owns: a tess_t and a block of work memory.
 *
 *     size_t bytes;
 *     tess_needed(model, model_size, &bytes);               // or a constant that export.py printed
 *     tess_open(&t, model, model_size, arena, sizeof(arena));
 *     n = tess_run(&t, &source);                            // pulls the picture row by row
 *     n = tess_detect(&t, boxes, 20);                       // n boxes, best first
 *
 * Conventions: functions return 0 or a count on success and a negative tess_err on failure. Intervals are half-open
 * [start, stop). Feature maps are int8, NHWC. "Q4" is 1/16, "Q15" is 1/32768. What a model file holds and what running it
 * means is written in SPEC.md.
 *
 * Not thread-safe per tess_t; two tess_t with two arenas never meet. Call from one context at a time.
 */
#ifndef TESS_H
#define TESS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// Version and limits ///

// Format version of model.tess that this library reads.
#define TESS_VERSION 2

// Weight packing that the kernels of this build read; must equal the model's. 0 is the reference layout.
#ifndef TESS_ISA
#define TESS_ISA 0
#endif

// Highest kernel_h and kernel_w of a window. Costs one pointer of stack per row.
#ifndef TESS_MAX_KERNEL
#define TESS_MAX_KERNEL 16
#endif

// Most multiply-accumulates (roughly) that one tess_run may cost; tess_open refuses a model that could need more. It
// keeps a damaged or hostile file from running for days. What the caller's source does for a row is not counted.
#ifndef TESS_MAX_WORK
#define TESS_MAX_WORK (UINT64_C(1) << 36)
#endif

// Alignment of the work memory in bytes, and of each of its parts.
#define TESS_ALIGN 16

/// Errors ///

enum tess_err {
    TESS_OK = 0,             // no error
    TESS_ERR_FORMAT = -1,    // not a model.tess: too short, wrong magic, cut off
    TESS_ERR_VERSION = -2,   // a format version that this library does not read
    TESS_ERR_ISA = -3,       // weights packed for other kernels than this build's
    TESS_ERR_CRC = -4,       // bytes of the file are damaged
    TESS_ERR_BOUNDS = -5,    // an offset, size or alignment leads outside of its section
    TESS_ERR_SHAPE = -6,     // a node's kind, shape, inputs or constants break a rule
    TESS_ERR_PLAN = -7,      // schedule and buffers do not fit together
    TESS_ERR_ARENA = -8,     // work memory is too small or not aligned to TESS_ALIGN
    TESS_ERR_WORK = -9,      // a run could cost more than TESS_MAX_WORK
    TESS_ERR_SOURCE = -10,   // the source callback returned an error
    TESS_ERR_SINK = -11,     // the sink callback returned an error
    TESS_ERR_DECODER = -12,  // the model has no decoder, or its tables break a rule
    TESS_ERR_ARGUMENT = -13, // an argument is NULL or out of range
    TESS_ERR_SELFTEST = -14, // the model ran, but its outputs are not those the compiler computed
};

// One line of English for an error code, without a newline; never NULL. The string lives in flash.
const char *tess_error(int err);

/// Rows in, rows out ///

// Where the picture comes from: a frame buffer, a camera's lines, a file, a link. See tess_letterbox.h for a ready one.
typedef struct tess_source {
    // Write columns [col0, col1) of row y of the network frame to pixels: (col1 - col0) * input_c bytes, uint8,
    // interleaved RGB when input_c is 3. y < input_h, col0 < col1 <= input_w. Returns 0, or anything else to stop the run
    // (tess_run then returns TESS_ERR_SOURCE).
    //
    // When tess_sequential() is 1 each row is asked for once, y ascending, with all its columns. Otherwise rows and parts
    // of rows can be asked for again.
    int (*row)(void *ctx, uint16_t y, uint16_t col0, uint16_t col1, uint8_t *pixels);

    // Handed to row, otherwise untouched. Owned by the caller.
    void *ctx;
} tess_source_t;

// Where the graph's outputs go when the caller wants them raw. Optional.
typedef struct tess_sink {
    // Takes columns [col0, col1) of row y of output number `output` (order of the model's outputs): (col1 - col0) * c
    // int8 values, valid during the call only. Each element of each output comes exactly once a run; rows of one output
    // and strip ascend. Returns 0, or anything else to stop the run (tess_run then returns TESS_ERR_SINK).
    int (*rows)(void *ctx, uint16_t output, uint16_t y, uint16_t col0, uint16_t col1, const int8_t *data);

    // Handed to rows, otherwise untouched. Owned by the caller.
    void *ctx;
} tess_sink_t;

/// Detections ///

// One detected object.
typedef struct tess_box {
    // Corners in Q4 pixels of the network frame, x1 < x2 and y1 < y2, inside of the content area.
    int16_t x1, y1, x2, y2;

    // Probability in Q15, 0..32768.
    uint16_t score;

    // Index of the class, see tess_class_name.
    uint16_t label;
} tess_box_t;

/// State ///

// An opened model. At most 128 bytes on a 32-bit chip. The caller owns it, the library fills it; fields are private.
// It points into the model and the arena, so both must stay where they are while it is used.
typedef struct tess {
    const uint8_t *model;
    const struct tess_node *nodes;
    const struct tess_segment *segments;
    const struct tess_output *outputs;
    const struct tess_decode *decode;   // NULL without a decoder
    int8_t *activations;
    struct tess_state *state;           // one per node of the running segment
    uint32_t *input_scratch;
    struct tess_candidate *candidates;
    const tess_source_t *source;        // during tess_run only
    tess_sink_t sink;                   // rows is NULL when the caller set none
    uint16_t content_w, content_h;
    uint16_t n_candidates;
    uint16_t sorted;                    // candidates are in order already
#ifdef TESS_PROFILE
    uint32_t (*clock)(void *ctx);
    void (*report)(void *ctx, uint16_t segment, uint16_t node, uint16_t rows, uint32_t ticks);
    void *clock_ctx;
#endif
} tess_t;

/// Opening ///

// Bytes of work memory that this model needs, a multiple of TESS_ALIGN. Checks the model like tess_open does.
//
// model must be aligned to 4 bytes and readable for size bytes; bytes behind the file's own end are ignored. Writes *bytes
// on success only. Returns a negative error code on failure.
int tess_needed(const void *model, size_t size, size_t *bytes);

// Opens a model: checks all of it once, so that running needs no checks of the file, and lays out the work memory.
//
// model: as for tess_needed; it is read in place and must stay unchanged until the tess_t is no longer used. arena: work
// memory, aligned to TESS_ALIGN, at least tess_needed bytes; its former content does not matter. Nothing has to be closed.
// Returns a negative error code on failure; t is then unusable.
int tess_open(tess_t *t, const void *model, size_t size, void *arena, size_t arena_size);

// Sets the caller's sink for outputs; NULL takes it away. The struct is copied. The decoder works with or without.
void tess_set_sink(tess_t *t, const tess_sink_t *sink);

// Says which part of the network frame holds the picture: columns [0, width), rows [0, height). Boxes are clipped to it.
// The whole frame after tess_open. Call before tess_run. Returns TESS_ERR_ARGUMENT when zero or larger than the frame.
int tess_set_content(tess_t *t, uint16_t width, uint16_t height);

#ifdef TESS_PROFILE
// Measures: `clock` gives a running counter (wraps at 2^32), `report` hears after each band how many ticks `rows` rows of a
// node took (source and sink callbacks included). Both get ctx. The unit of ticks is the board's to say. NULL stops.
void tess_set_clock(tess_t *t, uint32_t (*clock)(void *ctx), void *ctx,
    void (*report)(void *ctx, uint16_t segment, uint16_t node, uint16_t rows, uint32_t ticks));
#endif

/// Running ///

// Runs the network once on rows pulled from source. Candidates of an earlier run are forgotten.
// Returns 0, TESS_ERR_SOURCE, TESS_ERR_SINK, or TESS_ERR_PLAN when the file's buffers are too small for its schedule.
int tess_run(tess_t *t, const tess_source_t *source);

// Writes the objects that the last tess_run found, best first: at most `capacity`, at most the model's max_detections.
// May be called again; the answer is the same. Returns the number of boxes, 0 before the first run, or TESS_ERR_DECODER
// when the model has no decoder.
int tess_detect(tess_t *t, tess_box_t *boxes, size_t capacity);

// Runs the model on its built-in test picture and compares a checksum over all outputs with the compiler's.
// Returns 0, TESS_ERR_SELFTEST, or what tess_run returns. The caller's sink hears nothing; candidates are forgotten.
int tess_selftest(tess_t *t);

// Runs the network on `source` and writes the checksum of SPEC.md section 4 over its outputs to *sum.
// Otherwise like tess_selftest.
int tess_checksum(tess_t *t, const tess_source_t *source, uint32_t *sum);

/// Asking ///

// The network frame in pixels and channels. Any pointer may be NULL.
void tess_input(const tess_t *t, uint16_t *height, uint16_t *width, uint16_t *channels);

// 1 when the schedule reads each source row once, top to bottom, whole; 0 when it needs rows again.
int tess_sequential(const tess_t *t);

// Number of graph outputs.
uint16_t tess_outputs(const tess_t *t);

// What an output is. real = scale * (q - zero_point).
typedef struct tess_output_info {
    const char *name;         // in the model, UTF-8
    uint16_t height, width, channels;
    int8_t zero_point;
    float scale;              // merely carried; the runtime never computes with it
} tess_output_info_t;

// Describes output number `output`. Returns TESS_ERR_ARGUMENT when there is no such output.
int tess_output_info(const tess_t *t, uint16_t output, tess_output_info_t *info);

// The model's name, in the model, UTF-8.
const char *tess_model_name(const tess_t *t);

// Number of classes, 0 without a decoder.
uint16_t tess_classes(const tess_t *t);

// Name of a class, in the model, UTF-8; NULL when there is no such class. Walks the list of names.
const char *tess_class_name(const tess_t *t, uint16_t label);

// Most boxes that tess_detect writes, 0 without a decoder.
uint16_t tess_max_boxes(const tess_t *t);

// Space for 32-bit accumulators inside of the work memory, (col1 - col0) * input_c of them. Free for the source to use
// while it makes a row (tess_letterbox does); between rows the runtime may use the same bytes.
uint32_t *tess_input_scratch(const tess_t *t);

#ifdef __cplusplus
}
#endif

#endif
