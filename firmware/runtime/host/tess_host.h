/*
 * The runtime with flat arguments, for firmware/host.py: whole frames and arrays instead of callbacks. Host only; boards do
 * not build this folder.
 */
#ifndef TESS_HOST_H
#define TESS_HOST_H

#include "../tess.h"

// sizeof(tess_t): the caller of the shared library allocates it.
size_t tess_host_sizeof(void);

// Runs on a frame of the network's size, uint8 (input_h, input_w, input_c). outputs[o] takes output o whole, int8 (h, w, c).
int tess_host_run(tess_t *t, const uint8_t *frame, int8_t *const *outputs);

// Adds what each node costs from now on to ns[node], nanoseconds of this machine's steady clock, letterbox included in the
// source. NULL stops.
void tess_host_profile(tess_t *t, uint64_t *ns);

// tess_checksum of a frame.
int tess_host_checksum(tess_t *t, const uint8_t *frame, uint32_t *sum);

// Letterboxes a picture of any size (enum tess_format, lines of whole pixels without gaps) and runs on it; outputs as for
// tess_host_run, or NULL. content takes width and height of the part of the frame that holds the picture. Then tess_detect.
int tess_host_run_picture(tess_t *t, const uint8_t *picture, uint16_t width, uint16_t height, int format,
    int8_t *const *outputs, uint16_t content[2]);

// The letterboxed rows that the network would see, columns [col0, col1) of each: uint8 (input_h, col1 - col0, input_c).
// content as above.
int tess_host_letterbox(tess_t *t, const uint8_t *picture, uint16_t width, uint16_t height, int format, uint16_t col0,
    uint16_t col1, uint8_t *frame, uint16_t content[2]);

#endif
