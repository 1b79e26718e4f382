/* mono.h - time. Named mono because libc owns clock_*. */
#ifndef MONO_H
#define MONO_H

#include "engine/base/base.h"

uint64_t mono_us(void); /* monotonic, for durations and deadlines */
uint64_t wall_us(void); /* microseconds since 1970-01-01 UTC */

static inline uint64_t mono_ms(void)
{
    return mono_us() / 1000;
}

#define WALL_TEXT 32
/* RFC 3339 in UTC with milliseconds: 2026-11-24T12:17:51.042Z */
const char *wall_text(uint64_t us, char out[WALL_TEXT]);

#endif
