/* buf.h - bytes that grow up to a maximum given at the start.
 *
 * Overflow is sticky: write in straight lines and ask once with buf_ok. A Buf belongs to one
 * thread.
 */
#ifndef BUF_H
#define BUF_H

#include "engine/base/err.h"
#include "engine/base/span.h"

typedef struct Buf {
    uint8_t *at;
    size_t len;
    size_t room;
    size_t most;
    bool overflowed;
} Buf;

void buf_init(Buf *buf, size_t most); /* allocates nothing yet */
void buf_fini(Buf *buf);              /* also wipes nothing: see buf_wipe */
void buf_wipe(Buf *buf);              /* overwrite and free: for what held a secret */
#define AUTO_BUF ON_EXIT(buf_fini) Buf

static inline void buf_clear(Buf *buf)
{
    buf->len = 0;
    buf->overflowed = false;
}

/* Room for `len` more bytes, written by the caller, who then adds to len; NULL once overflowed. */
MUST_USE uint8_t *buf_reserve(Buf *buf, size_t len);

void buf_put(Buf *buf, const void *at, size_t len);
void buf_put_u8(Buf *buf, uint8_t value);
void buf_put_u16be(Buf *buf, uint16_t value);
void buf_put_u32be(Buf *buf, uint32_t value);
void buf_put_u64be(Buf *buf, uint64_t value);
void buf_put_u16le(Buf *buf, uint16_t value);
void buf_put_u32le(Buf *buf, uint32_t value);
void buf_put_u64le(Buf *buf, uint64_t value);
void buf_puts(Buf *buf, const char *text);
void buf_putc(Buf *buf, char c);
void buf_printf(Buf *buf, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* As a JSON string with its quotes; bytes that aren't UTF-8 come out as U+FFFD. */
void buf_put_json(Buf *buf, Span text);
void buf_put_member(Buf *buf, const char *name, const char *text); /* "name":"text", or null */

static inline void buf_put_span(Buf *buf, Span span)
{
    buf_put(buf, span.at, span.len);
}

static inline Span buf_span(const Buf *buf)
{
    return span_of(buf->at ? buf->at : (const uint8_t *)"", buf->len);
}

MUST_USE bool buf_ok(const Buf *buf, const char *what, Err *err);
/* NUL-terminated view, valid until the next write. */
const char *buf_str(Buf *buf);

#endif
