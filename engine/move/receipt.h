/* receipt.h - what a migration did, for the people who have to answer for it.
 *
 * Made from the journal alone, so any process can make it again: receipt.json and receipt.txt in
 * the state directory (0600). Hashes of both files go into the audit log.
 */
#ifndef RECEIPT_H
#define RECEIPT_H

#include "engine/base/buf.h"
#include "engine/move/audit.h"
#include "engine/move/journal.h"

/* Builds both texts. */
MUST_USE bool receipt_json(Journal *journal, const char *audit_head, Buf *out, Err *err);
MUST_USE bool receipt_text(Span json, Buf *out, Err *err);

/* Builds, writes both files, notes their hashes in the audit log. `text` gets what was written as
 * text. */
MUST_USE bool receipt_write(Journal *journal, Audit *audit, Buf *text, Err *err);

#endif
