/* gtid.h - global transaction ids and sets of them: parse, print, compare, contain, add, take away.
 *
 * MySQL:   3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5:7,…  and since 8.3 tags: …:1-5:backup:1-3
 * MariaDB: 0-1-270,1-1-3   domain-server-sequence, the last of each domain: it stands for all of
 * that domain up to there
 *
 * A set belongs to its maker, one thread at a time. Texts from outside are bounded by
 * GTID_TEXT_MOST; what doesn't parse is ERR_USAGE, and whoever got it from a server says so in
 * front.
 */
#ifndef GTID_H
#define GTID_H

#include "engine/base/buf.h"

typedef enum GtidFlavor { GTID_MYSQL, GTID_MARIADB } GtidFlavor;

#define GTID_TEXT_MOST MIB(16)
#define GTID_TAG_MOST  32
#define GTID_GNO_MOST  ((uint64_t)INT64_MAX - 1)

/* One transaction. */
typedef struct Gtid {
    GtidFlavor flavor;
    /* MySQL */
    uint8_t uuid[16];
    char tag[GTID_TAG_MOST + 1]; /* lower case, empty for none */
    /* MariaDB */
    uint32_t domain;
    uint32_t server;
    uint64_t number; /* both; MySQL: 1 or more */
} Gtid;

MUST_USE bool gtid_parse(GtidFlavor flavor, Span text, Gtid *gtid, Err *err);
#define GTID_TEXT 96
const char *gtid_text(const Gtid *gtid, char out[GTID_TEXT]);

typedef struct GtidSet GtidSet;

MUST_USE GtidSet *gtid_set_new(GtidFlavor flavor);
MUST_USE GtidSet *gtid_set_parse(GtidFlavor flavor, Span text,
                                 Err *err); /* empty text: empty set; NULL: see err */
MUST_USE GtidSet *gtid_set_copy(const GtidSet *set);
void gtid_set_free(GtidSet *set); /* NULL is fine */

GtidFlavor gtid_set_flavor(const GtidSet *set);
bool gtid_set_is_empty(const GtidSet *set);
uint64_t gtid_set_count(
    const GtidSet *set); /* transactions (MariaDB: domains); UINT64_MAX when beyond that */
/* Canonical: sorted, ranges joined, no blanks. What the servers take, and equal for equal sets. */
void gtid_set_put(const GtidSet *set, Buf *out);

bool gtid_set_has(const GtidSet *set, const Gtid *gtid);
/* All of b is in a. MariaDB: every domain of b is in a, at least as far. Both of one flavor, as
 * everywhere below. */
bool gtid_set_contains(const GtidSet *a, const GtidSet *b);
bool gtid_set_equal(const GtidSet *a, const GtidSet *b);
/* They have a transaction in common (MariaDB: a domain). */
bool gtid_set_overlaps(const GtidSet *a, const GtidSet *b);

typedef enum GtidOrder { GTID_EQUAL, GTID_BEFORE, GTID_AFTER, GTID_APART } GtidOrder;
/* BEFORE: b has all of a and more. APART: each has what the other hasn't. */
GtidOrder gtid_set_compare(const GtidSet *a, const GtidSet *b);

/* MariaDB: moves the domain forward to it; a number that isn't higher changes nothing. */
void gtid_set_add(GtidSet *set, const Gtid *gtid);
void gtid_set_union(GtidSet *set, const GtidSet *with);
/* Takes away what `without` has. MariaDB: the domains that it has at least as far; the rest stay as
 * they are. */
void gtid_set_subtract(GtidSet *set, const GtidSet *without);

#endif
