// What a target supplies to the common code, and what the start-up code offers to programs.
#ifndef PORT_H
#define PORT_H

#include <stdint.h>

struct link_config;
struct link_start;

// Starts clocks and timers, and memory protection where wrong addresses would not fault by themselves. Called before main.
void port_init(void);

// main has returned. Does not return itself.
__attribute__((noreturn)) void port_end(int status);
// A fault. `frame` is r0-r3, r12, lr, pc, xpsr as the chip pushed them, NULL when the stack ran out. Does not return.
__attribute__((noreturn)) void port_fault(const uint32_t *frame, uint32_t sp);

// After a fault that ended in a reset: tells it as the reason of this start.
void port_noted(struct link_start *start);

// A running count of timer ticks, good for 2^40 of them. Always executes the same number of instructions.
uint64_t port_ticks(void);
// Begins the count anew, so that a measurement never meets its end.
void port_restart_ticks(void);
// What so many ticks stand for: executed instructions in an emulator, which runs with -icount, so this is exact; cycles on a chip.
uint64_t port_instructions(uint64_t ticks);

/* A 32-bit timer and a second one that runs 2^shift times slower make one of 32 + shift bits. They need not start
 * together: the slow one only says how often the fast one went round. */
static inline uint64_t port_widen(uint32_t fine, uint32_t coarse, unsigned shift) {
    uint64_t slow = (uint64_t)coarse << shift;
    return fine + ((slow - fine + 0x80000000u) & ~(uint64_t)0xFFFFFFFFu);
}

// The serial line of the link, polled: no interrupt is ever taken.
void port_uart_init(void);
// The next byte that has arrived, or -1.
int port_uart_get(void);
void port_uart_put(uint8_t byte);
// Sleeps until a byte has arrived. May return early.
void port_uart_wait(void);

// Fills in what the link says of this board: unit, caches and clock, why it started, the rates of its serial line.
void port_describe(struct link_config *config);

// Fill the unused part of the stack with a pattern.
void stack_paint(void);
// Most bytes of stack in use at one time since the last stack_paint (those of the callers included).
uint32_t stack_high_water(void);

int main(void);

#endif
