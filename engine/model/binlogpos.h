/* binlogpos.h - places in a binlog as servers and operators write them: FILE:POS.
 *
 * A file is a base name, a dot and a number of six digits or more. Order is by number, because
 * names don't sort as text: mysql-bin.1000000 comes after mysql-bin.999999. Spans point into what
 * was parsed.
 */
#ifndef BINLOGPOS_H
#define BINLOGPOS_H

#include "engine/base/buf.h"
#include "engine/model/position.h"

typedef struct BinlogPos {
    Span base;   /* "mysql-bin-changelog" */
    Position at; /* file: the number; at: the offset */
} BinlogPos;

#define BINLOG_BASE_MOST    255
#define BINLOG_FIRST_OFFSET 4 /* of the first event, behind the magic bytes */

/* A file's name alone, as a Rotate event or SHOW BINARY LOGS has it; folders in front are dropped.
 */
MUST_USE bool binlog_file_parse(Span name, Span *base, uint64_t *number, Err *err);
/* "mysql-bin.000042:1234", a colon or (as some logs write) a comma or blanks between. Fails as
 * ERR_USAGE. */
MUST_USE bool binlog_pos_parse(Span text, BinlogPos *pos, Err *err);
void binlog_file_put(Span base, uint64_t number, Buf *out);
void binlog_pos_put(const BinlogPos *pos, Buf *out);
/* -1, 0, 1. Files of different base names have no order: ERR_FAITHFUL. */
MUST_USE bool binlog_pos_compare(const BinlogPos *a, const BinlogPos *b, int *order, Err *err);

#endif
