/* The canonical request that is hashed and signed:
 *
 *   METHOD \n path, normalised, encoded once more \n query, decoded, encoded, sorted \n
 *   name:value \n … (lower case, sorted, blanks squeezed) \n signed;names \n sha256(body)
 *
 * The signing key is HMAC(HMAC(HMAC(HMAC("AWS4" secret, day), region), service), "aws4_request").
 */
#include "aws/sigv4.h"

#include <ctype.h>
#include <time.h>

#include "aws/hash.h"

#define MOST_CANONICAL MIB(4)

const char *sigv4_date(uint64_t when, char out[SIGV4_DATE])
{
    time_t seconds = (time_t)when;
    struct tm parts;

    gmtime_r(&seconds, &parts);
    strftime(out, SIGV4_DATE, "%Y%m%dT%H%M%SZ", &parts);
    return out;
}

static bool is_plain(uint8_t c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_' || c == '~';
}

void sigv4_encode(Buf *to, Span text, bool keep_slash)
{
    static const char digits[] = "0123456789ABCDEF";

    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.at[i];

        if (is_plain(c) || (keep_slash && c == '/')) {
            buf_put_u8(to, c);
        } else {
            buf_putc(to, '%');
            buf_putc(to, digits[c >> 4]);
            buf_putc(to, digits[c & 15]);
        }
    }
}

