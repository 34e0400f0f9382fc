/* First program for a new target: does it count, does it fault, does it measure its stack?
 *
 * Reads `probe.bin` (u32 action, u32 argument) and prints one line.
 *   0  count a loop of 2 * argument + 1 instructions
 *   3  the same loop a thousand times, the meter paused after each
 *   1  store a word at the address
 *   2  use about `argument` * 64 bytes of stack, print the high-water mark
 */
#include <stdint.h>

#include "meter.h"
#include "port.h"
#include "semihosting.h"

static void count_loop(meter_t *meter, uint32_t n) {
    __asm volatile(
        "mov r0, %0\n bl meter_resume\n"
        "mov r4, %1\n 1: subs r4, r4, #1\n bne 1b\n" // 1 + 2n
        "mov r0, %0\n bl meter_pause\n" ::"r"(meter),
        "r"(n)
        : "r0", "r1", "r2", "r3", "r4", "r12", "lr", "cc", "memory");
}

static uint64_t count_loops(uint32_t stretches, uint32_t n) {
    static meter_t meter;
    meter_init(&meter);
    for (uint32_t i = 0; i < stretches; i++) {
        count_loop(&meter, n);
    }
    semi_decimal("overhead", meter.overhead);
    return meter.instructions;
}

// NOLINTNEXTLINE(misc-no-recursion): to use up stack
__attribute__((noinline)) static uint32_t recurse(uint32_t depth) {
    volatile uint32_t local[12];
    for (int i = 0; i < 12; i++) {
        local[i] = depth;
    }
    return depth == 0 ? 0 : recurse(depth - 1) + local[depth % 12];
}

int main(void) {
    uint32_t command[2] = {0, 0};
    int file = semi_open("probe.bin", 9, SEMI_READ);
    if (file < 0 || semi_read_at(file, 0, command, sizeof command) != 0) {
        semi_puts("probe: cannot read probe.bin\n");
        return 1;
    }
    semi_puts("probe:");
    if (command[0] == 0 || command[0] == 3) {
        semi_decimal("instructions", count_loops(command[0] == 0 ? 1 : 1000, command[1]));
    } else if (command[0] == 1) {
        *(volatile uint32_t *)(uintptr_t)command[1] = 1;
        semi_puts(" no fault");
    } else {
        stack_paint();
        uint32_t before = stack_high_water();
        recurse(command[1]);
        semi_decimal("before", before);
        semi_decimal("stack", stack_high_water());
    }
    semi_puts("\n");
    return 0;
}
