#include "engine/base/buf.h"

void buf_init(Buf *buf, size_t most)
{
    *buf = (Buf){.most = most};
}

void buf_fini(Buf *buf)
{
    free(buf->at);
    buf_init(buf, buf->most);
}

void buf_wipe(Buf *buf)
{
    if (buf->at)
        explicit_bzero(buf->at, buf->room);
    buf_fini(buf);
}

static void buf_enlarge(Buf *buf, size_t least)
{
    size_t room = size_max(buf->room * 2, size_max(least, 256));
    uint8_t *at;

    room = size_min(room, buf->most + 1); /* + 1: buf_str's NUL needs no room of its own */
    at = malloc(room);
    if (!at) {
        fprintf(stderr, "keybridge: out of memory for a buffer of %zu bytes\n", room);
        abort();
    }
    if (buf->len)
        memcpy(at, buf->at, buf->len);
    if (buf->at)
        explicit_bzero(buf->at, buf->len); /* realloc would leave a secret's old copy behind */
    free(buf->at);
    buf->at = at;
    buf->room = room;
}

uint8_t *buf_reserve(Buf *buf, size_t len)
{
    if (buf->overflowed || len > buf->most - buf->len) {
        buf->overflowed = true;
        return NULL;
    }
    if (buf->room - buf->len < len + 1)
        buf_enlarge(buf, buf->len + len + 1);
    return buf->at + buf->len;
}

void buf_put(Buf *buf, const void *at, size_t len)
{
    uint8_t *to = buf_reserve(buf, len);

    if (to && len) {
        memcpy(to, at, len);
        buf->len += len;
    }
}

void buf_put_u8(Buf *buf, uint8_t value)
{
    buf_put(buf, &value, 1);
}

void buf_put_u16be(Buf *buf, uint16_t value)
{
    value = __builtin_bswap16(value);
    buf_put(buf, &value, sizeof(value));
}

void buf_put_u32be(Buf *buf, uint32_t value)
{
    value = __builtin_bswap32(value);
    buf_put(buf, &value, sizeof(value));
}

void buf_put_u64be(Buf *buf, uint64_t value)
{
    value = __builtin_bswap64(value);
    buf_put(buf, &value, sizeof(value));
}

void buf_put_u16le(Buf *buf, uint16_t value)
{
    buf_put(buf, &value, sizeof(value));
}

void buf_put_u32le(Buf *buf, uint32_t value)
{
    buf_put(buf, &value, sizeof(value));
}

void buf_put_u64le(Buf *buf, uint64_t value)
{
    buf_put(buf, &value, sizeof(value));
}

void buf_puts(Buf *buf, const char *text)
{
    buf_put(buf, text, strlen(text));
}

void buf_putc(Buf *buf, char c)
{
    buf_put(buf, &c, 1);
}

void buf_printf(Buf *buf, const char *fmt, ...)
{
    va_list args;
    int len;
    uint8_t *to;

    va_start(args, fmt);
    len = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    to = len < 0 ? NULL : buf_reserve(buf, (size_t)len);
    if (!to)
        return;
    va_start(args, fmt);
    vsnprintf((char *)to, (size_t)len + 1, fmt, args); /* reserve keeps one byte for the NUL */
    va_end(args);
    buf->len += (size_t)len;
}

/* Length of the UTF-8 sequence at `at`, 0 when it isn't one (RFC 3629 section 4). */
static size_t utf8_len(const uint8_t *at, size_t left)
{
    static const struct {
        uint8_t first_from, first_to, second_from, second_to, len;
    } forms[] = {{0xC2, 0xDF, 0x80, 0xBF, 2}, {0xE0, 0xE0, 0xA0, 0xBF, 3},
                 {0xE1, 0xEC, 0x80, 0xBF, 3}, {0xED, 0xED, 0x80, 0x9F, 3},
                 {0xEE, 0xEF, 0x80, 0xBF, 3}, {0xF0, 0xF0, 0x90, 0xBF, 4},
                 {0xF1, 0xF3, 0x80, 0xBF, 4}, {0xF4, 0xF4, 0x80, 0x8F, 4}};

    if (at[0] < 0x80)
        return 1;
    for (size_t i = 0; i < ARRAY_LEN(forms); i++) {
        if (at[0] < forms[i].first_from || at[0] > forms[i].first_to || left < forms[i].len)
            continue;
        if (at[1] < forms[i].second_from || at[1] > forms[i].second_to)
            return 0;
        for (size_t k = 2; k < forms[i].len; k++)
            if ((at[k] & 0xC0) != 0x80)
                return 0;
        return forms[i].len;
    }
    return 0;
}

static void put_json_char(Buf *buf, uint8_t c)
{
    static const char named[] = "\"\"\\\\\bb\ff\nn\rr\tt";

    for (size_t i = 0; i < sizeof(named) - 1; i += 2)
        if (c == (uint8_t)named[i]) {
            buf_putc(buf, '\\');
            buf_putc(buf, named[i + 1]);
            return;
        }
    if (c < 0x20 || c == 0x7F)
        buf_printf(buf, "\\u%04x", c);
    else
        buf_put_u8(buf, c);
}

void buf_put_json(Buf *buf, Span text)
{
    buf_putc(buf, '"');
    for (size_t i = 0; i < text.len;) {
        size_t len = utf8_len(text.at + i, text.len - i);

        if (len == 1)
            put_json_char(buf, text.at[i]);
        else if (len == 0)
            buf_puts(buf, "\xEF\xBF\xBD");
        else
            buf_put(buf, text.at + i, len);
        i += size_max(len, 1);
    }
    buf_putc(buf, '"');
}

void buf_put_member(Buf *buf, const char *name, const char *text)
{
    buf_put_json(buf, span_str(name));
    buf_putc(buf, ':');
    if (text)
        buf_put_json(buf, span_str(text));
    else
        buf_puts(buf, "null");
}

bool buf_ok(const Buf *buf, const char *what, Err *err)
{
    return !buf->overflowed ||
           err_fail(err, ERR_STATE, "%s is larger than %zu bytes", what, buf->most);
}

const char *buf_str(Buf *buf)
{
    if (!buf->at)
        return "";
    buf->at[buf->len] = '\0';
    return (const char *)buf->at;
}
