/*
 * What the files that check a model share. Sums and products of numbers from a file are 64 bits wide; dimensions are 16
 * bits, so three of them never overflow. Private.
 */
#ifndef TESS_CHECK_H
#define TESS_CHECK_H

#include "tess_format.h"

// A file under inspection.
typedef struct tess_file {
    const uint8_t *base;
    const struct tess_header *header;
    const struct tess_node *nodes;
    const struct tess_segment *segments;
    const struct tess_output *outputs;
    const struct tess_decode *decode;   // NULL without a decoder
    uint16_t max_nodes;                 // of a segment
} tess_file_t;

// A section: aligned, behind the header, inside of the file.
int tess_check_section(const tess_file_t *f, uint32_t offset, uint64_t size);

// An array of constants: aligned to 4, inside of the data section.
int tess_check_array(const tess_file_t *f, uint32_t offset, uint64_t size);

// `count` NUL-terminated strings, one after the other, inside of the data section, whose last byte is 0.
int tess_check_strings(const tess_file_t *f, uint32_t offset, uint32_t count);

// Kinds, inputs, shapes, constants and buffers of all nodes. Everything that follows may rely on them.
int tess_check_nodes(const tess_file_t *f);

// Segments cover the nodes and read whole tensors only across their borders. Fills in max_nodes.
int tess_check_segments(tess_file_t *f);

// An upper bound on the cost of a run stays below TESS_MAX_WORK.
int tess_check_work(const tess_file_t *f);

#endif
