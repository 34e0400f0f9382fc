/* netduinoplus2 under `-icount shift=0`: an instruction takes 1 ns and QEMU clocks the timers at 1 GHz, so a tick of TIM2
 * is an instruction. TIM5, 256 times slower, says how often TIM2 went round. Outside of RAM and flash this machine faults by
 * itself; it drops writes to the flash and to its mirror at 0, and those are made faults here.
 */
#include "port.h"

#include "mpu.h"

#define TIM2 0x40000000u
#define TIM5 0x40000C00u
#define CR1(timer) (*(volatile uint32_t *)((timer) + 0x00u))
#define EGR(timer) (*(volatile uint32_t *)((timer) + 0x14u))
#define CNT(timer) (*(volatile uint32_t *)((timer) + 0x24u))
#define PSC(timer) (*(volatile uint32_t *)((timer) + 0x28u))

static void start(uint32_t timer, uint32_t divider) {
    PSC(timer) = divider - 1;
    EGR(timer) = 1; // take the divider over now, count from 0
    CR1(timer) = 1;
}

void port_init(void) {
    mpu_region(0, 0x00000000, 28, MPU_READ_ONLY); // 256 MB
    mpu_enable(1);
    start(TIM2, 1);
    start(TIM5, 256);
}

uint64_t port_ticks(void) {
    uint32_t fine = CNT(TIM2);
    uint32_t coarse = CNT(TIM5);
    return port_widen(fine, coarse, 8);
}

uint64_t port_instructions(uint64_t ticks) {
    return ticks;
}
