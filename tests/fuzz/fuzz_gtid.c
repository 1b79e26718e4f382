/* GTID sets: two texts with '|' between. What parses prints as something that parses to an equal
 * set, and the laws of sets hold between the two. First byte: M for MySQL, anything else for
 * MariaDB. */
#include "engine/model/gtid.h"

#include "tests/fuzz/fuzz.h"

static void prints_back(const GtidSet *set)
{
    AUTO_BUF out, again_out;
    Err err = ERR_INIT;
    GtidSet *again;

    buf_init(&out, GTID_TEXT_MOST);
    buf_init(&again_out, GTID_TEXT_MOST);
    gtid_set_put(set, &out);
    again = gtid_set_parse(gtid_set_flavor(set), buf_span(&out), &err);
    FUZZ_CLAIM(again && gtid_set_equal(set, again));
    gtid_set_put(again, &again_out);
    FUZZ_CLAIM(span_equal(buf_span(&out), buf_span(&again_out)));
    FUZZ_CLAIM(gtid_set_count(set) == gtid_set_count(again));
    gtid_set_free(again);
}

static void obey_laws(const GtidSet *a, const GtidSet *b)
{
    GtidSet *both = gtid_set_copy(a), *other = gtid_set_copy(b), *rest = gtid_set_copy(a);
    GtidOrder order = gtid_set_compare(a, b);

    gtid_set_union(both, b);
    gtid_set_union(other, a);
    gtid_set_subtract(rest, b);
    prints_back(both);
    prints_back(rest);
    FUZZ_CLAIM(gtid_set_contains(both, a) && gtid_set_contains(both, b));
    FUZZ_CLAIM(gtid_set_equal(both, other));
    FUZZ_CLAIM(gtid_set_contains(a, rest));
    FUZZ_CLAIM(gtid_set_is_empty(rest) == (order == GTID_EQUAL || order == GTID_BEFORE));
    FUZZ_CLAIM(gtid_set_equal(both, a) == (order == GTID_EQUAL || order == GTID_AFTER));
    if (gtid_set_flavor(a) == GTID_MYSQL) {
        FUZZ_CLAIM(!gtid_set_overlaps(rest, b));
        gtid_set_union(rest, b);
        FUZZ_CLAIM(gtid_set_equal(rest, both));
    }
    gtid_set_free(both);
    gtid_set_free(other);
    gtid_set_free(rest);
}

static void try_one(GtidFlavor flavor, Span text, GtidSet *set)
{
    char out[GTID_TEXT];
    Gtid gtid, again;
    Err err = ERR_INIT;

    if (!gtid_parse(flavor, text, &gtid, &err))
        return;
    FUZZ_CLAIM(gtid_parse(flavor, span_str(gtid_text(&gtid, out)), &again, &err));
    FUZZ_CLAIM(memcmp(&gtid, &again, sizeof(gtid)) == 0);
    gtid_set_add(set, &gtid);
    FUZZ_CLAIM(gtid_set_has(set, &gtid));
    prints_back(set);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    GtidFlavor flavor = size && data[0] == 'M' ? GTID_MYSQL : GTID_MARIADB;
    uint8_t *block = fuzz_exact(size ? span_of(data + 1, size - 1) : SPAN_NONE);
    size_t len = size ? size - 1 : 0;
    const uint8_t *bar = len ? memchr(block, '|', len) : NULL;
    Span first = span_of(block, bar ? (size_t)(bar - block) : len);
    Span second = bar ? span_of(bar + 1, len - first.len - 1) : SPAN_NONE;
    Err err = ERR_INIT;
    GtidSet *a = gtid_set_parse(flavor, first, &err);
    GtidSet *b = gtid_set_parse(flavor, second, &err);

    if (a) {
        prints_back(a);
        try_one(flavor, second, a);
    }
    if (a && b)
        obey_laws(a, b);
    gtid_set_free(a);
    gtid_set_free(b);
    free(block);
    return 0;
}
