// A stopwatch in executed instructions, on a chip in cycles. What happens between pause and resume is not counted, nor the stopwatch itself.
#ifndef METER_H
#define METER_H

#include <stdint.h>

typedef struct {
    uint64_t started;      // ticks
    uint64_t instructions; // total of the finished stretches
    uint32_t overhead;     // what one stretch costs by being measured
} meter_t;

// Set to zero, and find out the overhead.
void meter_init(meter_t *meter);
// To zero, before a measurement of at most 2^40 ticks.
void meter_reset(meter_t *meter);
void meter_resume(meter_t *meter);
void meter_pause(meter_t *meter);

#endif
