// Memory protection unit of ARMv8-M (DDI 0553B, D1.2): a region has a first and a last byte instead of a size.
#ifndef MPU_V8_H
#define MPU_V8_H

#include <stdint.h>

#define MPU_CTRL (*(volatile uint32_t *)0xE000ED94u)
#define MPU_RNR (*(volatile uint32_t *)0xE000ED98u)
#define MPU_RBAR (*(volatile uint32_t *)0xE000ED9Cu)
#define MPU_RLAR (*(volatile uint32_t *)0xE000EDA0u)
#define MPU_MAIR0 (*(volatile uint32_t *)0xE000EDC0u)

enum {
    MPU_NO_EXECUTE = 1 << 0,
    MPU_READ_WRITE = 1 << 1,
    MPU_READ_ONLY = 3 << 1,
    MPU_DEVICE = 1 << 8, // else normal memory, not cached
};

// `first` and `last` + 1 are multiples of 32. Regions do not overlap.
static inline void mpu_region(uint32_t number, uint32_t first, uint32_t last, uint32_t attributes) {
    MPU_RNR = number;
    MPU_RBAR = first | (attributes & 0x1F);
    MPU_RLAR = (last & ~0x1Fu) | (attributes & MPU_DEVICE ? 1u << 1 : 0) | 1;
}

// What no region covers faults.
static inline void mpu_enable(void) {
    MPU_MAIR0 = 0x0444; // attribute 0: normal memory, not cached; 1: device
    MPU_CTRL = 1;
    __asm volatile("dsb\n isb" ::: "memory");
}

#endif
