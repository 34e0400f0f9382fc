# MicroPython's QEMU port as the rehearsal of an OpenMV Cam H7: Cortex-M7 with single precision, object representation C,
# one heap of the size of the H7's largest block, and FAT as on an SD card.
QEMU_ARCH = arm
QEMU_MACHINE = mps2-an500

CFLAGS += -mthumb -mcpu=cortex-m7 -mfpu=fpv5-sp-d16 -mfloat-abi=hard
CFLAGS += -DQEMU_SOC_MPS2
CFLAGS += -DMICROPY_OBJ_REPR=MICROPY_OBJ_REPR_C
CFLAGS += -DMICROPY_FATFS_ENABLE_LFN=1 -DMICROPY_FATFS_NORTC=1 -DMICROPY_FATFS_RPATH=2
CFLAGS += -DMICROPY_HW_MCU_NAME='"Cortex-M7"'

MICROPY_VFS_FAT = 1
MICROPY_HEAP_SIZE = 270336

LDSCRIPT = mcu/arm/mps2.ld

SRC_C += shared/timeutils/timeutils.c
SRC_BOARD_O = shared/runtime/gchelper_native.o shared/runtime/gchelper_thumb2.o

MPY_CROSS_FLAGS += -march=armv7emsp
