/* From reset to main() on a Cortex-M4F, M7 or M55, and the report of a fault.
 *
 * The stack lies at the very bottom of RAM: one that grows too far runs into memory that is not there and faults, instead
 * of into somebody's data. What a fault leads to is the port's to say: port_fault.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "port.h"
#include "scb.h"

#define STACK_PATTERN 0xA5A5A5A5u
enum { FAULT_STACK_WORDS = 96 };

// Made by sections.ld. NOLINTBEGIN(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp): names that linker scripts use
extern uint32_t _stack_limit[], _estack[];
extern uint8_t _sdata[], _edata[], _sidata[], _sbss[], _ebss[];
// NOLINTEND(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp)

void reset_handler(void);
void fault_handler(void);
void fault_report(const uint32_t *frame);
void start_c(void);

// Only faults are expected: no interrupt is ever enabled.
__attribute__((section(".vectors"), used)) static void (*const vectors[16])(void) = {
    (void (*)(void))_estack, reset_handler, fault_handler, fault_handler, fault_handler, fault_handler, fault_handler,
    fault_handler,           fault_handler, fault_handler, fault_handler, fault_handler, fault_handler, fault_handler,
    fault_handler,           fault_handler};

// A fault may come from a broken stack, so its report has one of its own.
__attribute__((used)) static uint32_t fault_stack[FAULT_STACK_WORDS] __attribute__((aligned(8)));

// Naked: paints the stack before anything lies on it, and enables the FPU before the compiler may use it.
__attribute__((naked, noreturn)) void reset_handler(void) {
    __asm volatile(
        "    ldr r0, =_stack_limit      \n"
        "    ldr r1, =_estack           \n"
        "    ldr r2, =0xA5A5A5A5        \n"
        "1:  str r2, [r0], #4           \n"
        "    cmp r0, r1                 \n"
        "    blo 1b                     \n"
        "    ldr r0, =0xE000ED88        \n" // CPACR: full access to CP10 and CP11
        "    ldr r1, [r0]               \n"
        "    orr r1, r1, #(0xF << 20)   \n"
        "    str r1, [r0]               \n"
        "    dsb                        \n"
        "    isb                        \n"
        "    b start_c                  \n"
        "    .ltorg                     \n");
}

__attribute__((used, noreturn)) void start_c(void) {
    memcpy(_sdata, _sidata, (size_t)(_edata - _sdata));
    memset(_sbss, 0, (size_t)(_ebss - _sbss));
    SCB_VTOR = (uint32_t)(uintptr_t)vectors;
    SCB_SHCSR |= 7u << 16; // memory management, bus and usage faults by name, not as HardFault
    SCB_CCR |= 1u << 4;    // a division by zero is a fault
    port_init();
    port_end(main());
}

__attribute__((naked)) void fault_handler(void) {
    __asm volatile(
        "    mov r0, sp                 \n"
        "    ldr r1, =fault_stack       \n"
        "    add r1, r1, %0             \n"
        "    mov sp, r1                 \n"
        "    b fault_report             \n"
        "    .ltorg                     \n" ::"i"(FAULT_STACK_WORDS * 4));
}

// `frame` is where the chip pushed r0-r3, r12, lr, pc, xpsr; when the stack ran out of RAM it is not there.
__attribute__((used, noreturn)) void fault_report(const uint32_t *frame) {
    int whole = frame >= _stack_limit && frame + 8 <= _estack;
    port_fault(whole ? frame : NULL, (uint32_t)(uintptr_t)frame);
}

// Naked: a frame of its own would lie inside of what it fills.
__attribute__((naked)) void stack_paint(void) {
    __asm volatile(
        "    ldr r0, =_stack_limit      \n"
        "    mov r1, sp                 \n"
        "    ldr r2, =0xA5A5A5A5        \n"
        "1:  cmp r0, r1                 \n"
        "    itt lo                     \n"
        "    strlo r2, [r0], #4         \n"
        "    blo 1b                     \n"
        "    bx lr                      \n"
        "    .ltorg                     \n");
}

uint32_t stack_high_water(void) {
    const volatile uint32_t *word = _stack_limit;
    while (word < _estack && *word == STACK_PATTERN) {
        word++;
    }
    return (uint32_t)((uintptr_t)_estack - (uintptr_t)word);
}
