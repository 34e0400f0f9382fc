// MicroPython's core in the fuzzer of the camera's module.
#include <port/mpconfigport_common.h>

#define MICROPY_CONFIG_ROM_LEVEL (MICROPY_CONFIG_ROM_LEVEL_CORE_FEATURES)
#define MICROPY_ENABLE_COMPILER (1)
#define MICROPY_ENABLE_GC (1)
#define MICROPY_FLOAT_IMPL (MICROPY_FLOAT_IMPL_FLOAT)
#define MICROPY_EMIT_X64 (1) // brings mp_fun_table, by which native modules call the interpreter
#define MICROPY_PY_SYS (0)
#define MICROPY_PY_IO (0)
#define MICROPY_PY_BUILTINS_MEMORYVIEW (1)
#define MICROPY_PY_BUILTINS_BYTEARRAY (1)
#define MICROPY_PY_ARRAY (1)
#define MICROPY_ENABLE_EXTERNAL_IMPORT (0)
