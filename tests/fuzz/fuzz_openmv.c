/*
 * A hostile script on the camera: the module `tessera`, built with sanitizers, in an interpreter on this machine. Whatever is called
 * in whatever order with whatever arguments, there is a result or one of the promised exceptions.
 *
 * The input is `data` of the script openmv/script.py, which makes calls of it. Its buffers are blocks of their own of exactly the
 * size asked for, so that a byte too far is seen.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "port/micropython_embed.h"
#include "py/objfun.h"
#include "py/objmodule.h"
#include "py/runtime.h"
#include "tess_format.h"

int LLVMFuzzerInitialize(int *count, char ***arguments);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
mp_obj_t mpy_init(mp_obj_fun_bc_t *self, size_t n_args, size_t n_kw, mp_obj_t *args);
void __asan_handle_no_return(void);
NORETURN void __real_nlr_jump(void *value);
NORETURN void __wrap_nlr_jump(void *value);

enum { HEAP = 192 << 10, MOST_BLOCKS = 512, MOST_MODEL = 1 << 16 };

static char *script;
static uint8_t *model;
static size_t model_size;
static void *blocks[MOST_BLOCKS];
static size_t n_blocks;

static void *block(size_t size) {
    if (n_blocks == MOST_BLOCKS || size > MOST_MODEL) {
        mp_raise_msg(&mp_type_MemoryError, "enough");
    }
    return blocks[n_blocks++] = calloc(1, size);
}

// An exception jumps over frames of which the address sanitizer knows nothing then.
NORETURN void __wrap_nlr_jump(void *value) {
    __asan_handle_no_return();
    __real_nlr_jump(value);
}

/// What the script has beside Python ///

// outside(size) -> a bytearray that lies in no heap of Python's
static mp_obj_t outside(mp_obj_t size) {
    size_t bytes = (size_t)mp_obj_get_int(size);
    return mp_obj_new_bytearray_by_ref(bytes, block(bytes));
}
static MP_DEFINE_CONST_FUN_OBJ_1(outside_obj, outside);

// frozen(buffer) -> a copy that cannot be written to, as a file of a ROMFS
static mp_obj_t frozen(mp_obj_t object) {
    mp_buffer_info_t info;
    mp_get_buffer_raise(object, &info, MP_BUFFER_READ);
    void *copy = block(info.len);
    memcpy(copy, info.buf, info.len);
    return mp_obj_new_memoryview('B', info.len, copy);
}
static MP_DEFINE_CONST_FUN_OBJ_1(frozen_obj, frozen);

// mend(bytearray): the checksum of a model.tess
static mp_obj_t mend(mp_obj_t object) {
    mp_buffer_info_t info;
    mp_get_buffer_raise(object, &info, MP_BUFFER_RW);
    uint8_t *bytes = info.buf;
    uint32_t sum = tess_crc32(bytes + 16, info.len - 16);
    memcpy(bytes + 12, &sum, sizeof(sum));
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(mend_obj, mend);

// broken(text): a promise is
static mp_obj_t broken(mp_obj_t text) {
    fprintf(stderr, "broken promise: %s\n", mp_obj_str_get_str(text));
    abort();
}
static MP_DEFINE_CONST_FUN_OBJ_1(broken_obj, broken);

static mp_obj_t view(const uint8_t *data, size_t size) {
    void *copy = block(size);
    memcpy(copy, data, size);
    return mp_obj_new_memoryview('B', size, copy);
}

static mp_obj_t import_tessera(void) {
    mp_module_context_t *context = m_new_obj(mp_module_context_t);
    memset(context, 0, sizeof(*context));
    context->module.base.type = &mp_type_module;
    context->module.globals = MP_OBJ_TO_PTR(mp_obj_new_dict(8));
    mp_obj_fun_bc_t self = {.context = context};
    mpy_init(&self, 0, 0, NULL);
    return MP_OBJ_FROM_PTR(context);
}

static void prepare(const uint8_t *data, size_t size) {
    mp_store_global(MP_QSTR_tessera, import_tessera());
    mp_store_global(MP_QSTR_outside, MP_OBJ_FROM_PTR(&outside_obj));
    mp_store_global(MP_QSTR_frozen, MP_OBJ_FROM_PTR(&frozen_obj));
    mp_store_global(MP_QSTR_mend, MP_OBJ_FROM_PTR(&mend_obj));
    mp_store_global(MP_QSTR_broken, MP_OBJ_FROM_PTR(&broken_obj));
    mp_store_global(MP_QSTR_model, view(model, model_size));
    mp_store_global(MP_QSTR_data, view(data, size));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static uint64_t heap[HEAP / sizeof(uint64_t)];
    nlr_buf_t nlr;
    if (size > MOST_MODEL) {
        return -1;
    }
    mp_embed_init(heap, sizeof(heap), &nlr);
    if (nlr_push(&nlr) == 0) {
        prepare(data, size);
        nlr_pop();
    } else {
        mp_obj_print_exception(&mp_plat_print, MP_OBJ_FROM_PTR(nlr.ret_val));
        abort();
    }
    mp_embed_exec_str(script);
    mp_embed_deinit();
    while (n_blocks > 0) {
        free(blocks[--n_blocks]);
    }
    return 0;
}

static void *read_file(const char *path, size_t *size) {
    static char text[MOST_MODEL];
    FILE *file = fopen(path, "rb");
    if (!file) {
        fprintf(stderr, "%s is missing: run from the root of the repository\n", path);
        exit(1);
    }
    *size = fread(text, 1, sizeof(text) - 1, file);
    fclose(file);
    char *copy = calloc(1, *size + 1);
    memcpy(copy, text, *size);
    return copy;
}

int LLVMFuzzerInitialize(int *count, char ***arguments) {
    size_t size;
    (void)count, (void)arguments;
    script = read_file("tests/fuzz/openmv/script.py", &size);
    model = read_file("tests/fuzz/corpus/tess/seed-decoder-strips.tess", &model_size);
    return 0;
}
