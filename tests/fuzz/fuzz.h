/* fuzz.h - what every fuzzer here needs: the entry, and claims that stop it. */
#ifndef FUZZ_H
#define FUZZ_H

#include "engine/base/span.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Holds in every build: a fuzzer's assert must not depend on NDEBUG. */
#define FUZZ_CLAIM(claim)                                                             \
    do {                                                                              \
        if (!(claim)) {                                                               \
            fprintf(stderr, "%s:%d: doesn't hold: %s\n", __FILE__, __LINE__, #claim); \
            abort();                                                                  \
        }                                                                             \
    } while (0)

/* A heap block of exactly this size. Free it. */
static inline uint8_t *fuzz_exact(Span bytes)
{
    uint8_t *copy = malloc(bytes.len);

    if (bytes.len) {
        FUZZ_CLAIM(copy != NULL);
        memcpy(copy, bytes.at, bytes.len);
    }
    return copy;
}

#endif
