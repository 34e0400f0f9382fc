/* The two files that the application and firmware/emulator.py exchange. Little endian, no padding beyond what is shown.
 *
 * batch.bin: a header, one picture head for each picture, then the pixels of the pictures, row by row without gaps.
 * result.bin: a header, then one record for each picture, each `record_size` bytes long:
 *     batch_record_t
 *     u64 profile[n_profile]          instructions per node of the model (only in a build with TESS_PROFILE)
 *     tess_box_t boxes[max_boxes]     of which n_boxes count
 *     int8 raw[raw_size]              with BATCH_RAW the outputs one after the other, NHWC; rounded up to 8
 */
#ifndef BATCH_H
#define BATCH_H

#include <stdint.h>

#define BATCH_VERSION 1

enum batch_flags {
    BATCH_BOXES = 1,    // decode, write boxes
    BATCH_RAW = 2,      // write every output
    BATCH_DIRECT = 4,   // pictures are network frames: rows go in as they are
    BATCH_SELFTEST = 8, // run the model's own test picture first
};

typedef struct {
    uint8_t magic[4]; // "TBAT"
    uint16_t version;
    uint16_t flags;
    uint32_t count;
    uint32_t reserved;
} batch_header_t; // 16 bytes

typedef struct {
    uint16_t width, height;
    uint16_t format; // enum tess_format
    uint16_t reserved;
    uint32_t offset; // of the first pixel in the file
    uint32_t reserved1;
} batch_picture_t; // 16 bytes

typedef struct {
    uint8_t magic[4]; // "TRES"
    uint16_t version;
    uint16_t flags;
    uint32_t count;
    uint32_t done;          // records written; the last thing written after each picture
    int32_t status;         // negative tess_err: of tess_open when record_size is 0, else of picture number `done`
    int32_t selftest;       // of tess_selftest; 1 when not asked for
    uint32_t needed;        // tess_needed
    uint32_t arena_size;
    uint32_t record_size;
    uint32_t raw_size;
    uint16_t n_profile;
    uint16_t max_boxes;
    uint16_t state_size;    // sizeof(tess_t)
    uint16_t sequential;
    uint64_t selftest_instructions;
    uint64_t reserved;
    char error[64];         // tess_error(status) or, when that is 0, tess_error(selftest); NUL-terminated
} batch_result_t; // 128 bytes

typedef struct {
    int32_t n_boxes;  // of tess_detect; 0 when boxes were not asked for
    uint32_t reserved0;
    uint64_t run;     // instructions of tess_run without fetching pixels and writing outputs
    uint64_t detect;  // instructions of tess_detect
    uint32_t checksum; // of the outputs, as in SPEC.md section 4; 0 unless raw
    uint32_t stack;   // bytes in use at most, from reset on
    uint32_t touched; // the arena's bytes up to the highest one that was written
    uint32_t guards;  // 0: nobody wrote before or behind the arena
    uint32_t fetches; // calls that read pixels
    uint32_t reserved;
    uint64_t reserved1;
} batch_record_t; // 56 bytes

#endif
