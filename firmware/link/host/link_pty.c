/*
 * A device in a process of this machine, reached over a pseudo-terminal:
 *
 *     link_pty MODEL        prints the terminal's path, serves until its standard input ends
 *
 * A terminal set to another rate than the device's garbles every byte, as a serial line would.
 */
#define _DEFAULT_SOURCE
#define _XOPEN_SOURCE 600
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "link_host.h"

enum { MEMORY = 1 << 20, PLACE = 4 << 20, ROWS_AHEAD = 4, BASE_BAUD = 115200 };

static int terminal;
static speed_t own_speed = B115200;

static int garbled(void) {
    struct termios settings;
    return tcgetattr(terminal, &settings) != 0 || cfgetospeed(&settings) != own_speed;
}

static void garble(uint8_t *data, size_t size) {
    for (size_t i = 0; i < size; i++) {
        data[i] = (uint8_t)(data[i] * 167 + 13);
    }
}

static int pty_read(void *ctx, uint8_t *data, size_t size, int wait) {
    struct pollfd sources[2] = {{terminal, POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
    char ignored;
    (void)ctx;
    if (poll(sources, 2, wait ? -1 : 0) < 0 || (sources[1].revents && read(STDIN_FILENO, &ignored, 1) <= 0)) {
        return -1;
    }
    if (!(sources[0].revents & POLLIN)) {
        return 0;
    }
    ssize_t count = read(terminal, data, size);
    if (count > 0 && garbled()) {
        garble(data, (size_t)count);
    }
    return (int)count;
}

// A terminal that nobody reads fills up: wait, but not for a tool that is gone.
static int pty_write(void *ctx, const uint8_t *data, size_t size) {
    (void)ctx;
    while (size > 0) {
        uint8_t part[64];
        size_t count = size < sizeof(part) ? size : sizeof(part);
        for (size_t i = 0; i < count; i++) {
            part[i] = data[i];
        }
        if (garbled()) {
            garble(part, count);
        }
        struct pollfd sources[2] = {{terminal, POLLOUT, 0}, {STDIN_FILENO, 0, 0}};
        if (poll(sources, 2, -1) < 0 || sources[1].revents & POLLHUP) {
            return -1;
        }
        ssize_t written = write(terminal, part, count);
        if (written < 0) {
            return -1;
        }
        data += written;
        size -= (size_t)written;
    }
    return 0;
}

static int pty_set_baud(void *ctx, uint32_t rate) {
    static const struct { uint32_t rate; speed_t speed; } known[] = {
        {115200, B115200}, {230400, B230400}, {460800, B460800}, {921600, B921600}, {2000000, B2000000}};
    (void)ctx;
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (known[i].rate == rate) {
            own_speed = known[i].speed;
            return 0;
        }
    }
    return -1;
}

static uint8_t *read_file(const char *path, uint32_t *size) {
    struct stat status;
    FILE *file = fopen(path, "rb");
    if (!file || fstat(fileno(file), &status) != 0) {
        return NULL;
    }
    uint8_t *data = malloc((size_t)status.st_size + 1);
    *size = (uint32_t)(data ? fread(data, 1, (size_t)status.st_size, file) : 0);
    fclose(file);
    return data;
}

static int open_terminal(void) {
    struct termios settings;
    terminal = posix_openpt(O_RDWR | O_NOCTTY);
    if (terminal < 0 || grantpt(terminal) != 0 || unlockpt(terminal) != 0) {
        return -1;
    }
    int other_end = open(ptsname(terminal), O_RDWR | O_NOCTTY); // stays open, so that tools may come and go
    if (other_end < 0 || tcgetattr(other_end, &settings) != 0) {
        return -1;
    }
    cfmakeraw(&settings);
    cfsetspeed(&settings, B115200);
    return tcsetattr(other_end, TCSANOW, &settings);
}

static uint32_t random_number(void) {
    uint32_t number = (uint32_t)getpid();
    FILE *file = fopen("/dev/urandom", "rb");
    if (file) {
        number ^= fread(&number, sizeof(number), 1, file) == 1 ? 0 : 1;
        fclose(file);
    }
    return number;
}

int main(int count, char **arguments) {
    link_host_t host = {.read = pty_read, .write = pty_write, .set_baud = pty_set_baud, .memory_size = MEMORY,
        .place_size = PLACE, .base_baud = BASE_BAUD, .rows_ahead = ROWS_AHEAD, .reset = LINK_RESET_POWER};
    host.boot = random_number();
    host.model = count == 2 ? read_file(arguments[1], &host.model_size) : NULL;
    host.store = malloc(2 * PLACE);
    size_t needed = 0;
    if (!host.model || !host.store || open_terminal() != 0) {
        fprintf(stderr, "usage: link_pty MODEL\n");
        return 1;
    }
    if (tess_needed(host.model, host.model_size, &needed) == 0 && needed > MEMORY) {
        host.memory_size = (uint32_t)needed;
    }
    for (size_t i = 0; i < 2 * PLACE; i++) {
        host.store[i] = 0xFF;
    }
    printf("%s\n", ptsname(terminal));
    fflush(stdout);
    return link_host_serve(&host) == LINK_CLOSED ? 0 : 1;
}
