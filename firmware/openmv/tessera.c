/*
 * The MicroPython module `tessera`: the runtime as a native module (.mpy) that stock firmware imports.
 *
 *     tessera.needed(model) -> bytes of work memory
 *     detector = tessera.Detector(model, arena)
 *     detector.detect(picture, width, height, format, boxes) -> number of boxes
 *     detector.selftest(); detector.info(); detector.content()
 *     ap = tessera.AveragePrecision(detector, memory); ap.add(...); ap.result(label); ap.mean()
 *
 * Nothing is copied and nothing allocated while detecting: the model is read where it lies (it must be read-only: `bytes`, or a
 * file of a ROMFS), pictures are any object with a buffer, boxes go into a buffer of the caller as 12-byte records. Every
 * argument is checked at every call, and so is that the model and the work memory still lie where they did: Python can
 * resize a bytearray. Wrong use raises TypeError, ValueError or RuntimeError, and never ends the interpreter.
 */
#include <string.h>

#include "py/dynruntime.h"

#include "tess_ap.h"
#include "tess_letterbox.h"

/// Errors ///

static NORETURN void raise_value(const char *text) {
    mp_raise_ValueError(text);
}

// ValueError(text, number): what is needed, beside what is wrong
static NORETURN void raise_needed(const char *text, size_t needed) {
    mp_obj_t args[2] = {mp_obj_new_str(text, strlen(text)), mp_obj_new_int_from_uint(needed)};
    nlr_raise(mp_call_function_n_kw(MP_OBJ_FROM_PTR(&mp_type_ValueError), 2, 0, args));
}

static int checked(int err) {
    if (err < 0) {
        raise_value(tess_error(err));
    }
    return err;
}

/// Buffers ///

// A buffer that is kept over calls, and where it lay when it was taken.
typedef struct held {
    mp_obj_t object;
    void *at;
    size_t size;
} held_t;

static held_t hold(mp_obj_t object, mp_uint_t access) {
    mp_buffer_info_t info;
    mp_get_buffer_raise(object, &info, access);
    held_t held = {object, info.buf, info.len};
    return held;
}

static void check_held(const held_t *held, mp_uint_t access) {
    held_t now = hold(held->object, access);
    if (now.at != held->at || now.size != held->size) {
        mp_raise_msg(&mp_type_RuntimeError, "a buffer was resized after it was handed over");
    }
}

static held_t hold_model(mp_obj_t object) {
    mp_buffer_info_t info;
    held_t held = hold(object, MP_BUFFER_READ);
    if (mp_get_buffer(object, &info, MP_BUFFER_WRITE)) {
        mp_raise_TypeError("the model must be read-only: bytes, or memoryview(open(...)) of a file in ROMFS");
    }
    if ((uintptr_t)held.at % 4 != 0) {
        raise_value("the model does not lie at a multiple of 4 bytes");
    }
    return held;
}

// a writable buffer of at least `count` records of `size` bytes, at a multiple of `align`
static void *records(mp_obj_t object, size_t count, size_t size, size_t align) {
    held_t held = hold(object, MP_BUFFER_RW);
    if ((uintptr_t)held.at % align != 0) {
        raise_needed("a buffer of records must lie at a multiple of, in bytes:", align);
    }
    if (count > held.size / size) {
        raise_needed("a buffer is too small; bytes needed:", count * size);
    }
    return held.at;
}

static uint16_t get_u16(mp_obj_t object, int lowest, const char *text) {
    mp_int_t value = (mp_int_t)mp_obj_get_int(object);
    if (value < lowest || value > 65535) {
        raise_value(text);
    }
    return (uint16_t)value;
}

/// Pictures ///

// Where the lines of a picture come from: one buffer, or a callable that is asked for each line.
typedef struct picture {
    const held_t *model, *arena;
    const uint8_t *pixels;      // NULL: ask `reader`
    size_t line_size;
    mp_obj_t reader;
    mp_obj_t line;              // keeps the last answer alive
    mp_obj_t exception;         // what the reader raised, MP_OBJ_NULL
} picture_t;

