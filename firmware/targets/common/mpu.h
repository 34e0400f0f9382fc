// Memory protection unit of ARMv7-M: turns what a board tolerates into faults, and
// says what may be cached.
#ifndef MPU_H
#define MPU_H

#include <stdint.h>

#define MPU_CTRL (*(volatile uint32_t *)0xE000ED94u)
#define MPU_RNR (*(volatile uint32_t *)0xE000ED98u)
#define MPU_RBAR (*(volatile uint32_t *)0xE000ED9Cu)
#define MPU_RASR (*(volatile uint32_t *)0xE000EDA0u)

#define MPU_READ_WRITE (3u << 24)
#define MPU_READ_ONLY (6u << 24)
#define MPU_NO_EXECUTE (1u << 28)
// Kinds of memory (TEX, C, B); none of them is strongly ordered.
#define MPU_DEVICE (1u << 16)
#define MPU_UNCACHED (1u << 19)
#define MPU_WRITE_THROUGH (1u << 17)
#define MPU_WRITE_BACK (1u << 19 | 1u << 17 | 1u << 16)

// `base` is a multiple of the region's size, 2^size_log2 bytes.
static inline void mpu_region(uint32_t number, uint32_t base, uint32_t size_log2, uint32_t attributes) {
    MPU_RNR = number;
    MPU_RBAR = base;
    MPU_RASR = attributes | ((size_log2 - 1) << 1) | 1;
}

// From here on the region is not there. A change of regions holds after mpu_settle.
static inline void mpu_forget(uint32_t number) {
    MPU_RNR = number;
    MPU_RASR = 0;
}

static inline void mpu_settle(void) {
    __asm volatile("dsb\n isb" ::: "memory");
}

// What no region covers faults, or, with `background`, is as the chip's memory map has it.
static inline void mpu_enable(int background) {
    MPU_CTRL = background ? 5 : 1;
    mpu_settle();
}

#endif
