/* The STM32F746's flash (RM0385 chapter 3): one bank, so the core stands still while it is erased or written; what the serial line
 * receives goes on through DMA.
 */
#include "link_frame.h"
#include "stm32.h"

#define FLASH_KEYR 0x40023C04u
#define FLASH_SR 0x40023C0Cu
#define FLASH_CR 0x40023C10u
enum { PG = 1 << 0, SER = 1 << 1, BY_32 = 2 << 8, STRT = 1 << 16, BSY = 1 << 16, EOP = 1 << 0, LARGE_SECTORS = 5 };
enum { ERRORS = 0xF2 }; // WRPERR, PGAERR, PGPERR, ERSERR, OPERR
#define LOCK (1u << 31)
#define LARGE_FIRST 0x08040000u // where sector 5 begins, the first of the large ones

const uint32_t stm32_flash_sector = 256 << 10;

static void unlock(void) {
    REGISTER(FLASH_KEYR) = 0x45670123u;
    REGISTER(FLASH_KEYR) = 0xCDEF89ABu;
    REGISTER(FLASH_SR) = ERRORS | EOP; // cleared by a 1
}

static int finish(void) {
    wait_for(FLASH_SR, BSY, 0);
    uint32_t errors = REGISTER(FLASH_SR) & ERRORS;
    REGISTER(FLASH_CR) = BY_32;
    REGISTER(FLASH_CR) = BY_32 | LOCK;
    return errors ? -1 : 0;
}

// "Sector erase"
int stm32_flash_erase(uint32_t address) {
    uint32_t sector = LARGE_SECTORS + (address - LARGE_FIRST) / stm32_flash_sector;
    unlock();
    REGISTER(FLASH_CR) = BY_32 | SER | sector << 3;
    REGISTER(FLASH_CR) = BY_32 | SER | sector << 3 | STRT;
    __asm volatile("dsb" ::: "memory");
    return finish();
}

// "Standard programming"
int stm32_flash_write(uint32_t address, const uint8_t *data) {
    unlock();
    REGISTER(FLASH_CR) = BY_32 | PG;
    __asm volatile("dsb" ::: "memory");
    for (uint32_t i = 0; i < LINK_STORE_UNIT; i += 4) {
        REGISTER(address + i) = link_get32(data + i);
        __asm volatile("dsb" ::: "memory");
        wait_for(FLASH_SR, BSY, 0);
    }
    return finish();
}

// There is no error correction.
int stm32_flash_damaged(void) {
    return 0;
}
