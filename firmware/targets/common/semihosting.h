/* Files and console of the machine that runs the emulator, through the debugger's BKPT 0xAB calls.
 *
 * QEMU answers them itself (-semihosting-config enable=on,target=native). Host time passes in them, emulated time does
 * not, apart from the one BKPT instruction.
 */
#ifndef SEMIHOSTING_H
#define SEMIHOSTING_H

#include <stddef.h>
#include <stdint.h>

enum { SEMI_READ = 1, SEMI_WRITE = 5 }; // "rb", "wb"

// Open a file of QEMU's current folder, its name `length` characters long; handle, or -1.
int semi_open(const char *name, uint32_t length, int mode);
void semi_close(int file);
// Read or write exactly `size` bytes at byte `offset` of the file; 0, or -1 when that many could not be moved.
int semi_read_at(int file, uint32_t offset, void *data, size_t size);
int semi_write_at(int file, uint32_t offset, const void *data, size_t size);

// Text on QEMU's console; ` name=0x0123abcd`; ` name=123`.
void semi_puts(const char *text);
void semi_hex(const char *name, uint32_t value);
void semi_decimal(const char *name, uint64_t value);
// End the emulator with this exit status.
__attribute__((noreturn)) void semi_exit(int status);

#endif
