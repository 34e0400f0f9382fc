// What all emulated boards share: a fault is a line on the console, and the end of main ends the emulator.
#include "link_session.h"
#include "port.h"
#include "scb.h"
#include "semihosting.h"

enum { FAULT_STATUS = 101 };

void port_noted(link_start_t *start) {
    (void)start;
}

void port_end(int status) {
    semi_exit(status);
}

void port_fault(const uint32_t *frame, uint32_t sp) {
    static const char *const names[] = {"NMI", "HardFault", "MemManage", "BusFault", "UsageFault"};
    uint32_t number = SCB_ICSR & 0x1FF;
    semi_puts("fault: ");
    semi_puts(number >= 2 && number <= 6 ? names[number - 2] : "unexpected exception");
    if (frame) {
        semi_hex("pc", frame[6]);
        semi_hex("lr", frame[5]);
    } else {
        semi_puts(" (stack overflow)");
        semi_hex("sp", sp);
    }
    semi_hex("cfsr", SCB_CFSR);
    semi_hex("hfsr", SCB_HFSR);
    if (SCB_CFSR & (1u << 7)) {
        semi_hex("address", SCB_MMFAR);
    } else if (SCB_CFSR & (1u << 15)) {
        semi_hex("address", SCB_BFAR);
    }
    semi_puts("\n");
    semi_exit(FAULT_STATUS);
}
