#include "meter.h"

#include "port.h"

// Not inlined: the number of instructions between the two timer reads must not depend on the caller.
__attribute__((noinline)) void meter_resume(meter_t *meter) {
    meter->started = port_ticks();
}

__attribute__((noinline)) void meter_pause(meter_t *meter) {
    meter->instructions += port_instructions(port_ticks() - meter->started) - meter->overhead;
}

void meter_reset(meter_t *meter) {
    port_restart_ticks();
    meter->instructions = 0;
}

__attribute__((noinline)) void meter_init(meter_t *meter) {
    meter->overhead = 0;
    meter->instructions = 0;
    __asm volatile("mov r0, %0\n bl meter_resume\n mov r0, %0\n bl meter_pause" ::"r"(meter)
                   : "r0", "r1", "r2", "r3", "r12", "lr", "cc", "memory");
    meter->overhead = (uint32_t)meter->instructions;
    meter->instructions = 0;
}
