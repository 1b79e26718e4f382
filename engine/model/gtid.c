#include "engine/model/gtid.h"

/* The numbers from `from` up to but not including `to`. */
typedef struct Range {
    uint64_t from;
    uint64_t to;
} Range;

/* MySQL: one server's transactions, or those of one tag of it. Ranges are sorted, apart by a gap,
 * never empty. */
typedef struct Source {
    uint8_t uuid[16];
    char tag[GTID_TAG_MOST + 1];
    Range *ranges;
    size_t count;
    size_t room;
} Source;

/* MariaDB: the last transaction of a domain. */
typedef struct Domain {
    uint32_t domain;
    uint32_t server;
    uint64_t number;
} Domain;

struct GtidSet {
    GtidFlavor flavor;
    Source *sources; /* sorted by uuid, then tag; none is empty */
    size_t source_count;
    size_t source_room;
    Domain *domains; /* sorted */
    size_t domain_count;
    size_t domain_room;
};

/* Arrays */

/* Room for one more of `size` bytes. */
static void *grow(void *items, size_t count, size_t *room, size_t size)
{
    if (count < *room)
        return items;
    *room = size_max(4, *room * 2);
    items = reallocarray(items, *room, size);
    if (!items) {
        fprintf(stderr, "keybridge: out of memory for %zu GTID ranges\n", *room);
        abort();
    }
    return items;
}

static void range_append(Source *source, Range range)
{
    source->ranges = grow(source->ranges, source->count, &source->room, sizeof(Range));
    source->ranges[source->count++] = range;
}

static Source *source_append(GtidSet *set, const uint8_t uuid[16], const char *tag)
{
    Source *source;

    set->sources = grow(set->sources, set->source_count, &set->source_room, sizeof(Source));
    source = &set->sources[set->source_count++];
    *source = (Source){0};
    memcpy(source->uuid, uuid, sizeof(source->uuid));
    snprintf(source->tag, sizeof(source->tag), "%s", tag);
    return source;
}

static int source_order(const uint8_t uuid[16], const char *tag, const Source *b)
{
    int order = memcmp(uuid, b->uuid, sizeof(b->uuid));

    return order ? order : strcmp(tag, b->tag);
}

static int by_source(const void *a, const void *b)
{
    const Source *x = a;

    return source_order(x->uuid, x->tag, b);
}

static int by_from(const void *a, const void *b)
{
    const Range *x = a, *y = b;

    return (x->from > y->from) - (x->from < y->from);
}

static int by_domain(const void *a, const void *b)
{
    const Domain *x = a, *y = b;

    return (x->domain > y->domain) - (x->domain < y->domain);
}

static void source_drop(Source *source)
{
    free(source->ranges);
    source->ranges = NULL;
}

/* Sorts and joins what was appended in any order. */
static void source_tidy(Source *source)
{
    size_t kept = 0;

    qsort(source->ranges, source->count, sizeof(Range), by_from);
    for (size_t i = 0; i < source->count; i++) {
        Range range = source->ranges[i];

        if (kept && range.from <= source->ranges[kept - 1].to)
            source->ranges[kept - 1].to =
                range.to > source->ranges[kept - 1].to ? range.to : source->ranges[kept - 1].to;
        else
            source->ranges[kept++] = range;
    }
    source->count = kept;
}

/* The same over the sources: those of one name become one. */
static void set_tidy(GtidSet *set)
{
    size_t kept = 0;

    if (set->source_count == 0)
        return;
    qsort(set->sources, set->source_count, sizeof(Source), by_source);
    for (size_t i = 0; i < set->source_count; i++) {
        Source *source = &set->sources[i];

        if (kept && by_source(source, &set->sources[kept - 1]) == 0) {
            for (size_t k = 0; k < source->count; k++)
                range_append(&set->sources[kept - 1], source->ranges[k]);
            source_drop(source);
        } else {
            set->sources[kept++] = *source;
        }
    }
    set->source_count = kept;
    for (size_t i = 0; i < kept; i++)
        source_tidy(&set->sources[i]);
}