static const uint8_t *call_reader(picture_t *picture, uint16_t y) {
    mp_buffer_info_t info;
    mp_obj_t number = MP_OBJ_NEW_SMALL_INT(y);
    picture->line = mp_call_function_n_kw(picture->reader, 1, 0, &number);
    mp_get_buffer_raise(picture->line, &info, MP_BUFFER_READ);
    if (info.len < picture->line_size) {
        raise_needed("a line is too short; bytes needed:", picture->line_size);
    }
    return info.buf;
}

// Exceptions of the reader are kept until the run is over, so that the detector can be used again. Only a reader that resizes
// the detector's own memory stops it by a jump over the runtime, which must not write there any more; `busy` stays set.
static const uint8_t *picture_line(void *ctx, uint16_t y) {
    picture_t *picture = ctx;
    if (picture->pixels) {
        return picture->pixels + y * picture->line_size;
    }
    struct {
        nlr_buf_t nlr;
        // cppcheck-suppress unusedStructMember
        void *spare;            // firmware built with a pystack has one word more
    } guard;
    const uint8_t *volatile line = NULL;
    if (mp_fun_table.nlr_push(&guard.nlr) == 0) {
        line = call_reader(picture, y);
        mp_fun_table.nlr_pop();
    } else {
        picture->exception = MP_OBJ_FROM_PTR(guard.nlr.ret_val);
    }
    check_held(picture->model, MP_BUFFER_READ);
    check_held(picture->arena, MP_BUFFER_RW);
    return line;
}

static void open_picture(picture_t *picture, mp_obj_t object, uint16_t width, uint16_t height, mp_int_t format) {
    static const uint8_t pixel_sizes[] = {3, 2, 2, 1};
    mp_buffer_info_t info;
    if (format < TESS_RGB888 || format > TESS_GREY) {
        raise_value("format is none of RGB888, RGB565_BE, RGB565_LE, GREY");
    }
    picture->line_size = (size_t)width * pixel_sizes[format];
    picture->pixels = NULL;
    picture->reader = object;
    picture->line = mp_const_none;
    picture->exception = MP_OBJ_NULL;
    if (mp_get_buffer(object, &info, MP_BUFFER_READ)) {
        if (info.len != picture->line_size * height) {
            raise_needed("the picture's buffer does not fit its width, height and format; bytes expected:",
                picture->line_size * height);
        }
        picture->pixels = info.buf;
    }
}

/// Detector ///

typedef struct detector {
    mp_obj_base_t base;
    held_t model, arena;
    uint16_t content_w, content_h;
    bool busy;
    tess_t t;
} detector_t;

mp_obj_full_type_t detector_type;

// the work memory inside of a bytearray, whose start may be anywhere
static void *aligned(const held_t *arena) {
    return (void *)(((uintptr_t)arena->at + TESS_ALIGN - 1) / TESS_ALIGN * TESS_ALIGN);
}

static size_t bytes_needed(const held_t *model) {
    size_t bytes;
    checked(tess_needed(model->at, model->size, &bytes));
    return bytes + TESS_ALIGN - 1;
}

static detector_t *get_detector(mp_obj_t object) {
    if ((const void *)mp_obj_get_type(object) != (const void *)&detector_type) {
        mp_raise_TypeError("a Detector is expected");
    }
    detector_t *self = MP_OBJ_TO_PTR(object);
    if (self->busy) {
        mp_raise_msg(&mp_type_RuntimeError, "the detector is at work: a line reader must not call it");
    }
    check_held(&self->model, MP_BUFFER_READ);
    check_held(&self->arena, MP_BUFFER_RW);
    return self;
}

static mp_obj_t detector_make_new(const mp_obj_type_t *type, size_t n_args, size_t n_kw, const mp_obj_t *args) {
    mp_arg_check_num(n_args, n_kw, 2, 2, false);
    held_t model = hold_model(args[0]), arena = hold(args[1], MP_BUFFER_RW);
    size_t needed = bytes_needed(&model);
    if (arena.size < needed) {
        raise_needed("the work memory is too small; bytes needed:", needed);
    }
    detector_t *self = mp_obj_malloc(detector_t, type);
    self->model = model;
    self->arena = arena;
    self->busy = false;
    checked(tess_open(&self->t, model.at, model.size, aligned(&arena), needed - (TESS_ALIGN - 1)));
    tess_input(&self->t, &self->content_h, &self->content_w, NULL);
    return MP_OBJ_FROM_PTR(self);
}

