// What all boards share: a fault is noted where a reset does not reach, and told to the host after it; the end of main is a reset.
#include "link_session.h"
#include "port.h"
#include "scb.h"

#define NOTED 0x7E55FA17u

static struct {
    uint32_t noted;
    uint32_t pc, lr, cfsr;
} note __attribute__((section(".noinit")));

static __attribute__((noreturn)) void reset(void) {
    __asm volatile("dsb" ::: "memory");
    SCB_AIRCR = 0x05FA0000u | 1u << 2;
    __asm volatile("dsb" ::: "memory");
    for (;;) {
    }
}

void port_end(int status) {
    (void)status; // the port is never gone
    reset();
}

void port_fault(const uint32_t *frame, uint32_t sp) {
    note.pc = frame ? frame[6] : 0; // 0: the stack ran out, and lr is where it points to
    note.lr = frame ? frame[5] : sp;
    note.cfsr = SCB_CFSR;
    note.noted = NOTED;
    reset();
}

void port_noted(link_start_t *start) {
    if ((start->reset == LINK_RESET_SOFTWARE || start->reset == LINK_RESET_UNKNOWN) && note.noted == NOTED) {
        start->reset = LINK_RESET_FAULT;
        start->pc = note.pc;
        start->lr = note.lr;
        start->cfsr = note.cfsr;
    }
    note.noted = 0;
}
