/* The second bank of the STM32H743's flash, where the store lies (RM0433 chapter 4): words of 32 bytes, each with error correction, so
 * each is written once after an erase.
 */
#include "link_frame.h"
#include "stm32.h"

#define FLASH_KEYR2 0x52002104u
#define FLASH_CR2 0x5200210Cu
#define FLASH_SR2 0x52002110u
#define FLASH_CCR2 0x52002114u
enum { EOP = 1 << 16, LOCK = 1 << 0, PG = 1 << 1, SER = 1 << 2, BY_64 = 3 << 4, START = 1 << 7, QW = 1 << 2, DBECCERR = 1 << 26 };
#define ERRORS 0x01EE0000u // WRPERR, PGSERR, STRBERR, INCERR, OPERR, RDPERR, RDSERR
#define BANK 0x08100000u

const uint32_t stm32_flash_sector = 128 << 10;

static void unlock(void) {
    REGISTER(FLASH_KEYR2) = 0x45670123u;
    REGISTER(FLASH_KEYR2) = 0xCDEF89ABu;
    REGISTER(FLASH_CCR2) = ERRORS | EOP;
}

static int finish(void) {
    wait_for(FLASH_SR2, QW, 0);
    uint32_t errors = REGISTER(FLASH_SR2) & ERRORS;
    REGISTER(FLASH_CR2) = BY_64; // on its own: what sets LOCK changes nothing else
    REGISTER(FLASH_CR2) = BY_64 | LOCK;
    return errors ? -1 : 0;
}

// "FLASH sector erase"
int stm32_flash_erase(uint32_t address) {
    uint32_t sector = (address - BANK) / stm32_flash_sector;
    unlock();
    REGISTER(FLASH_CR2) = BY_64 | SER | sector << 8;
    REGISTER(FLASH_CR2) = BY_64 | SER | sector << 8 | START;
    return finish();
}

// "Single write sequence"
int stm32_flash_write(uint32_t address, const uint8_t *data) {
    unlock();
    REGISTER(FLASH_CR2) = BY_64 | PG;
    __asm volatile("dsb" ::: "memory");
    for (uint32_t i = 0; i < LINK_STORE_UNIT; i += 4) {
        REGISTER(address + i) = link_get32(data + i);
    }
    __asm volatile("dsb" ::: "memory"); // QW is up once the word has arrived
    return finish();
}

int stm32_flash_damaged(void) {
    uint32_t damaged = REGISTER(FLASH_SR2) & DBECCERR;
    REGISTER(FLASH_CCR2) = DBECCERR;
    return damaged != 0;
}