static int run(detector_t *self, picture_t *picture, uint16_t width, uint16_t height, mp_int_t format) {
    tess_letterbox_t box;
    checked(tess_letterbox_init(&box, &self->t, picture_line, picture, width, height, (int)format));
    tess_letterbox_content(&box, &self->content_w, &self->content_h);
    tess_source_t source = tess_letterbox_source(&box);
    self->busy = true;
    int err = tess_run(&self->t, &source);
    self->busy = false;
    if (picture->exception != MP_OBJ_NULL) {
        nlr_raise(picture->exception);
    }
    return err;
}

// detect(picture, width, height, format, boxes) -> number of boxes, 12 bytes each: int16 x1, y1, x2, y2 in 1/16 pixel of the
// network's frame, uint16 score in 1/32768, uint16 label; best first
static mp_obj_t detector_detect(size_t n_args, const mp_obj_t *args) {
    (void)n_args;
    uint16_t width = get_u16(args[2], 1, "width must be 1..65535"), height = get_u16(args[3], 1, "height must be 1..65535");
    mp_int_t format = (mp_int_t)mp_obj_get_int(args[4]);
    detector_t *self = get_detector(args[0]);  // after the numbers: an object's __int__ can do anything
    picture_t picture = {.model = &self->model, .arena = &self->arena};
    records(args[5], 1, sizeof(tess_box_t), 2);
    open_picture(&picture, args[1], width, height, format);
    checked(run(self, &picture, width, height, format));
    held_t boxes = hold(args[5], MP_BUFFER_RW);  // once more: a reader may have resized it
    return mp_obj_new_int_from_uint((mp_uint_t)checked(tess_detect(&self->t, boxes.at, boxes.size / sizeof(tess_box_t))));
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(detector_detect_obj, 6, 6, detector_detect);

// selftest(): ValueError when the model does not compute what the compiler did
static mp_obj_t detector_selftest(mp_obj_t self_in) {
    checked(tess_selftest(&get_detector(self_in)->t));
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(detector_selftest_obj, detector_selftest);

// info() -> (name, width, height, channels, sequential, class names, most boxes of a picture)
static mp_obj_t detector_info(mp_obj_t self_in) {
    detector_t *self = get_detector(self_in);
    uint16_t h, w, c;
    tess_input(&self->t, &h, &w, &c);
    mp_obj_t classes = mp_obj_new_list(0, NULL);
    for (uint16_t k = 0; k < tess_classes(&self->t); k++) {
        const char *name = tess_class_name(&self->t, k);
        mp_obj_list_append(classes, mp_obj_new_str(name, strlen(name)));
    }
    const char *name = tess_model_name(&self->t);
    mp_obj_t items[7] = {
        mp_obj_new_str(name, strlen(name)), mp_obj_new_int(w), mp_obj_new_int(h), mp_obj_new_int(c),
        mp_obj_new_bool(tess_sequential(&self->t)), classes,
        mp_obj_new_int(tess_max_boxes(&self->t)),
    };
    return mp_obj_new_tuple(7, items);
}
static MP_DEFINE_CONST_FUN_OBJ_1(detector_info_obj, detector_info);

// content() -> (width, height) of the part of the network's frame that the last picture filled
static mp_obj_t detector_content(mp_obj_t self_in) {
    detector_t *self = get_detector(self_in);
    mp_obj_t items[2] = {mp_obj_new_int(self->content_w), mp_obj_new_int(self->content_h)};
    return mp_obj_new_tuple(2, items);
}
static MP_DEFINE_CONST_FUN_OBJ_1(detector_content_obj, detector_content);

static size_t ap_bytes(const detector_t *self, size_t objects) {
    uint16_t levels = (uint16_t)checked(tess_ap_levels(&self->t, NULL, 0));
    size_t counters = tess_ap_counters(tess_classes(&self->t), levels);
    return counters * sizeof(uint32_t) + (levels + 1u) / 2 * sizeof(uint32_t) + objects * sizeof(tess_truth_t);
}

// ap_needed(objects) -> bytes for an AveragePrecision of pictures with at most so many objects
static mp_obj_t detector_ap_needed(mp_obj_t self_in, mp_obj_t objects) {
    size_t most = get_u16(objects, 0, "objects must be 0..65535");
    return mp_obj_new_int_from_uint(ap_bytes(get_detector(self_in), most));
}
static MP_DEFINE_CONST_FUN_OBJ_2(detector_ap_needed_obj, detector_ap_needed);

/// AveragePrecision ///

typedef struct precision {
    mp_obj_base_t base;
    detector_t *detector;
    held_t memory;              // counters, then score levels, then truth
    tess_truth_t *truth;
    size_t max_truth;
    tess_ap_t ap;
} precision_t;

mp_obj_full_type_t precision_type;

static precision_t *get_precision(mp_obj_t object) {
    if ((const void *)mp_obj_get_type(object) != (const void *)&precision_type) {
        mp_raise_TypeError("an AveragePrecision is expected");
    }
    precision_t *self = MP_OBJ_TO_PTR(object);
    get_detector(MP_OBJ_FROM_PTR(self->detector));
    check_held(&self->memory, MP_BUFFER_RW);
    return self;
}

// AveragePrecision(detector, memory): an object counts as found where IoU is at least 0.5
static mp_obj_t precision_make_new(const mp_obj_type_t *type, size_t n_args, size_t n_kw, const mp_obj_t *args) {
    mp_arg_check_num(n_args, n_kw, 2, 2, false);
    detector_t *detector = get_detector(args[0]);
    size_t needed = ap_bytes(detector, 0);
    records(args[1], needed, 1, 4);
    precision_t *self = mp_obj_malloc(precision_t, type);
    self->detector = detector;
    self->memory = hold(args[1], MP_BUFFER_RW);
    uint16_t n_levels = (uint16_t)checked(tess_ap_levels(&detector->t, NULL, 0)), n_classes = tess_classes(&detector->t);
    size_t n_counters = tess_ap_counters(n_classes, n_levels);
    uint32_t *counters = self->memory.at;
    uint16_t *levels = (uint16_t *)(counters + n_counters);
    checked(tess_ap_levels(&detector->t, levels, n_levels));
    checked(tess_ap_init(&self->ap, levels, n_levels, n_classes, 16384, counters, n_counters));
    self->truth = (tess_truth_t *)((uint8_t *)self->memory.at + needed);
    self->max_truth = (self->memory.size - needed) / sizeof(tess_truth_t);
    return MP_OBJ_FROM_PTR(self);
}

static void place(precision_t *self, const int32_t *objects, size_t count, uint16_t width, uint16_t height) {
    for (size_t i = 0; i < count; i++, objects += 6) {
        tess_truth_t *truth = &self->truth[i];
        if (objects[4] < 0 || objects[4] > 65535) {
            raise_value("truth has a label outside of 0..65535");
        }
        checked(tess_ap_place(truth, objects, width, height, self->detector->content_w, self->detector->content_h));
        truth->label = (uint16_t)objects[4];
        truth->ignore = objects[5] != 0;
    }
}

// add(boxes, n_boxes, truth, n_truth, width, height): the boxes of the last picture that the detector saw, and its truth:
// records of six int32 (x1, y1, x2, y2 in 1/16 pixel of a picture of width x height, label, ignore)
static mp_obj_t precision_add(size_t n_args, const mp_obj_t *args) {
    (void)n_args;
    size_t n_boxes = get_u16(args[2], 0, "n_boxes must be 0..65535"), n_truth = get_u16(args[4], 0, "n_truth must be 0..65535");
    uint16_t width = get_u16(args[5], 1, "width must be 1..65535"), height = get_u16(args[6], 1, "height must be 1..65535");
    precision_t *self = get_precision(args[0]);
    const tess_box_t *boxes = records(args[1], n_boxes, sizeof(tess_box_t), 2);
    const int32_t *objects = records(args[3], n_truth, 6 * sizeof(int32_t), 4);
    if (n_truth > self->max_truth) {
        raise_needed("the picture has too many objects for the memory of this AveragePrecision; most:", self->max_truth);
    }
    place(self, objects, n_truth, width, height);
    checked(tess_ap_add(&self->ap, boxes, n_boxes, self->truth, n_truth));
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(precision_add_obj, 7, 7, precision_add);

// result(label) -> average precision in 1/2^30, None without an object of the class
static mp_obj_t precision_result(mp_obj_t self_in, mp_obj_t label) {
    uint32_t q30;
    uint16_t number = get_u16(label, 0, "label must be 0..65535");
    return checked(tess_ap_class(&get_precision(self_in)->ap, number, &q30)) ? mp_obj_new_int_from_uint(q30) : mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_2(precision_result_obj, precision_result);

// mean() over the classes that have objects, in 1/2^30, or None
static mp_obj_t precision_mean(mp_obj_t self_in) {
    uint32_t q30;
    return checked(tess_ap_mean(&get_precision(self_in)->ap, &q30)) ? mp_obj_new_int_from_uint(q30) : mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(precision_mean_obj, precision_mean);

/// Module ///

// needed(model) -> bytes of work memory that a Detector wants
static mp_obj_t module_needed(mp_obj_t model) {
    held_t held = hold_model(model);
    return mp_obj_new_int_from_uint(bytes_needed(&held));
}
static MP_DEFINE_CONST_FUN_OBJ_1(module_needed_obj, module_needed);

mp_map_elem_t detector_table[5], precision_table[3];
static MP_DEFINE_CONST_DICT(detector_methods, detector_table);
static MP_DEFINE_CONST_DICT(precision_methods, precision_table);

static mp_map_elem_t entry(qstr name, const void *object) {
    mp_map_elem_t made = {MP_OBJ_NEW_QSTR(name), MP_OBJ_FROM_PTR(object)};
    return made;
}

static void make_types(void) {
    detector_table[0] = entry(MP_QSTR_detect, &detector_detect_obj);
    detector_table[1] = entry(MP_QSTR_selftest, &detector_selftest_obj);
    detector_table[2] = entry(MP_QSTR_info, &detector_info_obj);
    detector_table[3] = entry(MP_QSTR_content, &detector_content_obj);
    detector_table[4] = entry(MP_QSTR_ap_needed, &detector_ap_needed_obj);
    detector_type.base.type = (void *)&mp_type_type;
    detector_type.name = MP_QSTR_Detector;
    MP_OBJ_TYPE_SET_SLOT(&detector_type, make_new, detector_make_new, 0);
    MP_OBJ_TYPE_SET_SLOT(&detector_type, locals_dict, (void *)&detector_methods, 1);

    precision_table[0] = entry(MP_QSTR_add, &precision_add_obj);
    precision_table[1] = entry(MP_QSTR_result, &precision_result_obj);
    precision_table[2] = entry(MP_QSTR_mean, &precision_mean_obj);
    precision_type.base.type = (void *)&mp_type_type;
    precision_type.name = MP_QSTR_AveragePrecision;
    MP_OBJ_TYPE_SET_SLOT(&precision_type, make_new, precision_make_new, 0);
    MP_OBJ_TYPE_SET_SLOT(&precision_type, locals_dict, (void *)&precision_methods, 1);
}

mp_obj_t mpy_init(mp_obj_fun_bc_t *self, size_t n_args, size_t n_kw, mp_obj_t *args) {
    MP_DYNRUNTIME_INIT_ENTRY
    (void)n_args, (void)n_kw, (void)args;
    make_types();
    mp_store_global(MP_QSTR_needed, MP_OBJ_FROM_PTR(&module_needed_obj));
    mp_store_global(MP_QSTR_Detector, MP_OBJ_FROM_PTR(&detector_type));
    mp_store_global(MP_QSTR_AveragePrecision, MP_OBJ_FROM_PTR(&precision_type));
    mp_store_global(MP_QSTR_RGB888, MP_OBJ_NEW_SMALL_INT(TESS_RGB888));
    mp_store_global(MP_QSTR_RGB565_BE, MP_OBJ_NEW_SMALL_INT(TESS_RGB565_BE));
    mp_store_global(MP_QSTR_RGB565_LE, MP_OBJ_NEW_SMALL_INT(TESS_RGB565_LE));
    mp_store_global(MP_QSTR_GREY, MP_OBJ_NEW_SMALL_INT(TESS_GREY));
    MP_DYNRUNTIME_INIT_EXIT
}
