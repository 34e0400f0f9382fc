/*
 * From a camera's pixel lines to the network's rows: colour conversion and letterbox, exact in integers.
 *
 * The picture is scaled to fit the network frame, keeps its proportions and sits in the top left corner; the rest holds the
 * model's pad byte. Scaling, up or down, is the exact area mean, rounded once: the same bytes as
 * firmware/compiler/preprocess.py. The 32-bit accumulators of one network row live in the model's work memory
 * (tess_input_scratch), so a picture of any size costs no further memory.
 *
 *     tess_letterbox_init(&box, &t, line, camera, 640, 480, TESS_RGB565_BE);    // also sets the content area
 *     tess_source_t source = tess_letterbox_source(&box);
 *     tess_run(&t, &source);
 *
 * Lines are asked for in ascending order within a network row; the last line of one row can be the first of the next, so
 * `line` must be able to give the same line again. When tess_sequential() is 1, line numbers never decrease during a run.
 */
#ifndef TESS_LETTERBOX_H
#define TESS_LETTERBOX_H

#include "tess.h"

#ifdef __cplusplus
extern "C" {
#endif

// How a line of the picture is stored.
enum tess_format {
    TESS_RGB888 = 0,     // 3 bytes a pixel: red, green, blue
    TESS_RGB565_BE = 1,  // 2 bytes a pixel, high byte first, as OpenMV's frame buffer
    TESS_RGB565_LE = 2,  // 2 bytes a pixel, low byte first
    TESS_GREY = 3,       // 1 byte a pixel
};

// Largest width * height of a picture: the sums of a row still fit 32 bits.
#define TESS_LETTERBOX_MAX_PIXELS 16000000

// A letterbox for one picture or for a stream of pictures of one size. The caller owns it, tess_letterbox_init fills it;
// fields are private.
typedef struct tess_letterbox {
    const uint8_t *(*line)(void *ctx, uint16_t y);
    void *ctx;
    uint32_t *acc;              // input_w * input_c
    uint16_t width, height;     // of the picture
    uint16_t input_w, input_h, input_c;
    uint16_t content_w, content_h;
    uint8_t pad;
    uint8_t format;             // enum tess_format
} tess_letterbox_t;

// Prepares a letterbox for pictures of width x height pixels, and sets t's content area to match.
//
// `line` returns line y of the picture (0 <= y < height), valid until the next call, or NULL to stop the run
// (TESS_ERR_SOURCE). ctx is handed to it. A model with 3 input channels takes all formats (grey becomes equal red, green
// and blue), one with 1 channel takes TESS_GREY. RGB565 is widened by repeating high bits.
//
// Call it again after another letterbox was used on the same t. Returns TESS_ERR_ARGUMENT for an empty or too large picture
// or a format that the model cannot take.
int tess_letterbox_init(tess_letterbox_t *l, tess_t *t, const uint8_t *(*line)(void *ctx, uint16_t y), void *ctx,
    uint16_t width, uint16_t height, int format);

// The letterbox as a source for tess_run. l must live as long as the source is used.
tess_source_t tess_letterbox_source(tess_letterbox_t *l);

// The part of the network frame that holds the picture. A point (x, y) of the frame is (x * width / content_w,
// y * height / content_h) in the picture. Pointers may be NULL.
void tess_letterbox_content(const tess_letterbox_t *l, uint16_t *content_w, uint16_t *content_h);

#ifdef __cplusplus
}
#endif

#endif