/* Where it is, or belongs: the first that isn't less. */
static size_t source_place(const GtidSet *set, const uint8_t uuid[16], const char *tag)
{
    size_t low = 0, high = set->source_count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (source_order(uuid, tag, &set->sources[middle]) > 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static const Source *source_find(const GtidSet *set, const uint8_t uuid[16], const char *tag)
{
    size_t at = source_place(set, uuid, tag);

    return at < set->source_count && source_order(uuid, tag, &set->sources[at]) == 0
               ? &set->sources[at]
               : NULL;
}

/* The first range that ends behind the number. */
static size_t range_place(const Source *source, uint64_t number)
{
    size_t low = 0, high = source->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (source->ranges[middle].to <= number)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static const Domain *domain_find(const GtidSet *set, uint32_t domain)
{
    const Domain key = {.domain = domain};

    return set->domain_count
               ? bsearch(&key, set->domains, set->domain_count, sizeof(Domain), by_domain)
               : NULL;
}

/* Text */

typedef struct Text {
    Span whole;
    size_t at;
    const char *why; /* not NULL: it can't be right, at `at` */
} Text;

static Text text_of(Span whole)
{
    return (Text){.whole = whole.at ? whole : span_of("", 0)};
}

static bool text_fail(Text *text, const char *why)
{
    if (!text->why)
        text->why = why;
    return false;
}

static uint8_t text_peek(const Text *text)
{
    return text->at < text->whole.len ? text->whole.at[text->at] : 0;
}

static bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static void skip_blanks(Text *text)
{
    while (is_blank(text_peek(text)))
        text->at++;
}

static bool take(Text *text, char c)
{
    skip_blanks(text);
    if (text_peek(text) != (uint8_t)c)
        return false;
    text->at++;
    skip_blanks(text);
    return true;
}

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static bool take_number(Text *text, uint64_t least, uint64_t most, uint64_t *number)
{
    uint64_t value = 0;
    size_t start = text->at;

    for (; is_digit(text_peek(text)); text->at++)
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(text_peek(text) - '0'), &value))
            return text_fail(text, "a number is too large");
    if (text->at == start)
        return text_fail(text, "a number is missing");
    if (value < least || value > most)
        return text_fail(text, "a number is out of range");
    *number = value;
    return true;
}

static int hex_digit(uint8_t c)
{
    if (is_digit(c))
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* 32 hex digits, with dashes in the usual places or without any. */
static bool take_uuid(Text *text, uint8_t uuid[16])
{
    bool dashes = text->at + 8 < text->whole.len && text->whole.at[text->at + 8] == '-';

    for (size_t i = 0; i < 32; i++) {
        int digit;

        if (dashes && (i == 8 || i == 12 || i == 16 || i == 20)) {
            if (text_peek(text) != '-')
                return text_fail(text, "a server UUID is 8-4-4-4-12 hex digits");
            text->at++;
        }
        digit = hex_digit(text_peek(text));
        if (digit < 0)
            return text_fail(text, "a server UUID is 8-4-4-4-12 hex digits");
        uuid[i / 2] = (uint8_t)(uuid[i / 2] << 4 | digit);
        text->at++;
    }
    return true;
}

static bool starts_tag(uint8_t c)
{
    return c == '_' || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
}

static bool take_tag(Text *text, char tag[GTID_TAG_MOST + 1])
{
    size_t len = 0;

    for (; starts_tag(text_peek(text)) || is_digit(text_peek(text)); text->at++) {
        uint8_t c = text_peek(text);

        if (len == GTID_TAG_MOST)
            return text_fail(text, "a tag has 32 characters at most");
        tag[len++] = (char)(c >= 'A' && c <= 'Z' ? c | 0x20 : c);
    }
    tag[len] = '\0';
    return true;
}

static bool take_range(Text *text, Range *range)
{
    if (!take_number(text, 1, GTID_GNO_MOST, &range->from))
        return false;
    range->to = range->from;
    if (take(text, '-') && !take_number(text, 1, GTID_GNO_MOST, &range->to))
        return false;
    if (range->to < range->from)
        return text_fail(text, "a range ends before it begins");
    range->to++;
    return true;
}

/* uuid:1-5:7:tag:1-3, ranges behind a tag being the tag's. */
static bool take_sources(Text *text, GtidSet *set)
{
    uint8_t uuid[16];
    char tag[GTID_TAG_MOST + 1] = "";
    Source *source = NULL;
    Range range;

    if (!take_uuid(text, uuid))
        return false;
    skip_blanks(text);
    if (text_peek(text) != ':')
        return text_fail(text, "a colon is missing");
    while (take(text, ':')) {
        if (starts_tag(text_peek(text))) {
            if (!take_tag(text, tag))
                return false;
            if (!take(text, ':'))
                return text_fail(text, "a tag has no range");
            source = NULL;
        }
        if (!take_range(text, &range))
            return false;
        if (!source)
            source = source_append(set, uuid, tag);
        range_append(source, range);
    }
    return true;
}

static bool take_domain(Text *text, Domain *domain)
{
    uint64_t number = 0, server = 0;

    if (!take_number(text, 0, UINT32_MAX, &number))
        return false;
    domain->domain = (uint32_t)number;
    if (text_peek(text) != '-')
        return text_fail(text, "a dash is missing");
    text->at++;
    if (!take_number(text, 0, UINT32_MAX, &server))
        return false;
    domain->server = (uint32_t)server;
    if (text_peek(text) != '-')
        return text_fail(text, "a dash is missing");
    text->at++;
    return take_number(text, 0, UINT64_MAX, &domain->number);
}

static bool take_domains(Text *text, GtidSet *set)
{
    Domain domain;

    if (!take_domain(text, &domain))
        return false;
    set->domains = grow(set->domains, set->domain_count, &set->domain_room, sizeof(Domain));
    set->domains[set->domain_count++] = domain;
    return true;
}

static bool take_set(Text *text, GtidSet *set)
{
    skip_blanks(text);
    while (text->at < text->whole.len) {
        if (!(set->flavor == GTID_MYSQL ? take_sources(text, set) : take_domains(text, set)))
            return false;
        skip_blanks(text);
        if (text->at == text->whole.len)
            break;
        if (!take(text, ','))
            return text_fail(text, "a comma is missing");
    }
    return true;
}

static bool fail_text(const Text *text, GtidFlavor flavor, const char *what, Err *err)
{
    size_t from = text->at > 20 ? text->at - 20 : 0;
    Span near = span_of(text->whole.at + from, size_min(text->whole.len - from, 40));

    err_fail(err, ERR_USAGE, "not a %s at byte %zu: %s, near \"%.*s\"", what, text->at, text->why,
             SPAN_FMT(near));
    return flavor == GTID_MYSQL
               ? err_hint(
                     err,
                     "a GTID set looks like 3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5:7, as printed by "
                     "select @@gtid_executed")
               : err_hint(
                     err,
                     "a GTID position looks like 0-1-270,1-1-3, as printed by select @@gtid_binlog_pos");
}

static const char *set_name(GtidFlavor flavor)
{
    return flavor == GTID_MYSQL ? "GTID set" : "GTID position";
}

/* Sorted; two of one domain have no meaning as a position. */
static bool domains_tidy(GtidSet *set, Err *err)
{
    if (set->domain_count == 0)
        return true;
    qsort(set->domains, set->domain_count, sizeof(Domain), by_domain);
    for (size_t i = 1; i < set->domain_count; i++)
        if (set->domains[i].domain == set->domains[i - 1].domain) {
            err_fail(err, ERR_USAGE, "not a GTID position: domain %u is there twice",
                     set->domains[i].domain);
            return err_hint(
                err, "gtid_binlog_state has one entry per domain and server; a position is what "
                     "gtid_binlog_pos prints");
        }
    return true;
}

GtidSet *gtid_set_parse(GtidFlavor flavor, Span whole, Err *err)
{
    Text text = text_of(whole);
    GtidSet *set;

    if (whole.len > GTID_TEXT_MOST) {
        err_fail(err, ERR_USAGE, "a %s of %zu bytes: %" PRIu64 " are the most", set_name(flavor),
                 whole.len, GTID_TEXT_MOST);
        return NULL;
    }
    set = gtid_set_new(flavor);
    if (take_set(&text, set)) {
        set_tidy(set);
        if (domains_tidy(set, err))
            return set;
    } else {
        (void)fail_text(&text, flavor, set_name(flavor), err);
    }
    gtid_set_free(set);
    return NULL;
}

static bool take_gtid(Text *text, Gtid *gtid)
{
    Domain domain = {0};

    if (gtid->flavor == GTID_MARIADB) {
        if (!take_domain(text, &domain))
            return false;
        gtid->domain = domain.domain;
        gtid->server = domain.server;
        gtid->number = domain.number;
        return true;
    }
    if (!take_uuid(text, gtid->uuid))
        return false;
    if (!take(text, ':'))
        return text_fail(text, "a colon is missing");
    if (starts_tag(text_peek(text)) && !(take_tag(text, gtid->tag) && take(text, ':')))
        return text_fail(text, "a tag has no number");
    return take_number(text, 1, GTID_GNO_MOST, &gtid->number);
}

bool gtid_parse(GtidFlavor flavor, Span whole, Gtid *gtid, Err *err)
{
    Text text = text_of(whole);

    *gtid = (Gtid){.flavor = flavor};
    if (!take_gtid(&text, gtid) ||
        (text.at != whole.len && !text_fail(&text, "more than one transaction")))
        return fail_text(&text, flavor, "GTID", err);
    return true;
}

/* 36 characters and a NUL. */
static const char *uuid_text(const uint8_t uuid[16], char out[37])
{
    char *to = out;

    for (size_t i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *to++ = '-';
        *to++ = "0123456789abcdef"[uuid[i] >> 4];
        *to++ = "0123456789abcdef"[uuid[i] & 15];
    }
    *to = '\0';
    return out;
}

const char *gtid_text(const Gtid *gtid, char out[GTID_TEXT])
{
    char uuid[37];

    if (gtid->flavor == GTID_MARIADB)
        snprintf(out, GTID_TEXT, "%u-%u-%" PRIu64, gtid->domain, gtid->server, gtid->number);
    else
        snprintf(out, GTID_TEXT, "%s:%s%s%" PRIu64, uuid_text(gtid->uuid, uuid), gtid->tag,
                 gtid->tag[0] ? ":" : "", gtid->number);
    return out;
}

static void put_source(const Source *source, bool same_uuid, Buf *out)
{
    char uuid[37];

    if (!same_uuid)
        buf_puts(out, uuid_text(source->uuid, uuid));
    if (source->tag[0])
        buf_printf(out, ":%s", source->tag);
    for (size_t i = 0; i < source->count; i++) {
        Range range = source->ranges[i];

        buf_printf(out, ":%" PRIu64, range.from);
        if (range.to - range.from > 1)
            buf_printf(out, "-%" PRIu64, range.to - 1);
    }
}

void gtid_set_put(const GtidSet *set, Buf *out)
{
    for (size_t i = 0; i < set->source_count; i++) {
        bool same = i && memcmp(set->sources[i].uuid, set->sources[i - 1].uuid, 16) == 0;

        if (i && !same)
            buf_putc(out, ',');
        put_source(&set->sources[i], same, out);
    }
    for (size_t i = 0; i < set->domain_count; i++)
        buf_printf(out, "%s%u-%u-%" PRIu64, i ? "," : "", set->domains[i].domain,
                   set->domains[i].server, set->domains[i].number);
}

/* Life */

GtidSet *gtid_set_new(GtidFlavor flavor)
{
    GtidSet *set = calloc(1, sizeof(*set));

    if (!set)
        abort();
    set->flavor = flavor;
    return set;
}

static void set_clear(GtidSet *set)
{
    for (size_t i = 0; i < set->source_count; i++)
        source_drop(&set->sources[i]);
    set->source_count = set->domain_count = 0;
}

void gtid_set_free(GtidSet *set)
{
    if (!set)
        return;
    set_clear(set);
    free(set->sources);
    free(set->domains);
    free(set);
}

static void append_all(GtidSet *set, const GtidSet *from)
{
    for (size_t i = 0; i < from->source_count; i++) {
        const Source *source = &from->sources[i];
        Source *copy = source_append(set, source->uuid, source->tag);

        for (size_t k = 0; k < source->count; k++)
            range_append(copy, source->ranges[k]);
    }
}

GtidSet *gtid_set_copy(const GtidSet *set)
{
    GtidSet *copy = gtid_set_new(set->flavor);

    append_all(copy, set);
    for (size_t i = 0; i < set->domain_count; i++) {
        copy->domains = grow(copy->domains, copy->domain_count, &copy->domain_room, sizeof(Domain));
        copy->domains[copy->domain_count++] = set->domains[i];
    }
    return copy;
}

/* Questions */

GtidFlavor gtid_set_flavor(const GtidSet *set)
{
    return set->flavor;
}

bool gtid_set_is_empty(const GtidSet *set)
{
    return set->source_count == 0 && set->domain_count == 0;
}

uint64_t gtid_set_count(const GtidSet *set)
{
    uint64_t count = set->domain_count;

    for (size_t i = 0; i < set->source_count; i++)
        for (size_t k = 0; k < set->sources[i].count; k++) {
            Range range = set->sources[i].ranges[k];

            if (__builtin_add_overflow(count, range.to - range.from, &count))
                return UINT64_MAX;
        }
    return count;
}

static bool source_has(const Source *source, Range range)
{
    size_t at = range_place(source, range.from);

    return at < source->count && source->ranges[at].from <= range.from &&
           source->ranges[at].to >= range.to;
}

bool gtid_set_has(const GtidSet *set, const Gtid *gtid)
{
    const Source *source;
    const Domain *domain;

    assert(set->flavor == gtid->flavor);
    if (set->flavor == GTID_MARIADB) {
        domain = domain_find(set, gtid->domain);
        return domain && domain->number >= gtid->number;
    }
    source = source_find(set, gtid->uuid, gtid->tag);
    return source && source_has(source, (Range){gtid->number, gtid->number + 1});
}

static bool domain_is_in(const GtidSet *set, const Domain *domain)
{
    const Domain *mine = domain_find(set, domain->domain);

    return mine && mine->number >= domain->number;
}

bool gtid_set_contains(const GtidSet *a, const GtidSet *b)
{
    assert(a->flavor == b->flavor);
    for (size_t i = 0; i < b->domain_count; i++)
        if (!domain_is_in(a, &b->domains[i]))
            return false;
    for (size_t i = 0; i < b->source_count; i++) {
        const Source *source = source_find(a, b->sources[i].uuid, b->sources[i].tag);

        if (!source)
            return false;
        for (size_t k = 0; k < b->sources[i].count; k++)
            if (!source_has(source, b->sources[i].ranges[k]))
                return false;
    }
    return true;
}

bool gtid_set_equal(const GtidSet *a, const GtidSet *b)
{
    return gtid_set_contains(a, b) && gtid_set_contains(b, a);
}

static bool source_overlaps(const Source *a, const Source *b)
{
    for (size_t i = 0; i < b->count; i++) {
        size_t at = range_place(a, b->ranges[i].from);

        if (at < a->count && a->ranges[at].from < b->ranges[i].to)
            return true;
    }
    return false;
}

bool gtid_set_overlaps(const GtidSet *a, const GtidSet *b)
{
    assert(a->flavor == b->flavor);
    for (size_t i = 0; i < b->domain_count; i++)
        if (domain_find(a, b->domains[i].domain))
            return true;
    for (size_t i = 0; i < b->source_count; i++) {
        const Source *source = source_find(a, b->sources[i].uuid, b->sources[i].tag);

        if (source && source_overlaps(source, &b->sources[i]))
            return true;
    }
    return false;
}

GtidOrder gtid_set_compare(const GtidSet *a, const GtidSet *b)
{
    bool has_b = gtid_set_contains(a, b);
    bool is_in_b = gtid_set_contains(b, a);

    if (has_b)
        return is_in_b ? GTID_EQUAL : GTID_AFTER;
    return is_in_b ? GTID_BEFORE : GTID_APART;
}

/* Changes */

static void domain_raise(GtidSet *set, Domain domain)
{
    size_t at = 0;

    while (at < set->domain_count && set->domains[at].domain < domain.domain)
        at++;
    if (at < set->domain_count && set->domains[at].domain == domain.domain) {
        if (domain.number > set->domains[at].number)
            set->domains[at] = domain;
        return;
    }
    set->domains = grow(set->domains, set->domain_count, &set->domain_room, sizeof(Domain));
    memmove(&set->domains[at + 1], &set->domains[at], (set->domain_count - at) * sizeof(Domain));
    set->domains[at] = domain;
    set->domain_count++;
}

static Source *source_get(GtidSet *set, const uint8_t uuid[16], const char *tag)
{
    size_t at = source_place(set, uuid, tag);
    Source fresh;

    if (at < set->source_count && source_order(uuid, tag, &set->sources[at]) == 0)
        return &set->sources[at];
    fresh = *source_append(set, uuid, tag);
    memmove(&set->sources[at + 1], &set->sources[at],
            (set->source_count - 1 - at) * sizeof(Source));
    set->sources[at] = fresh;
    return &set->sources[at];
}

static void range_remove(Source *source, size_t at)
{
    source->count--;
    memmove(&source->ranges[at], &source->ranges[at + 1], (source->count - at) * sizeof(Range));
}

static void range_insert(Source *source, size_t at, Range range)
{
    range_append(source, range);
    memmove(&source->ranges[at + 1], &source->ranges[at], (source->count - 1 - at) * sizeof(Range));
    source->ranges[at] = range;
}

/* Mostly the last range grows by one. */
static void source_add(Source *source, uint64_t number)
{
    size_t at = range_place(source, number);
    bool follows = at > 0 && source->ranges[at - 1].to == number;
    bool precedes = at < source->count && source->ranges[at].from == number + 1;

    if (at < source->count && source->ranges[at].from <= number)
        return;
    if (follows && precedes) {
        source->ranges[at - 1].to = source->ranges[at].to;
        range_remove(source, at);
    } else if (follows) {
        source->ranges[at - 1].to = number + 1;
    } else if (precedes) {
        source->ranges[at].from = number;
    } else {
        range_insert(source, at, (Range){number, number + 1});
    }
}

void gtid_set_add(GtidSet *set, const Gtid *gtid)
{
    assert(set->flavor == gtid->flavor);
    if (set->flavor == GTID_MARIADB)
        domain_raise(set, (Domain){gtid->domain, gtid->server, gtid->number});
    else
        source_add(source_get(set, gtid->uuid, gtid->tag), gtid->number);
}

void gtid_set_union(GtidSet *set, const GtidSet *with)
{
    assert(set->flavor == with->flavor);
    if (set == with)
        return;
    for (size_t i = 0; i < with->domain_count; i++)
        domain_raise(set, with->domains[i]);
    append_all(set, with);
    set_tidy(set);
}

/* What of `from` isn't in `without`, both tidy. */
static void source_subtract(Source *from, const Source *without)
{
    Source left = {0};
    size_t k = 0;

    for (size_t i = 0; i < from->count; i++) {
        Range rest = from->ranges[i];

        while (k < without->count && without->ranges[k].to <= rest.from)
            k++;
        for (size_t j = k; j < without->count && without->ranges[j].from < rest.to; j++) {
            if (without->ranges[j].from > rest.from)
                range_append(&left, (Range){rest.from, without->ranges[j].from});
            rest.from = without->ranges[j].to;
        }
        if (rest.from < rest.to)
            range_append(&left, rest);
    }
    source_drop(from);
    from->ranges = left.ranges;
    from->count = left.count;
    from->room = left.room;
}

void gtid_set_subtract(GtidSet *set, const GtidSet *without)
{
    size_t kept = 0;

    assert(set->flavor == without->flavor);
    if (set == without) {
        set_clear(set);
        return;
    }
    for (size_t i = 0; i < set->domain_count; i++)
        if (!domain_is_in(without, &set->domains[i]))
            set->domains[kept++] = set->domains[i];
    set->domain_count = kept;
    kept = 0;
    for (size_t i = 0; i < set->source_count; i++) {
        Source *source = &set->sources[i];
        const Source *other = source_find(without, source->uuid, source->tag);

        if (other)
            source_subtract(source, other);
        if (source->count)
            set->sources[kept++] = *source;
        else
            source_drop(source);
    }
    set->source_count = kept;
}
