/* dead.h - what a skipped transaction would have changed, as JSON for keybridge.dead_letter.
 *
 * Several parts when it is long: each is an array of its own, in order, so that memory stays
 * bounded whatever the transaction's size. Text values are strings, binary ones {"binary": hex};
 * values that the source didn't send are left out.
 */
#ifndef DEAD_H
#define DEAD_H

#include "engine/base/buf.h"
#include "engine/model/change.h"

void dead_put_change(Buf *out, const Change *change);

#endif
