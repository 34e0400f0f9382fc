// Interrupts as alarm clocks: they wake a sleeping core and are never taken, so counts of instructions stay exact.
#ifndef NVIC_H
#define NVIC_H

#include <stdint.h>

#define NVIC_ISER ((volatile uint32_t *)0xE000E100u)
#define NVIC_ICPR ((volatile uint32_t *)0xE000E280u)

// Lets an interrupt wake the core, and masks all interrupts.
static inline void nvic_enable(uint32_t number) {
    __asm volatile("cpsid i" ::: "memory");
    NVIC_ISER[number / 32] = 1u << number % 32;
}

static inline void nvic_clear(uint32_t number) {
    NVIC_ICPR[number / 32] = 1u << number % 32;
}

static inline void nvic_sleep(void) {
    __asm volatile("dsb\n wfi" ::: "memory");
}

#endif
