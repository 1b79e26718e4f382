/* kit.h - what the unit tests share: cmocka's includes, messages written as words, heap blocks of
 * exact size. */
#ifndef KIT_H
#define KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "engine/base/arena.h"
#include "engine/base/buf.h"

/* A copy without a byte behind it, so that ASan and valgrind see any overread. Free it. */
static inline uint8_t *kit_exact(Span bytes)
{
    uint8_t *copy = malloc(size_max(bytes.len, 1));

    assert_non_null(copy);
    if (bytes.len)
        memcpy(copy, bytes.at, bytes.len);
    if (bytes.len == 0) { /* malloc(0) may be NULL; one byte would hide an overread */
        free(copy);
        copy = malloc(0);
    }
    return copy;
}

static inline void kit_put_word(Buf *out, const char *word, size_t len)
{
    const char *rest = word + 2;
    size_t rest_len = len - 2;

    if (len == 1) {
        buf_putc(out, word[0]);
        return;
    }
    assert_int_equal(word[1], ':');
    switch (word[0]) {
    case 'b':
        buf_put_u8(out, (uint8_t)strtoul(rest, NULL, 0));
        break;
    case 'w':
        buf_put_u16be(out, (uint16_t)strtoul(rest, NULL, 0));
        break;
    case 'd':
        buf_put_u32be(out, (uint32_t)strtoul(rest, NULL, 0));
        break;
    case 'q':
        buf_put_u64be(out, strtoull(rest, NULL, 0));
        break;
    case 's':
        buf_put(out, rest, rest_len);
        buf_putc(out, '\0');
        break;
    case 'r':
        buf_put_u32be(out, (uint32_t)rest_len);
        buf_put(out, rest, rest_len);
        break;
    default:
        fail_msg("word %.*s", (int)len, word);
    }
}

/* One message in words: "B q:0x10 q:5 d:7". A single character is itself; b: w: d: q: are integers
 * of 1, 2, 4, 8 bytes; s: text and a NUL; r: text behind its 32-bit length. Up to ';' or the end;
 * returns where the next starts. */
static inline const char *kit_put_words(Buf *out, const char *words)
{
    for (;;) {
        size_t len;

        words += strspn(words, " ");
        if (*words == '\0' || *words == ';')
            break;
        len = strcspn(words, " ;");
        kit_put_word(out, words, len);
        words += len;
    }
    return *words == ';' ? words + 1 : words;
}

#endif
