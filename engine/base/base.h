/* base.h - what every file of keybridge may use without asking: standard types and a few macros.
 *
 * Calls that hide overruns or share state (strcpy, sprintf, strtok, gmtime, atoi, …) are refused by
 * `make lint`.
 */
#ifndef BASE_H
#define BASE_H

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MUST_USE               __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#define ON_EXIT(fn)            __attribute__((cleanup(fn)))
#define LIKELY(x)              __builtin_expect(!!(x), 1)
#define UNLIKELY(x)            __builtin_expect(!!(x), 0)
#define ARRAY_LEN(a)           (sizeof(a) / sizeof((a)[0]))

#define KIB(n) ((uint64_t)(n) << 10)
#define MIB(n) ((uint64_t)(n) << 20)

static inline size_t size_min(size_t a, size_t b)
{
    return a < b ? a : b;
}

static inline size_t size_max(size_t a, size_t b)
{
    return a > b ? a : b;
}

#endif
