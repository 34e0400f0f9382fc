/*
 * Everything that only asks or sets: error texts, names, shapes, the content area, callbacks.
 */
#include <string.h>

#include "tess_format.h"

const char *tess_error(int err) {
    static const char *const texts[] = {
        "no error",
        "not a model.tess, or cut off",
        "the model's format version is not the one this runtime reads",
        "the model's weights are packed for other kernels than this runtime's",
        "the model's checksum does not match its bytes: the file is damaged",
        "an offset or size in the model leads outside of its section",
        "a node's kind, shape, inputs or constants break a rule",
        "the model's schedule and buffers do not fit together",
        "the work memory is too small or not aligned to 16 bytes",
        "a run of this model could cost more than this runtime allows",
        "the source of the picture's rows reported an error",
        "the sink for output rows reported an error",
        "the model has no decoder, or its tables break a rule",
        "an argument is NULL or out of range",
        "the self-test's outputs are not those the compiler computed",
    };
    int known = err <= 0 && err > -(int)(sizeof(texts) / sizeof(texts[0]));
    return known ? texts[-err] : "unknown error";
}

void tess_set_sink(tess_t *t, const tess_sink_t *sink) {
    static const tess_sink_t none = {NULL, NULL};
    t->sink = sink ? *sink : none;
}

int tess_set_content(tess_t *t, uint16_t width, uint16_t height) {
    const struct tess_header *h = tess_header(t);
    if (width < 1 || height < 1 || width > h->input_w || height > h->input_h) {
        return TESS_ERR_ARGUMENT;
    }
    t->content_w = width;
    t->content_h = height;
    return TESS_OK;
}

#ifdef TESS_PROFILE
void tess_set_clock(tess_t *t, uint32_t (*clock)(void *ctx), void *ctx,
        void (*report)(void *ctx, uint16_t segment, uint16_t node, uint16_t rows, uint32_t ticks)) {
    t->clock = report ? clock : NULL;
    t->report = report;
    t->clock_ctx = ctx;
}
#endif

void tess_input(const tess_t *t, uint16_t *height, uint16_t *width, uint16_t *channels) {
    const struct tess_header *h = tess_header(t);
    if (height) {
        *height = h->input_h;
    }
    if (width) {
        *width = h->input_w;
    }
    if (channels) {
        *channels = h->input_c;
    }
}

int tess_sequential(const tess_t *t) {
    return tess_header(t)->flags & TESS_HEADER_SEQUENTIAL ? 1 : 0;
}

uint16_t tess_outputs(const tess_t *t) {
    return tess_header(t)->n_outputs;
}

int tess_output_info(const tess_t *t, uint16_t output, tess_output_info_t *info) {
    if (!info || output >= tess_header(t)->n_outputs) {
        return TESS_ERR_ARGUMENT;
    }
    const struct tess_node *node = &t->nodes[t->outputs[output].node];
    info->name = tess_array(t, t->outputs[output].name);
    info->height = node->h;
    info->width = node->w;
    info->channels = node->c;
    info->zero_point = node->zero_point;
    info->scale = node->scale;
    return TESS_OK;
}

const char *tess_model_name(const tess_t *t) {
    return tess_array(t, tess_header(t)->name);
}

uint16_t tess_classes(const tess_t *t) {
    return t->decode ? t->decode->n_classes : 0;
}

const char *tess_class_name(const tess_t *t, uint16_t label) {
    if (label >= tess_classes(t)) {
        return NULL;
    }
    const char *name = tess_array(t, t->decode->class_names);
    for (; label > 0; label--) {
        while (*name++) {
        }
    }
    return name;
}

uint16_t tess_max_boxes(const tess_t *t) {
    return t->decode ? t->decode->max_detections : 0;
}

uint32_t *tess_input_scratch(const tess_t *t) {
    return t->input_scratch;
}
