/* The canonical forms of any path, query and header: made once they are stable, and nothing that
 * must be escaped is left plain. */
#include "aws/http.h"
#include "aws/sigv4.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_alphabet(const Buf *text, const char *more)
{
    for (size_t i = 0; i < text->len; i++) {
        uint8_t c = text->at[i];
        bool plain = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                     strchr("-._~%", c);

        if (c == 0 || (!plain && !strchr(more, c)))
            abort();
    }
}

static void check_query(Span query, Arena *arena)
{
    Buf once;
    Buf twice;

    buf_init(&once, MIB(4));
    buf_init(&twice, MIB(4));
    sigv4_canonical_query(&once, query, arena);
    sigv4_canonical_query(&twice, buf_span(&once), arena);
    if (!span_equal(buf_span(&once), buf_span(&twice)))
        abort();
    check_alphabet(&once, "=&");
    buf_fini(&once);
    buf_fini(&twice);
}

static void check_path(Span path, bool keep, Arena *arena)
{
    Buf out;

    buf_init(&out, MIB(4));
    sigv4_canonical_path(&out, path, keep, arena);
    check_alphabet(&out, "/");
    if (!keep && (out.len == 0 || out.at[0] != '/' || strstr(buf_str(&out), "//") ||
                  strstr(buf_str(&out), "/../") || strstr(buf_str(&out), "/./")))
        abort();
    buf_fini(&out);
}

static void check_whole(Span path, Span query, const char *header, Arena *arena)
{
    char id[] = "AKID";
    char secret[] = "secret";
    char token[] = "token/+=";
    AwsKeys keys = {.id = id, .secret = secret, .token = token};
    HttpHeader headers[] = {{"Host", "example.com"}, {"X-Odd", header}, {"x-odd", "again"}};
    SigInput in = {.method = "GET",
                   .path = path,
                   .query = query,
                   .headers = headers,
                   .header_count = ARRAY_LEN(headers),
                   .region = "eu-west-1",
                   .service = "rds",
                   .when = 1440938160};
    Err err = ERR_INIT;
    SigOutput out;

    if (!sigv4_sign(&in, &keys, arena, &out, &err) || strlen(out.signature) != 64)
        abort();
    if (!sigv4_presign(&in, &keys, 900, arena, &out, &err) ||
        !strstr(out.query, "X-Amz-Signature="))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Span whole = span_of(data, size_min(size, 65536));
    const uint8_t *first = whole.len ? memchr(whole.at, '\n', whole.len) : NULL;
    Span path = first ? span_of(whole.at, (size_t)(first - whole.at)) : whole;
    Span rest = first ? span_of(first + 1, whole.len - path.len - 1) : span_str("");
    HttpUrl url;
    Arena arena;
    char *text;

    arena_init(&arena, 4096);
    text = arena_str_of(&arena, rest);
    check_query(rest, &arena);
    check_path(path, false, &arena);
    check_path(path, true, &arena);
    check_whole(path, rest, text, &arena);
    if (http_url(text, &arena, &url) && (!url.host || !*url.host || url.path[0] != '/'))
        abort();
    arena_fini(&arena);
    return 0;
}
