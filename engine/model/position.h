/* position.h - places in a source's log: parse, print, compare, contain.
 *
 * PostgreSQL: an LSN, a byte position in the WAL, printed as X/X (documentation, 8.20 pg_lsn Type).
 * MySQL/MariaDB: binlog file and offset, and sets of GTIDs.
 */
#ifndef POSITION_H
#define POSITION_H

#include "engine/base/err.h"
#include "engine/base/span.h"

/* One totally ordered place. PostgreSQL: file 0, at = LSN. Binlog: file = the number in the file's
 * name (numbers, because names don't sort: .999999 is before .1000000), at = the offset, 64 bits.
 */
typedef struct Position {
    uint64_t file;
    uint64_t at;
} Position;

#define POSITION_NONE ((Position){0, 0})
#define POSITION_TEXT 48

static inline Position position_of_lsn(uint64_t lsn)
{
    return (Position){0, lsn};
}

static inline int position_compare(Position a, Position b)
{
    if (a.file != b.file)
        return a.file < b.file ? -1 : 1;
    return (a.at > b.at) - (a.at < b.at);
}

static inline bool position_is_none(Position p)
{
    return p.file == 0 && p.at == 0;
}

/* 16/B374D848, or 42:1234 for a binlog. Returns out. */
const char *position_text(Position p, char out[POSITION_TEXT]);

/* "16/B374D848": up to 8 hex digits on either side. Fails as ERR_USAGE. */
MUST_USE bool lsn_parse(Span text, uint64_t *lsn, Err *err);
#define LSN_TEXT 20
const char *lsn_text(uint64_t lsn, char out[LSN_TEXT]);
#define LSN_ARGS(lsn) (unsigned)((lsn) >> 32), (unsigned)(lsn) /* for "%X/%X" */

#endif