static int hex_value(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* A "%" that starts no valid escape stands for itself. */
static Span decode(Span text, Arena *arena)
{
    uint8_t *out = arena_alloc(arena, text.len + 1);
    size_t len = 0;

    for (size_t i = 0; i < text.len; i++) {
        int high = text.at[i] == '%' && text.len - i > 2 ? hex_value(text.at[i + 1]) : -1;
        int low = high >= 0 ? hex_value(text.at[i + 2]) : -1;

        if (low >= 0) {
            out[len++] = (uint8_t)(high * 16 + low);
            i += 2;
        } else {
            out[len++] = text.at[i];
        }
    }
    return span_of(out, len);
}

/* The next part up to `mark`; false at the end. `rest->at` NULL: no more. */
static bool next_part(Span *rest, char mark, Span *part)
{
    const uint8_t *stop;

    if (!rest->at)
        return false;
    stop = rest->len ? memchr(rest->at, mark, rest->len) : NULL;
    *part = span_of(rest->at, stop ? (size_t)(stop - rest->at) : rest->len);
    *rest = stop ? span_of(stop + 1, rest->len - part->len - 1) : SPAN_NONE;
    return true;
}

static size_t count_byte(Span text, char c)
{
    size_t count = 0;

    for (size_t i = 0; i < text.len; i++)
        count += text.at[i] == (uint8_t)c;
    return count;
}

void sigv4_canonical_path(Buf *to, Span path, bool keep_path, Arena *arena)
{
    Span *kept;
    size_t count = 0;
    Span rest = path;
    Span part;

    if (path.len == 0 || keep_path) {
        sigv4_encode(to, path.len ? path : SPAN_LIT("/"), true);
        return;
    }
    kept = arena_alloc(arena, (count_byte(path, '/') + 1) * sizeof(*kept));
    while (next_part(&rest, '/', &part)) {
        if (part.len == 0 || span_is(part, "."))
            continue;
        if (!span_is(part, ".."))
            kept[count++] = part;
        else if (count)
            count--;
    }
    for (size_t i = 0; i < count; i++) {
        buf_putc(to, '/');
        sigv4_encode(to, kept[i], true);
    }
    if (count == 0 || path.at[path.len - 1] == '/')
        buf_putc(to, '/');
}

typedef struct Pair {
    Span key;
    Span value;
    size_t order; /* of appearance: keeps the sort stable */
} Pair;

static int compare_pairs(const void *a, const void *b)
{
    const Pair *left = a;
    const Pair *right = b;
    int order = span_compare(left->key, right->key);

    return order ? order : span_compare(left->value, right->value);
}

static Span reencode(Span text, Arena *arena)
{
    AUTO_BUF buf;

    buf_init(&buf, MOST_CANONICAL);
    sigv4_encode(&buf, decode(text, arena), false);
    return arena_dup(arena, buf_span(&buf));
}

void sigv4_canonical_query(Buf *to, Span query, Arena *arena)
{
    Pair *pairs = arena_alloc(arena, (count_byte(query, '&') + 1) * sizeof(*pairs));
    size_t count = 0;
    Span rest = query;
    Span part;

    while (next_part(&rest, '&', &part)) {
        Span value = part;
        Span key;

        if (part.len == 0 || !next_part(&value, '=', &key))
            continue;
        pairs[count++] = (Pair){.key = reencode(key, arena),
                                .value = reencode(value.at ? value : span_str(""), arena)};
    }
    qsort(pairs, count, sizeof(*pairs), compare_pairs);
    for (size_t i = 0; i < count; i++) {
        if (i)
            buf_putc(to, '&');
        buf_put_span(to, pairs[i].key);
        buf_putc(to, '=');
        buf_put_span(to, pairs[i].value);
    }
}

/* Blanks and line ends around the value go, runs inside become one blank. */
static Span squeeze(const char *value, Arena *arena)
{
    char *out = arena_alloc(arena, strlen(value) + 1);
    size_t len = 0;

    for (; *value; value++) {
        bool blank = strchr(" \t\r\n\v\f", *value) != NULL;

        if (!blank)
            out[len++] = *value;
        else if (len && out[len - 1] != ' ')
            out[len++] = ' ';
    }
    if (len && out[len - 1] == ' ')
        len--;
    return span_of(out, len);
}

static Span lower(const char *name, Arena *arena)
{
    char *out = arena_strdup(arena, name);

    for (char *c = out; *c; c++)
        *c = (char)tolower((unsigned char)*c);
    return span_str(out);
}

static int compare_names(const void *a, const void *b)
{
    const Pair *left = a;
    const Pair *right = b;
    int order = span_compare(left->key, right->key);

    return order ? order : (left->order > right->order) - (left->order < right->order);
}

/* `lines`: "name:value\n" each; `names`: "a;b". Headers of one name are joined by commas in their
 * order. */
static void canonical_headers(const SigInput *in, Buf *lines, Buf *names, Arena *arena)
{
    Pair *pairs = arena_alloc(arena, (in->header_count + 1) * sizeof(*pairs));

    for (size_t i = 0; i < in->header_count; i++)
        pairs[i] = (Pair){.key = lower(in->headers[i].name, arena),
                          .value = squeeze(in->headers[i].value, arena),
                          .order = i};
    qsort(pairs, in->header_count, sizeof(*pairs), compare_names);
    for (size_t i = 0; i < in->header_count; i++) {
        bool repeated = i && span_equal(pairs[i].key, pairs[i - 1].key);

        if (repeated) {
            buf_putc(lines, ',');
        } else {
            if (i) {
                buf_putc(lines, '\n');
                buf_putc(names, ';');
            }
            buf_put_span(names, pairs[i].key);
            buf_put_span(lines, pairs[i].key);
            buf_putc(lines, ':');
        }
        buf_put_span(lines, pairs[i].value);
    }
    buf_putc(lines, '\n');
}

static bool sha256_hex(Span text, char out[HASH_HEX], Err *err)
{
    uint8_t hash[HASH_BYTES];

    if (!hash_sha256(text, hash))
        return err_fail(err, ERR_SYSTEM, "OpenSSL refuses SHA-256");
    hash_hex(hash, out);
    return true;
}

static bool sign_text(const SigInput *in, const AwsKeys *keys, const char *day, const char *to_sign,
                      char out[HASH_HEX], Err *err)
{
    const char *const steps[] = {in->region, in->service, "aws4_request", to_sign};
    uint8_t key[HASH_BYTES];
    AUTO_BUF secret;
    bool ok;

    buf_init(&secret, KIB(16));
    buf_puts(&secret, "AWS4");
    buf_puts(&secret, keys->secret);
    ok = !secret.overflowed && hash_hmac(buf_span(&secret), span_str(day), key);
    buf_wipe(&secret);
    for (size_t i = 0; ok && i < ARRAY_LEN(steps); i++)
        ok = hash_hmac(span_of(key, HASH_BYTES), span_str(steps[i]), key);
    if (ok)
        hash_hex(key, out);
    explicit_bzero(key, sizeof(key));
    return ok || err_fail(err, ERR_SYSTEM, "OpenSSL refuses HMAC-SHA-256");
}

/* What sign and presign share, once the query is complete. */
static bool sign_request(const SigInput *in, Span query, const AwsKeys *keys, Arena *arena,
                         SigOutput *out, Err *err)
{
    AUTO_BUF canonical;
    AUTO_BUF lines;
    AUTO_BUF names;
    char date[SIGV4_DATE];
    char hash[HASH_HEX];
    const char *day;

    buf_init(&canonical, MOST_CANONICAL);
    buf_init(&lines, MOST_CANONICAL);
    buf_init(&names, KIB(64));
    canonical_headers(in, &lines, &names, arena);
    buf_printf(&canonical, "%s\n", in->method);
    sigv4_canonical_path(&canonical, in->path, in->keep_path, arena);
    buf_putc(&canonical, '\n');
    sigv4_canonical_query(&canonical, query, arena);
    buf_putc(&canonical, '\n');
    buf_put_span(&canonical, buf_span(&lines));
    buf_putc(&canonical, '\n');
    buf_put_span(&canonical, buf_span(&names));
    buf_putc(&canonical, '\n');
    if (!sha256_hex(in->body, hash, err))
        return false;
    buf_puts(&canonical, hash);
    if (!buf_ok(&canonical, "a request to sign", err) ||
        !buf_ok(&lines, "the headers to sign", err) ||
        !buf_ok(&names, "the header names to sign", err))
        return false;
    out->canonical = arena_dup(arena, buf_span(&canonical));
    out->signed_headers = arena_str_of(arena, buf_span(&names));
    if (!sha256_hex(out->canonical, hash, err))
        return false;
    sigv4_date(in->when, date);
    day = arena_printf(arena, "%.8s", date);
    out->to_sign = arena_printf(arena, "AWS4-HMAC-SHA256\n%s\n%s/%s/%s/aws4_request\n%s", date, day,
                                in->region, in->service, hash);
    if (!sign_text(in, keys, day, out->to_sign, hash, err))
        return false;
    out->signature = arena_strdup(arena, hash);
    return true;
}

bool sigv4_sign(const SigInput *in, const AwsKeys *keys, Arena *arena, SigOutput *out, Err *err)
{
    char date[SIGV4_DATE];

    *out = (SigOutput){.to_sign = NULL};
    if (!sign_request(in, in->query, keys, arena, out, err))
        return err_context(err, "signing a request to %s", in->service);
    sigv4_date(in->when, date);
    out->authorization = arena_printf(
        arena,
        "AWS4-HMAC-SHA256 Credential=%s/%.8s/%s/%s/aws4_request, SignedHeaders=%s, Signature=%s",
        keys->id, date, in->region, in->service, out->signed_headers, out->signature);
    return true;
}

static void put_param(Buf *query, const char *name, const char *value)
{
    if (query->len)
        buf_putc(query, '&');
    buf_puts(query, name);
    buf_putc(query, '=');
    sigv4_encode(query, span_str(value), false);
}

bool sigv4_presign(const SigInput *in, const AwsKeys *keys, unsigned seconds, Arena *arena,
                   SigOutput *out, Err *err)
{
    char date[SIGV4_DATE];
    AUTO_BUF query;
    AUTO_BUF lines;
    AUTO_BUF names;

    *out = (SigOutput){.to_sign = NULL};
    buf_init(&query, MOST_CANONICAL);
    buf_init(&lines, MOST_CANONICAL);
    buf_init(&names, KIB(64));
    canonical_headers(in, &lines, &names, arena);
    sigv4_date(in->when, date);
    sigv4_canonical_query(&query, in->query,
                          arena); /* the same to the signature, and fit for a request line */
    put_param(&query, "X-Amz-Algorithm", "AWS4-HMAC-SHA256");
    put_param(
        &query, "X-Amz-Credential",
        arena_printf(arena, "%s/%.8s/%s/%s/aws4_request", keys->id, date, in->region, in->service));
    put_param(&query, "X-Amz-Date", date);
    put_param(&query, "X-Amz-Expires", arena_printf(arena, "%u", seconds));
    if (keys->token)
        put_param(&query, "X-Amz-Security-Token", keys->token);
    put_param(&query, "X-Amz-SignedHeaders", buf_str(&names));
    if (!buf_ok(&query, "a query to sign", err) ||
        !sign_request(in, buf_span(&query), keys, arena, out, err))
        return err_context(err, "presigning a request to %s", in->service);
    put_param(&query, "X-Amz-Signature", out->signature);
    out->query = arena_str_of(arena, buf_span(&query));
    return true;
}

static void wipe_text(char **text)
{
    if (*text) {
        explicit_bzero(*text, strlen(*text));
        free(*text);
    }
    *text = NULL;
}

void aws_keys_wipe(AwsKeys *keys)
{
    wipe_text(&keys->id);
    wipe_text(&keys->secret);
    wipe_text(&keys->token);
    keys->expires = 0;
}

AwsKeys aws_keys_dup(const AwsKeys *keys)
{
    return (AwsKeys){.id = keys->id ? strdup(keys->id) : NULL,
                     .secret = keys->secret ? strdup(keys->secret) : NULL,
                     .token = keys->token ? strdup(keys->token) : NULL,
                     .expires = keys->expires};
}
