/*
 * model.tess as C structs, field for field SPEC.md section 4, and what the library's own files share. Private.
 *
 * Structs lie over the file in place: little endian, every field naturally aligned. Offsets are from the file's start.
 */
#ifndef TESS_FORMAT_H
#define TESS_FORMAT_H

#include "tess.h"

#define TESS_STATIC_ASSERT(name, condition) typedef char tess_assert_##name[(condition) ? 1 : -1]

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "model.tess is read in place and needs a little endian machine"
#endif

enum tess_kind {
    TESS_SOURCE = 0,
    TESS_CONV = 1,
    TESS_DEPTHWISE = 2,
    TESS_ADD = 3,
    TESS_MAXPOOL = 4,
    TESS_RESIZE = 5,
    TESS_SINK = 6,
    TESS_AVGPOOL = 7,
    TESS_MEAN = 8,
    TESS_SOFTMAX = 9,
    TESS_LOOKUP = 10,
    TESS_MUL = 11,
    TESS_SUB = 12,
    TESS_CONCAT = 13,
    TESS_SLICE = 14,
    TESS_PAD = 15,
    TESS_RESHAPE = 16,
    TESS_TRANSPOSE = 17,
    TESS_KINDS = 18,
};

enum {
    TESS_MAX_NODES = 1024,
    TESS_MAX_INPUTS = 4,
    TESS_MAX_LEVELS = 16,
    TESS_NODE_MATERIALISED = 1,     // tess_node.flags
    TESS_NODE_LATCH = 16,           // the node is the last of its segment to read its first input; << j for input j
    TESS_HEADER_SEQUENTIAL = 1,     // tess_header.flags
};

struct tess_header {
    uint8_t magic[4];
    uint16_t version;
    uint16_t isa;
    uint32_t total_size;
    uint32_t crc32;                 // of bytes 16 .. total_size
    uint32_t activation_size;
    uint16_t input_h, input_w, input_c;
    uint8_t pad;                    // byte around the letterboxed picture
    uint8_t flags;
    uint16_t n_nodes, n_segments, n_outputs;
    uint16_t reserved0;
    uint32_t nodes, segments, outputs;
    uint32_t decode;                // 0 = none
    uint32_t data, data_size;
    uint32_t name;
    uint32_t selftest_seed, selftest_checksum;
    uint8_t tflite_sha256[16];
    uint32_t letterbox;             // offset in the activations, free while the source makes a row
    uint32_t reserved1;
};
TESS_STATIC_ASSERT(header_is_96_bytes, sizeof(struct tess_header) == 96);

struct tess_node {
    uint8_t kind;
    uint8_t n_inputs;
    uint8_t flags;
    uint8_t multiplier;             // depthwise: output channels per input channel; add, sub, mul of a constant: 1 = it is first
    uint16_t inputs[TESS_MAX_INPUTS];
    uint16_t h, w, c;
    int8_t zero_point;
    int8_t clamp_low, clamp_high;
    uint8_t kernel_h, kernel_w;
    uint8_t stride_h, stride_w;     // resize: the factors
    uint8_t pad_top, pad_left;
    int8_t fill;                    // pad: the value around the input; add, sub, mul of a constant: its zero point
    uint32_t buffer_offset;         // in the activations
    uint16_t buffer_rows, buffer_cols;
    float scale;                    // carried, never computed with
    uint32_t weights, bias, multipliers, shifts;
    // slice: first row, column and channel of the input that it takes; concat: 1 for the side that is joined, else 0;
    // transpose: the input's side that each of the output's is
    uint16_t start[3];
    uint16_t fresh_rows;            // latched ring: the rows of a band stand apart, at
    uint32_t fresh_offset;          // in the activations; 0 rows: no latch
};
TESS_STATIC_ASSERT(node_is_68_bytes, sizeof(struct tess_node) == 68);

struct tess_segment {
    uint16_t first_node, n_nodes;
    uint16_t columns, rows;
    uint16_t reference;
    uint8_t carry;
    uint8_t reserved0;
    uint32_t reserved1;
};
TESS_STATIC_ASSERT(segment_is_16_bytes, sizeof(struct tess_segment) == 16);

struct tess_output {
    uint16_t node, sink;
    uint32_t name;
};
TESS_STATIC_ASSERT(output_is_8_bytes, sizeof(struct tess_output) == 8);

struct tess_level {
    uint16_t stride;                // input pixels per cell
    uint16_t sink;
    uint32_t first_cell;
    uint32_t objectness_table;      // u16[256], Q15
    uint32_t class_table;           // u16[256], Q15; 0 when there is one class
    uint32_t distance_table;        // i16[256], Q4 pixels
    uint32_t reserved0;
};
TESS_STATIC_ASSERT(level_is_24_bytes, sizeof(struct tess_level) == 24);

struct tess_decode {
    uint16_t n_levels, n_classes;
    uint16_t score_threshold, iou_threshold;    // Q15
    uint16_t max_candidates, max_detections;
    uint32_t class_names;
    uint32_t reserved0[4];
    // n_levels struct tess_level follow
};
TESS_STATIC_ASSERT(decode_is_32_bytes, sizeof(struct tess_decode) == 32);

/// Work memory ///

// Where a node stands in the strip and band that is being computed.
struct tess_state {
    uint16_t produced;              // rows finished in this strip
    uint16_t target;                // compute rows [begin, target) now
    uint16_t begin;
    uint16_t col0, col1;            // columns of this strip
    uint16_t could;                 // rows that need nothing beyond what the band computes anyway
};
TESS_STATIC_ASSERT(state_is_12_bytes, sizeof(struct tess_state) == 12);

struct tess_candidate {
    int16_t x1, y1, x2, y2;         // Q4 pixels
    uint16_t score;                 // Q15
    uint16_t label;
    uint32_t cell;
};
TESS_STATIC_ASSERT(candidate_is_16_bytes, sizeof(struct tess_candidate) == 16);

TESS_STATIC_ASSERT(tess_t_is_small, sizeof(void *) > 4 || sizeof(tess_t) <= 128);

/// Small things that several files need ///

static inline const struct tess_header *tess_header(const tess_t *t) {
    return (const struct tess_header *)(const void *)t->model;
}

static inline const struct tess_level *tess_levels(const struct tess_decode *decode) {
    return (const struct tess_level *)(const void *)(decode + 1);
}

// An array of the model at an offset that tess_open has checked. Arrays lie at multiples of 4.
static inline const void *tess_array(const tess_t *t, uint32_t offset) {
    return t->model + offset;
}

// CRC-32 as in zlib.
uint32_t tess_crc32(const uint8_t *data, size_t size);

// What `count` values of an output, from flat index `first` on, add to the checksum of SPEC.md section 4.
uint32_t tess_sum(uint16_t output, uint32_t first, const int8_t *data, uint32_t count);

// Feeds columns [col0, col1) of row y of a sink's inputs to the decoder. rows[j] points at column col0 of input j.
void tess_decode_row(tess_t *t, uint16_t sink, uint16_t y, uint16_t col0, uint16_t col1, const int8_t *const *rows);

#endif
