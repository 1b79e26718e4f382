#include "engine/move/refused.h"

#define KINDS_MOST 64
#define SHOWN_MOST 8
#define TIME_LEN   19

typedef struct Kind {
    char who[160];
    uint64_t count;
} Kind;

/* "2026-11-24 14:02:36 UTC:10.0.0.1(5432):app@shop:[77]:FATAL: …": host without its port, then
 * user@database. */
static bool who_of(Span line, char out[160])
{
    const uint8_t *end = line.at + line.len;
    const uint8_t *host = memchr(line.at + TIME_LEN, ':', line.len - TIME_LEN);
    const uint8_t *paren = host ? memchr(host, '(', (size_t)(end - host)) : NULL;
    const uint8_t *user = paren ? memchr(paren, ':', (size_t)(end - paren)) : NULL;
    const uint8_t *stop = user ? memmem(user, (size_t)(end - user), ":[", 2) : NULL;

    if (!stop)
        return false;
    snprintf(out, 160, "%.*s from %.*s", (int)(stop - user - 1), (const char *)user + 1,
             (int)(paren - host - 1), (const char *)host + 1);
    return true;
}

static void add(Kind *kinds, size_t *used, const char *who)
{
    for (size_t i = 0; i < *used; i++)
        if (strcmp(kinds[i].who, who) == 0) {
            kinds[i].count++;
            return;
        }
    if (*used < KINDS_MOST) {
        snprintf(kinds[*used].who, sizeof(kinds[*used].who), "%s", who);
        kinds[(*used)++].count = 1;
    }
}

static int by_count(const void *a, const void *b)
{
    uint64_t x = ((const Kind *)a)->count;
    uint64_t y = ((const Kind *)b)->count;

    return (y > x) - (y < x);
}

static void look_at(Span line, const char *since, uint64_t *count, Kind *kinds, size_t *used)
{
    static const char phrase[] = "is not currently accepting connections";
    char who[160];

    if (line.len < TIME_LEN + sizeof(phrase) || memcmp(line.at, since, TIME_LEN) < 0 ||
        !memmem(line.at, line.len, phrase, strlen(phrase)))
        return;
    *count += 1;
    if (who_of(line, who))
        add(kinds, used, who);
}

void refused_of_log(Span text, const char *since, uint64_t *count, Buf *who)
{
    Kind *kinds = calloc(KINDS_MOST, sizeof(*kinds));
    size_t used = 0;

    if (!kinds)
        abort();
    *count = 0;
    while (text.len) {
        const uint8_t *newline = memchr(text.at, '\n', text.len);
        size_t len = newline ? (size_t)(newline - text.at) : text.len;

        look_at(span_of(text.at, len), since, count, kinds, &used);
        text = newline ? span_of(newline + 1, text.len - len - 1) : SPAN_NONE;
    }
    qsort(kinds, used, sizeof(*kinds), by_count);
    for (size_t i = 0; i < used && i < SHOWN_MOST; i++)
        buf_printf(who, "%s%" PRIu64 " x %s", i ? "; " : "", kinds[i].count, kinds[i].who);
    free(kinds);
}
