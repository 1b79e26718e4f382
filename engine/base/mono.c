#include "engine/base/mono.h"

#include <time.h>

static uint64_t read_us(clockid_t id)
{
    struct timespec now;

    clock_gettime(id, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

uint64_t mono_us(void)
{
    return read_us(CLOCK_MONOTONIC);
}

uint64_t wall_us(void)
{
    return read_us(CLOCK_REALTIME);
}

const char *wall_text(uint64_t us, char out[WALL_TEXT])
{
    time_t seconds = (time_t)(us / 1000000);
    struct tm parts;
    size_t len;

    gmtime_r(&seconds, &parts);
    len = strftime(out, WALL_TEXT, "%Y-%m-%dT%H:%M:%S", &parts);
    snprintf(out + len, WALL_TEXT - len, ".%03uZ", (unsigned)(us / 1000 % 1000));
    return out;
}
